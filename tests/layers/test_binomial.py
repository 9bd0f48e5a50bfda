"""Resampling by slices against the convolutions that define it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.testing import assert_close

from gan_lab.layers.binomial import downsample, upsample

LINE = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
KERNEL = torch.outer(LINE, LINE).expand(3, 1, 4, 4)


class Resample(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        # squared, so that second derivatives are not 0
        return self.function(x).square()


@pytest.mark.parametrize("size", [(6, 8), (2, 4)])
def test_it_is_a_convolution_with_the_binomial_filter(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert_close(downsample(x), conv2d(x, KERNEL, stride=2, padding=1, groups=3))
    assert_close(upsample(x), conv_transpose2d(x, 4 * KERNEL, stride=2, padding=1, groups=3))


@pytest.mark.parametrize("function", [upsample, downsample])
def test_gradients(
    function: Callable[[Tensor], Tensor], check_gradients: Callable[..., None]
) -> None:
    check_gradients(Resample(function), torch.randn(1, 2, 2, 4))
