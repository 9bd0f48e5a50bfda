"""One value for all processes of a run; every one of them must call these as often as the others."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed import (
    ProcessGroup,
    ReduceOp,
    Work,
    all_reduce,
    get_rank,
    get_world_size,
    is_available,
    is_initialized,
    new_group,
)

from gan_lab.framework import rank_zero_only


def several_ranks() -> bool:
    """Whether there is another process to agree with."""
    return is_available() and is_initialized() and get_world_size() > 1


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all, also before they have met."""
    return getattr(rank_zero_only, "rank", 0) == 0


def rank() -> int:
    """Return the number of this process, 0 where it is alone."""
    return get_rank() if several_ranks() else 0


@torch.no_grad()
def sum_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if not several_ranks():
        return value
    total = value.detach().clone()
    all_reduce(total)
    return total


@torch.no_grad()
def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes.

    Running means that networks keep follow it, so that they stay the same everywhere and do not depend on how many
    processes share a batch.
    """
    return sum_over_ranks(value) / get_world_size() if several_ranks() else value


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


class Agreement:
    """Tells all processes what one of them says, one call later: nobody waits for the others within a step.

    It goes from CPU to CPU: on a GPU the answer would be there no sooner than the step that it was asked in.
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
