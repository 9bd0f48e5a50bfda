"""Ranks: values that they share, batch norm over all of them, and Lightning's strategy and precision.

Every rank must make the same calls in the same order.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync, MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.distributed import (
    ProcessGroup,
    ReduceOp,
    Work,
    all_reduce,
    broadcast,
    get_rank,
    get_world_size,
    new_group,
)
from torch.distributed.constants import default_pg_timeout
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.aggregation import MeanMetric

from gan_lab.layers.collectives import several_ranks
from gan_lab.layers.precision import to_fp32

# messages of gloo and NCCL about a lost process or connection
_LOST = re.compile(
    r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|[Tt]imed? ?out|[Tt]imeout|[Ss]ocket"
)


def lost_rank(error: Exception) -> str | None:
    """Explain the error of a collective that lost another process; None for other errors."""
    if not several_ranks() or not isinstance(error, RuntimeError):
        return None
    text = " ".join(str(error).splitlines()[:1]).rstrip(".")
    if not isinstance(error, distributed.DistError) and _LOST.search(text) is None:
        return None
    return f"process {get_rank()} of {get_world_size()} has lost another one ({text[:200]})"


def rank() -> int:
    """Return the rank of this process, 0 if alone."""
    return get_rank() if several_ranks() else 0


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes, in one message per dtype."""
    if several_ranks():
        average_in_place([p.grad for p in parameters if p.grad is not None])


def average_buffers(modules: Iterable[nn.Module]) -> None:
    """Replace the floating-point buffers of modules, such as running statistics, by their mean over all processes."""
    if several_ranks():
        buffers = [b for module in modules for b in module.buffers()]
        average_in_place([b for b in buffers if b.is_floating_point()])


