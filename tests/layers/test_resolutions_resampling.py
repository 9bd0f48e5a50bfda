from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from gan_lab.layers.resolutions import downsample, fir_filter, smooth, upsample
from tests.helpers.resampling import resample


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def test_resampling_matches_its_definition(x: torch.Tensor) -> None:
    kernel = fir_filter()
    assert_close(kernel.sum(), torch.tensor(1.0))
    assert_close(upsample(x, kernel), resample(x, kernel * 4, up=2, margins=(2, 1)))
    assert_close(downsample(x, kernel), resample(x, kernel, down=2, margins=(1, 1)))
    assert_close(smooth(x, kernel, grow=1), resample(x, kernel, margins=(2, 2)))
    assert_close(smooth(x, kernel, grow=-1), resample(x, kernel, margins=(1, 1)))


def test_a_constant_stays_itself_inside() -> None:
    flat, kernel = torch.full((1, 2, 8, 8), 0.7), fir_filter()
    assert_close(upsample(flat, kernel)[..., 1:-1, 1:-1], torch.full((1, 2, 14, 14), 0.7))
    assert_close(downsample(flat, kernel)[..., 1:-1, 1:-1], torch.full((1, 2, 2, 2), 0.7))


def test_the_highest_frequency_vanishes(x: torch.Tensor) -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert downsample(stripes, fir_filter())[..., 1:-1, 1:-1].abs().max() < 1e-6


@pytest.mark.parametrize("function", [upsample, downsample, partial(smooth, grow=1)])
def test_gradients(function: Callable[..., torch.Tensor]) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    kernel = fir_filter()

    def bent(x: torch.Tensor) -> torch.Tensor:  # a linear map alone has no second derivative
        return function(x, kernel.double()).square()

    assert torch.autograd.gradcheck(bent, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(bent, x, check_fwd_over_rev=True)


def test_derivatives_can_be_taken_forward(x: torch.Tensor) -> None:
    kernel, direction = fir_filter(), torch.randn_like(x)
    _, tangent = torch.func.jvp(lambda x: upsample(x, kernel), (x,), (direction,))
    assert_close(tangent, upsample(direction, kernel))
