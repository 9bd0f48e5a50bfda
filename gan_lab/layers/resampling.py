"""Doubling and halving the resolution with a low-pass filter, as depthwise convolutions.

Zhang 2019, https://arxiv.org/abs/1904.11486; Karras et al. 2019, appendix C: the filter is [1, 2, 1] there and
[1, 3, 3, 1], which suits even strides, since Karras et al. 2020, https://arxiv.org/abs/1912.04958.

Pixels outside the image count as 0. Everything here is linear in the image and differentiable any number of times.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

BINOMIAL = (1.0, 3.0, 3.0, 1.0)


class FirFilter(nn.Module):
    """Holds a low-pass filter [T, T], the outer product of `taps` with themselves, with sum 1.

    Args:
        taps: an even, symmetric filter.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float] = BINOMIAL) -> None:
        super().__init__()
        line = torch.tensor(taps)
        assert len(taps) % 2 == 0
        kernel = torch.outer(line, line)
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def forward(self) -> Tensor:
        """Return the filter [T, T]."""
        return self.kernel


def depthwise(kernel: Tensor, x: Tensor) -> Tensor:
    """Return `kernel` [T, T] as weights [C, 1, T, T] of a depthwise convolution of `x` [N, C, H, W]."""
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the resolution: [N, C, H, W] -> [N, C, 2H, 2W], zeros between the pixels, then the filter times 4."""
    return conv_transpose2d(
        x,
        depthwise(kernel * 4, x),
        stride=2,
        padding=len(kernel) // 2 - 1,
        groups=x.shape[1],
    )


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Halve the resolution: [N, C, H, W] -> [N, C, H / 2, W / 2], the filter, then every other pixel."""
    return conv2d(
        x, depthwise(kernel, x), stride=2, padding=len(kernel) // 2 - 1, groups=x.shape[1]
    )


def smooth(x: Tensor, kernel: Tensor, *, grow: int) -> Tensor:
    """Apply the filter: [N, C, H, W] -> [N, C, H + grow, W + grow], with `grow` 1 or -1.

    Growing by one suits a 3x3 convolution with stride 2 behind it, shrinking by one a transposed one before it.
    """
    return conv2d(x, depthwise(kernel, x), padding=(len(kernel) - 1 + grow) // 2, groups=x.shape[1])
