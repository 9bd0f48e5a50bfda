"""Running means of losses, logits and the like between two log entries, without waiting for the device."""

from typing import Any

import torch
from torch import Tensor

from gan_lab.distributed.ranks import rank
from gan_lab.layers.collectives import several_ranks, sum_over_ranks


class RunningMeans:
    """Means of logged values by name; they stay on the device until they are taken, and then are those of all ranks."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Count a tensor's elements into the mean of that name."""
        total = values.detach().float().sum()
        # in float64 their sums are exact, so that it does not matter which rank has what of them; MPS has none
        total = total.to(torch.float32 if total.device.type == "mps" else torch.float64)
        known = self._sums.get(name)
        self._sums[name] = (
            total if known is None else known.to(total.dtype).to(total.device) + total
        )
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    def means(self) -> dict[str, float]:
        """Return the means so far."""
        sums, counts = self._totals()
        return {name: total / counts[name] for name, total in sums.items()}

    def take(self) -> dict[str, float]:
        """Return the means so far and begin anew."""
        means = self.means()
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return plain containers, so that a resumed run logs what an uninterrupted one would."""
        sums, counts = self._totals()
        return {"sums": sums, "counts": counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, on rank 0: it holds what all ranks had gathered."""
        share = 1 if rank() == 0 else 0
        self._sums = {
            name: torch.tensor(share * total, dtype=torch.float64)
            for name, total in state["sums"].items()
        }
        self._counts = {name: share * count for name, count in state["counts"].items()}

    def _totals(self) -> tuple[dict[str, float], dict[str, int]]:
        """Return sums and counts over all ranks, which have the same names."""
        if not several_ranks() or not self._sums:
            return {name: float(total) for name, total in self._sums.items()}, dict(self._counts)
        names = sorted(self._sums)
        device = next(iter(self._sums.values())).device
        sums = sum_over_ranks(torch.stack([self._sums[n].to(device).double() for n in names]))
        counts = sum_over_ranks(torch.tensor([self._counts[n] for n in names], device=device))
        return dict(zip(names, sums.tolist(), strict=True)), dict(
            zip(names, counts.tolist(), strict=True)
        )
