"""One value for all processes of a run; every one of them must call these as often as the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import (
    ProcessGroup,
    ReduceOp,
    Work,
    all_reduce,
    get_rank,
    get_world_size,
    new_group,
)

from gan_lab.layers.collectives import several_ranks


def rank() -> int:
    """Return the number of this process, 0 where it is alone."""
    return get_rank() if several_ranks() else 0


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes, in one message for each type of number."""
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

    It goes from CPU to CPU: on a GPU the result would be there no sooner than the step in which it was asked for.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor, Work] | None = None
        self._group: ProcessGroup | None = None

    def __call__(self, value: int) -> int:
        """Return the largest value that a process gave in the call before; alone, this one."""
        if not several_ranks():
            return value
        if self._group is None:
            group = new_group(backend="gloo")
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
    """Which of the processes this is, and how many there are.

    All of them have to come to the same calls of `send` in the same order.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Those of torch's process group; one where there is none."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def send(self, value: Any, *, source: int = 0) -> Any:
        """Return what process `source` calls this with; the others' value is ignored."""
        if self.size == 1:
            return value
        parcel = [value]
        distributed.broadcast_object_list(parcel, src=source)
        return parcel[0]
