"""Seeds: every random number is a function of the seed and its purpose.

Nothing random is saved in a checkpoint: the training step seeds itself from (seed, rank, images seen) and each drawn
image from (seed, its index), so a resumed run and another batch size meet the same numbers.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from gan_lab.errors import InputError


class Stream(IntEnum):
    """Purposes of a seed's random numbers besides z, which has none; one number each, so that no two share theirs."""

    LABELS = 1
    STATISTICS = 2  # standing statistics of batch norm
    PATH_START = 3
    PATH_END = 4
    PATH_POSITION = 5
    EQUIVARIANCE = 6
    CLASS_CENTER = 7
    NOISE = 8
    NOISE_MAPS = 9  # of a projection
    CANDIDATES = 10  # where a projection may start
    W_STATISTICS = 11
    JITTER = 12  # of w in a projection
    LOCALITY = 13  # of pivotal tuning
    DIRECTIONS = 14
    LINEARIZATION = 15


def derive_seed(*parts: int) -> int:
    """Mix non-negative integers into one 64-bit seed; different parts give unrelated seeds (numpy's SeedSequence)."""
    # SeedSequence pads with zeros: without their number, (0,) and (0, 0) would be one seed
    return int(np.random.SeedSequence((len(parts), *parts)).generate_state(1, np.uint64)[0])


def check_seed(seed: int) -> None:
    """Check that a seed is in the range that every generator supports.

    Raises:
        InputError: naming the range.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed={seed} must be from 0 to {2**32 - 1}")


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Return the state of the generators that computations on `device` draw from, without waiting for it."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return tuple(states)


def set_random_state(device: torch.device, state: tuple[Tensor, ...]) -> None:
    """Restore the state that `random_state` returned."""
    torch.set_rng_state(state[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[1], device)


def seed_step(device: torch.device, *parts: int) -> None:
    """Seed the generators that a training step on `device` draws from.

    `torch.manual_seed` also notes the seed for every kind of accelerator that is not in use, with a stack trace:
    2 ms a step, and a list that grows for ever.
    """
    seed = derive_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
