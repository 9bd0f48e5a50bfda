"""Filtering the lines of an image, which go on as their own reflections.

A filter is applied as a matrix product, of blocks of a line with what is around them or, where lines are short, of
whole lines: on a CPU that is many times faster than a convolution of one channel, and its derivatives are matrix
products too.
"""

import numpy as np
import torch
from torch import Tensor

BLOCK = 16  # pixels
SHORT = 64  # pixels


def filter_blocks(lines: Tensor, source: Tensor, matrix: Tensor) -> Tensor:
    """Gather blocks of lines [N, C, H, L] at `source` [B, K] and multiply them by `matrix`: [N, C, H, B * M].

    Args:
        matrix: [K, M], or [N, K, M] for one of each image.
    """
    length = lines.shape[-1]
    if length > SHORT:
        blocks = lines.index_select(-1, source.flatten()).unflatten(-1, source.shape)
        return (blocks @ matrix.unsqueeze(-3).unsqueeze(-3)).flatten(-2)
    # gathering costs more than it saves: leave it to one matrix for whole lines
    places = torch.arange(length, device=lines.device)
    gather = (source.unsqueeze(1) == places.unsqueeze(1)).to(lines.dtype)  # [B, L, K]
    whole = (gather @ matrix.unsqueeze(-3)).movedim(-3, -2).flatten(-2)  # [..., L, B * M]
    return lines @ whole.unsqueeze(-3)


def block_places(number: int, *, step: int, first: int, width: int, device: torch.device) -> Tensor:
    """Return the places [number, width] of blocks that begin at `first` and every `step` after it."""
    starts = torch.arange(number, device=device) * step + first
    return starts.unsqueeze(1) + torch.arange(width, device=device)


def reflect(index: Tensor, length: int) -> Tensor:
    """Fold indices outside [0, length) back into it, about the centres of the first and the last pixel."""
    period = 2 * (length - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def band_matrix(taps: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return taps[..., places] for integers `places` of any shape, 0 where there is no such tap."""
    inside = (places >= 0) & (places < taps.shape[-1])
    return np.where(inside, taps[..., places.clip(0, taps.shape[-1] - 1)], 0)


def constant(values: np.ndarray, like: Tensor) -> Tensor:
    """Copy numbers to where `like` is, in its type.

    Not kept from one call to the next: a tensor that was made under one of torch's function transforms is of no use
    outside. The copy is small, and the host does not wait for it.
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)
