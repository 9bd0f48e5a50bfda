"""Distances of images, against what they must be."""

import pytest
import torch
from torch.nn.functional import interpolate

from gan_lab.sampling.targets import (
    PyramidDistance,
    laplacian_pyramid,
    mean_squared_error,
    psnr,
)


@pytest.mark.parametrize(
    ("size", "bands"), [((16, 16), 4), ((24, 12), 3), ((5, 6), 1), ((7, 7), 1)]
)
def test_bands_enlarged_and_summed_are_the_image(size: tuple[int, int], bands: int) -> None:
    images = torch.randn(2, 3, *size)
    pyramid = laplacian_pyramid(images)
    assert len(pyramid) == bands
    whole = pyramid[-1]
    for band in reversed(pyramid[:-1]):
        whole = band + interpolate(whole, scale_factor=2, mode="bilinear")
    assert torch.allclose(whole, images, atol=1e-6)


def test_a_shift_of_brightness_is_in_the_coarsest_band_alone() -> None:
    a = torch.randn(3, 1, 16, 16)
    shifts = torch.tensor([0.0, 0.5, -2.0])
    found = PyramidDistance()(a + shifts[:, None, None, None], a)
    assert torch.allclose(found, shifts.abs(), atol=1e-6)


def test_a_fine_pattern_is_in_the_finest_band_alone() -> None:
    checks = torch.ones(16, 16)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    found = PyramidDistance()(torch.zeros(1, 1, 16, 16), 0.3 * checks[None, None])
    assert found.item() == pytest.approx(0.3)


def test_errors_of_known_differences() -> None:
    a, b = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5)
    mse = mean_squared_error(a, b)
    assert mse.tolist() == [0.25, 0.25]
    # the peak of [-1, 1] is 2, or 255 in 8 bits
    expected = 20 * torch.log10(torch.tensor(255.0)) - 10 * torch.log10(mse * 127.5**2)
    assert torch.allclose(psnr(mse), expected)
