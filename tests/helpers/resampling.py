"""Resampling as it is defined, one step at a time: zeros between pixels, margins, filter, every n-th pixel."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def resample(
    x: Tensor, kernel: Tensor, *, up: int = 1, down: int = 1, margins: tuple[int, int] = (0, 0)
) -> Tensor:
    """[N, C, H, W], kernel [T, T]; the margins are those before and after, on both axes."""
    n, c, h, w = x.shape
    convolve_transposed = torch.zeros(n, c, h * up, w * up, dtype=x.dtype)
    convolve_transposed[:, :, ::up, ::up] = x
    convolve_transposed = pad(convolve_transposed, (*margins, *margins))
    # convolution proper turns the kernel round
    weight = kernel.flip(0, 1).to(x.dtype)[None, None]
    filtered = conv2d(convolve_transposed.reshape(n * c, 1, *convolve_transposed.shape[2:]), weight)
    return filtered.reshape(n, c, *filtered.shape[2:])[:, :, ::down, ::down]
