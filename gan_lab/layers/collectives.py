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
    """Whether several processes train together."""
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

    Used for running means in networks, so that they are the same on all ranks and independent of the number of ranks.
    """
    return sum_over_ranks(value) / get_world_size() if several_ranks() else value
