"""Sums and means over all processes."""

import torch
from torch import Tensor
from torch.distributed import (
    all_reduce,
    get_world_size,
    is_available,
    is_initialized,
)


def several_ranks() -> bool:
    """Whether there is another process to agree with."""
    return is_available() and is_initialized() and get_world_size() > 1


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
