"""Doubling and halving the resolution with a low-pass filter, as depthwise convolutions.

Zhang 2019, https://arxiv.org/abs/1904.11486; Karras et al. 2019, appendix C: the filter is [1, 2, 1] there and
[1, 3, 3, 1], which suits even strides, since Karras et al. 2020, https://arxiv.org/abs/1912.04958.

Pixels outside the image count as 0. Everything here is linear in the image and differentiable any number of times.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

BINOMIAL = (1.0, 3.0, 3.0, 1.0)

Pair = tuple[int, int]


def fir_filter(taps: Sequence[float] = BINOMIAL) -> Tensor:
    """Return a low-pass filter [T, T]: the outer product of `taps` with themselves, normalized to sum 1.

    Args:
        taps: an even number of taps, symmetric.
    """
    line = torch.tensor(taps)
    assert len(taps) % 2 == 0
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


class Depthwise(torch.autograd.Function):
    """One fixed filter for all channels, or its adjoint; each is the other's derivative.

    torch's own second derivative of a grouped convolution also computes that by the weights, group by group, wanted or
    not, and takes most of the time of a penalty with it.
    """

    @staticmethod
    def forward(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, adjoint: bool) -> Tensor:
        """Filter [N, C, H, W] with [K, L]."""
        weight = kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
        convolve = conv_transpose2d if adjoint else conv2d
        return convolve(x, weight, stride=stride, padding=padding, groups=x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, kernel, *ctx.settings = inputs
        ctx.save_for_backward(kernel)
        ctx.save_for_forward(kernel)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        stride, padding, adjoint = ctx.settings
        gradient = Depthwise.apply(gradients[0], kernel, stride, padding, not adjoint)
        return gradient, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (kernel,) = ctx.saved_tensors
        return Depthwise.apply(tangents[0], kernel, *ctx.settings)


def convolve(x: Tensor, kernel: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """Correlate every channel of [N, C, H, W] with `kernel` [K, L]; a size must not leave a rest by its stride."""
    return filtered(x, kernel, stride, padding, False)


def convolve_transposed(
    x: Tensor, kernel: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0)
) -> Tensor:
    """Apply the adjoint of `convolve`: put `kernel`, times its value, at every pixel, `stride` pixels apart."""
    return filtered(x, kernel, stride, padding, True)


def filtered(x: Tensor, kernel: Tensor, stride: Pair, padding: Pair, adjoint: bool) -> Tensor:
    """Apply `Depthwise`, or in compiled code, which nothing differentiates twice, what it consists of."""
    if torch.compiler.is_compiling():
        return Depthwise.forward(x, kernel, stride, padding, adjoint)
    return Depthwise.apply(x, kernel, stride, padding, adjoint)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the resolution: [N, C, H, W] -> [N, C, 2H, 2W], zeros between the pixels, then the filter times 4."""
    margin = len(kernel) // 2 - 1
    return convolve_transposed(x, kernel * 4, stride=(2, 2), padding=(margin, margin))


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Halve the resolution: [N, C, H, W] -> [N, C, H / 2, W / 2], the filter, then every other pixel."""
    margin = len(kernel) // 2 - 1
    return convolve(x, kernel, stride=(2, 2), padding=(margin, margin))


def smooth(x: Tensor, kernel: Tensor, *, grow: int) -> Tensor:
    """Apply the filter: [N, C, H, W] -> [N, C, H + grow, W + grow], with `grow` 1 or -1.

    Growing by one suits a 3x3 convolution with stride 2 behind it, shrinking by one a transposed one before it.
    """
    margin = (len(kernel) - 1 + grow) // 2
    return convolve(x, kernel, padding=(margin, margin))
