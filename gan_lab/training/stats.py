"""Running means between two log entries, by torchmetrics."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.aggregation import MeanMetric

from gan_lab.distributed.ranks import rank

# values of a name that are kept before the metric takes them: an update of it costs as much as many additions
_CHUNK = 64


class RunningMeans:
    """Means by name over all ranks, which must have the same names; only reading them waits for the device."""

    def __init__(self) -> None:
        self._metrics: dict[str, MeanMetric] = {}
        self._pending: dict[str, list[Tensor]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add a tensor's elements to the mean of that name."""
        pending = self._pending.setdefault(name, [])
        # sums are exact in float64, so that it does not matter which rank has what of them; MPS has none
        dtype = torch.float32 if values.device.type == "mps" else torch.float64
        # a copy: CUDA graphs write into the same tensor again
        pending.append(values.detach().to(dtype, copy=True))
        if len(pending) == _CHUNK:
            self._fold(name)

    def means(self) -> dict[str, float]:
        """Return the means so far."""
        return {name: total / count for name, (total, count) in self.state_dict().items()}

    def take(self) -> dict[str, float]:
        """Return the means so far and begin anew."""
        means = self.means()
        self._metrics, self._pending = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return (sum, count) over all ranks by name, so that a resumed run logs what an uninterrupted one would."""
        for name in list(self._pending):
            self._fold(name)
        state = {}
        for name, metric in sorted(self._metrics.items()):
            with metric.sync_context():
                state[name] = (float(metric.mean_value), float(metric.weight))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`, on rank 0: it holds what all ranks had gathered."""
        self._pending = {}
        self._metrics = {name: _metric() for name in state}
        if rank() == 0:
            for name, metric in self._metrics.items():
                metric.mean_value += state[name][0]
                metric.weight += state[name][1]

    def _fold(self, name: str) -> None:
        values = torch.cat([kept.flatten() for kept in self._pending.pop(name)])
        metric = self._metrics.setdefault(name, _metric())
        if metric.device != values.device or metric.dtype != values.dtype:
            metric.to(values.device).set_dtype(values.dtype)
        metric.update(values)


def _metric() -> MeanMetric:
    # a check for NaN would wait for the device; they are for the mean to show
    metric = MeanMetric(nan_strategy="disable")
    metric.set_dtype(torch.float64)
    return metric
