"""Resampling by two with the binomial filter (1, 3, 3, 1) / 8, zeros beyond the edges.

The filter is (1, 2, 1) convolved with the (1, 1) of nearest doubling; Karras et al. 2020, appendix B,
https://arxiv.org/abs/1912.04958. Both functions are sums of shifted slices, first along the width and then along the
height: one pass where a depthwise convolution's second derivatives are slow on a CPU.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def upsample(x: Tensor) -> Tensor:
    """Double the resolution: [N, C, H, W] to [N, C, 2H, 2W]; a constant stays itself away from the edges."""
    return _double(_double(x, dim=3), dim=2)


def downsample(x: Tensor) -> Tensor:
    """Halve the resolution: [N, C, 2H, 2W] to [N, C, H, W]; a constant stays itself away from the edges."""
    return _halve(_halve(x, dim=3), dim=2)


def _double(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    before, after = (_padded(x, dim).narrow(dim, start, size) for start in (0, 2))
    # an output lies a quarter of an input pixel off its nearest input
    pairs = torch.stack([before.lerp(x, 0.75), after.lerp(x, 0.75)], dim=dim + 1)
    return pairs.flatten(dim, dim + 1)


def _halve(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim] // 2
    pairs = _padded(x, dim).unflatten(dim, (size + 1, 2))
    left, right = pairs.unbind(dim + 1)
    outer = left.narrow(dim, 0, size) + right.narrow(dim, 1, size)
    inner = right.narrow(dim, 0, size) + left.narrow(dim, 1, size)
    return torch.lerp(outer, inner, 0.75) / 2


def _padded(x: Tensor, dim: int) -> Tensor:
    return pad(x, (1, 1) if dim == 3 else (0, 0, 1, 1))