@torch.no_grad()
def average_in_place(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their mean over all processes."""
    for dtype in sorted({t.dtype for t in tensors}, key=str):
        group = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.flatten() for t in group])
        all_reduce(flat)
        flat /= get_world_size()
        parts = flat.split([t.numel() for t in group])
        torch._foreach_copy_(group, [p.view_as(t) for p, t in zip(parts, group, strict=True)])


class DelayedAllReduce:
    """Maximum over all processes of the previous call's values, so that no step waits.

    It communicates on the CPU: on a GPU the result would only be ready with the current step.

    Attributes:
        timeout: how long to wait for the others; set before the first call.
    """

    def __init__(self) -> None:
        self.timeout = default_pg_timeout
        self._pending: tuple[Tensor, Work] | None = None
        self._group: ProcessGroup | None = None

    def __call__(self, value: int) -> int:
        """Return the largest value of all processes in the previous call; alone, this value."""
        if not several_ranks():
            return value
        if self._group is None:
            group = new_group(backend="gloo", timeout=self.timeout)
            assert isinstance(group, ProcessGroup), "of all processes"
            self._group = group
        before = self._pending
        said = torch.tensor(value)
        work = all_reduce(said, ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._pending = said, work
        if before is None:
            return 0
        before[1].wait()
        return int(before[0])


@dataclass(frozen=True)
class Ranks:
    """Rank and world size.

    All ranks must call `send` in the same order.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Return those of torch's process group; 0 and 1 without."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def send(self, value: Any, *, source: int = 0) -> Any:
        """Broadcast the value of rank `source`; the others' is ignored."""
        if self.size == 1:
            return value
        parcel = [value]
        distributed.broadcast_object_list(parcel, src=source)
        return parcel[0]


# values buffered per metric: an update costs as much as many additions
_CHUNK = 64


class RunningMeans:
    """Means by name over all ranks, which must use the same names; only reading waits for the device."""

    def __init__(self) -> None:
        self._metrics: dict[str, MeanMetric] = {}
        self._pending: dict[str, list[Tensor]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Add a tensor's elements to the mean of that name."""
        pending = self._pending.setdefault(name, [])
        # float64 sums do not depend on the split among ranks; MPS has no float64
        dtype = torch.float32 if values.device.type == "mps" else torch.float64
        # a copy: CUDA graphs write into the same tensor again
        pending.append(values.detach().to(dtype, copy=True))
        if len(pending) == _CHUNK:
            self._fold(name)

    def means(self) -> dict[str, float]:
        """Return the means so far."""
        return {name: total / count for name, (total, count) in self.state_dict().items()}

    def take(self) -> dict[str, float]:
        """Return the means so far and reset."""
        means = self.means()
        self._metrics, self._pending = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return (sum, count) over all ranks by name, so that a resumed run logs the same values."""
        for name in list(self._pending):
            self._fold(name)
        state = {}
        for name, metric in sorted(self._metrics.items()):
            with metric.sync_context():
                state[name] = (float(metric.mean_value), float(metric.weight))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict` on rank 0: it holds the sums of all ranks."""
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
    # a check for NaN would wait for the device; the mean shows them
    metric = MeanMetric(nan_strategy="disable")
    metric.set_dtype(torch.float64)
    return metric


# Lightning


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, of which each has equally many.

    `torch.nn.SyncBatchNorm` needs GPUs. This one consists of differentiable operations: it runs on any device, and
    penalties may differentiate it twice. With one process, and in evaluation, it is plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of [N, C, ...]."""
        if not (self.training and several_ranks()):
            return super().forward(x)
        kept = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        exact = to_fp32(x)
        mean = global_mean(exact.mean(kept))  # [C]
        centered = exact - mean.view(shape)
        variance = global_mean(centered.square().mean(kept))  # [C]
        self._keep(mean.detach(), variance.detach(), x.numel() // x.shape[1] * get_world_size())
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        y = centered * scale.view(shape)
        return (y + self.bias.view(shape) if self.affine else y).to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, as `nn.BatchNorm2d` does: towards the unbiased variance."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # the mean over all batches
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""


def global_mean(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, differentiable any number of times."""
    total: Tensor = SumOverRanks.apply(value)
    return total / get_world_size()


class SumOverRanks(Function):
    """The sum over all processes; its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Return the sum of a tensor."""
        total = value.contiguous().clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the sum of the gradients, differentiable again."""
        return SumOverRanks.apply(gradients[0])


def share_statistics(network: nn.Module) -> None:
    """Replace each batch norm of a network by a `SharedBatchNorm` with its parameters and statistics."""
    for layer in list(network.modules()):
        for name, norm in layer.named_children():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, SharedBatchNorm):
                setattr(layer, name, shared(norm))


def shared(norm: _BatchNorm) -> SharedBatchNorm:
    """Return a `SharedBatchNorm` with the parameters and statistics of `norm`."""
    made = SharedBatchNorm(
        norm.num_features,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    )
    made._parameters.update(norm._parameters)
    made._buffers.update(norm._buffers)
    return made.train(norm.training)


class ManualDDPStrategy(DDPStrategy):
    """Data-parallel training in which the loop averages gradients itself, without DistributedDataParallel.

    That wrapper expects gradients of all parameters in every backward pass. The loop averages those of the current
    player, once per step after the last micro-batch (`average_gradients`).

    Args:
        timeout: how long a process waits for the others.
    """

    def __init__(self, *, timeout: timedelta = default_pg_timeout) -> None:
        super().__init__(timeout=timeout)
        self.timeout = timeout

    def configure_ddp(self) -> None:
        """Broadcast rank 0's weights, without a wrapper."""
        module = self.lightning_module
        assert module is not None
        if several_ranks():
            # not the whole state dict: its growth stage is on the CPU, which NCCL does not support
            with torch.no_grad():
                for tensor in (*module.parameters(), *module.buffers()):
                    broadcast(tensor, src=0)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Nothing: the sampler knows its rank."""
        return {}


class SyncBatchNorm(LayerSync):
    """Batch norm of the players over all processes; the moving average, always in evaluation mode, needs none."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Change a model's players in place, and return it."""
        for player in ("generator", "discriminator"):
            share_statistics(model.get_submodule(player))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model unchanged: with one process these layers are plain batch norm."""
        return model


class Float16Precision(MixedPrecision):
    """Mixed precision in float16 without Lightning's gradient scaler: each player has its own.

    Args:
        device: type of the device.
    """

    def __init__(self, *, device: str) -> None:
        super().__init__("16-mixed", device)
        self.scaler = None
