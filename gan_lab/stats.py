"""Means of what happens between two log entries, gathered without waiting for the device."""

from typing import Any

from torch import Tensor


class RunningMeans:
    """Means by name; nothing leaves the device until they are taken."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Count a tensor's elements into the mean of that name."""
        total = values.detach().float().sum()
        known = self._sums.get(name)
        self._sums[name] = total if known is None else known.to(total.device) + total
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    def means(self) -> dict[str, float]:
        """Return the means so far."""
        return {name: float(self._sums[name]) / self._counts[name] for name in self._sums}

    def take(self) -> dict[str, float]:
        """Return the means so far and begin anew."""
        means = self.means()
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers, so that a resumed run logs what an uninterrupted one would."""
        return {
            "sums": {name: float(total) for name, total in self._sums.items()},
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._sums = {name: Tensor([total]).sum() for name, total in state["sums"].items()}
        self._counts = dict(state["counts"])
