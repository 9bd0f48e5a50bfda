"""One value for all processes of a run."""

import torch
from torch import Tensor
from torch.distributed import all_reduce, get_world_size, is_available, is_initialized


@torch.no_grad()
def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes; every one of them must call this as often as the others.

    Running means that networks keep follow it, so that they stay the same everywhere and do not depend on how many
    processes share a batch.
    """
    if not (is_available() and is_initialized()):
        return value
    total = value.detach().clone()
    all_reduce(total)
    return total / get_world_size()
