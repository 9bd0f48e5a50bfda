import math

import numpy as np
import pytest
import torch

from gan_lab.training.augment import Draws
from gan_lab.training.augment.geometry import (
    blit,
    double,
    draw_warp,
    halve,
    inverse_blit,
    rotation,
    scaling,
    translation,
    warp,
)
from gan_lab.training.augment.pixels import SYM6, reflect


def whole(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_indices_outside_reflect_as_numpy_pads():
    padded = np.pad(np.arange(5), 11, mode="reflect")
    assert reflect(torch.arange(-11, 16), 5).tolist() == padded.tolist()


def test_blitting_flips():
    images = torch.randn(2, 3, 4, 6)
    result = blit(images, whole(1, 0), whole(0, 0), torch.zeros(2, 2).long())
    assert torch.equal(result[0], images[0].flip(2))
    assert torch.equal(result[1], images[1])


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_blitting_turns_squares(turns):
    images = torch.randn(1, 3, 5, 5)
    result = blit(images, whole(0), whole(turns), torch.zeros(1, 2).long())
    assert torch.equal(result, torch.rot90(images, turns, (2, 3)))


def test_blitting_turns_what_a_rectangle_shows():
    images = torch.randn(1, 1, 4, 8)
    result = blit(images, whole(0), whole(1), torch.zeros(1, 2).long())
    middle = torch.rot90(images[..., 2:6], 1, (2, 3))
    assert torch.equal(result[..., 2:6], middle)
    assert set(result.flatten().tolist()) <= set(images.flatten().tolist())


@pytest.mark.parametrize(("x", "y"), [(2, 0), (0, -1), (-3, 2)])
def test_blitting_shifts_and_reflects(x, y):
    images = torch.randn(1, 2, 6, 8)
    result = blit(images, whole(0), whole(0), torch.tensor([[x, y]]))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    assert torch.equal(result, padded[..., 4 - y : 10 - y, 4 - x : 12 - x])


def test_order_is_flip_turn_shift():
    images = torch.randn(1, 1, 6, 6)
    zero, none = whole(0), torch.zeros(1, 2).long()
    shift = torch.tensor([[1, -2]])
    steps = blit(blit(blit(images, whole(1), zero, none), zero, whole(3), none), zero, zero, shift)
    inside = (..., slice(0, 4), slice(1, 6))  # reflections differ
    together = blit(images, whole(1), whole(3), shift)
    assert torch.equal(together[inside], steps[inside])


def wave(matrix: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A wave that is its own reflection, seen through an inverse matrix [N, 3, 3]: [N, 1, height, width]."""
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    y, x = torch.meshgrid(y, x, indexing="ij")
    place = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    x, y, _ = (matrix @ place).unbind(1)
    x = 3 * math.pi * (x / (width - 1) + 0.5)
    y = 2 * math.pi * (y / (height - 1) + 0.5)
    return (x.cos() * y.cos()).view(-1, 1, height, width)


def some(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("inverse", "tolerance"),
    [
        (rotation(some(0.0)), 1e-12),
        (translation(some(3.0), some(-2.0)), 1e-12),
        (translation(some(0.4), some(-60.3)), 0.012),
        (rotation(some(0.5)), 0.012),
        (rotation(some(math.pi)), 0.012),
        (scaling(some(1.4), some(1.4)), 0.02),
        (scaling(some(0.7), some(1 / 0.7)), 0.02),
        (rotation(some(1)) @ scaling(some(1.2), some(0.9)) @ translation(some(9), some(4)), 0.012),
    ],
)
def test_warping_a_smooth_image_is_what_analysis_says(inverse, tolerance):
    identity = torch.eye(3, dtype=torch.float64)[None]
    result = warp(wave(identity, 30, 36), inverse)
    assert (result - wave(inverse, 30, 36)).abs().max() < tolerance


def test_warping_by_a_blit_is_that_blit():
    images = wave(torch.eye(3, dtype=torch.float64)[None], 32, 32)
    blits = whole(1), whole(3), torch.tensor([[2, -3]])
    warped = warp(images, inverse_blit(*blits, torch.float64))
    assert (warped - blit(images, *blits)).abs().max() < 0.012


@pytest.mark.parametrize("length", [2, 5, 40, 64, 65, 100])  # short lines and long ones
def test_resampling_is_orthogonal(length):
    lines = torch.randn(2, 3, 7, length, dtype=torch.float64)
    fine = double(lines)
    assert fine.shape == (2, 3, 7, 4 * (length - 1) + 1)
    assert torch.allclose(fine[..., 0], fine[..., -1])  # one period
    period = fine[..., :-1]
    around = period.repeat(1, 1, 1, 5)[..., : 2 * (length - 1) + 12]
    assert torch.allclose(halve(around, length), lines)


@pytest.mark.parametrize("length", [21, 70])
def test_doubling_is_zeros_between_reflected_pixels_and_the_filter(length):
    line = np.random.default_rng(0).normal(size=length)
    padded = np.pad(line, (50, 250), mode="reflect")
    stuffed = np.zeros(2 * len(padded))
    stuffed[::2] = padded
    expected = np.convolve(stuffed, SYM6)[100 : 101 + 4 * (length - 1)]
    result = double(torch.from_numpy(line).view(1, 1, 1, -1))
    np.testing.assert_allclose(result.flatten().numpy(), expected)


def test_shrinking_removes_what_would_alias():
    stripes = torch.ones(1, 1, 32, 32, dtype=torch.float64)
    stripes[..., 1::2] = -1
    half = scaling(some(2), some(2))
    assert warp(stripes, half).abs().max() < 0.2
    assert stripes[..., ::2, ::2].abs().min() == 1  # as taking every other pixel would do


def drawn(operation: str, count: int = 20000) -> torch.Tensor:
    torch.manual_seed(0)
    images = torch.empty(count, 1, 16, 32, dtype=torch.float64)
    return draw_warp(Draws(images, torch.tensor(1.0), {operation: 1.0}), images.shape[2:])


def test_magnitudes_are_the_papers():
    close = {"rel": 0.03}
    scale = drawn("scale")
    assert torch.equal(scale[:, 0, 0], scale[:, 1, 1])
    assert scale[:, 0, 0].log2().std().item() == pytest.approx(0.2, **close)
    aniso = drawn("aniso")
    assert torch.allclose(aniso[:, 0, 0] * aniso[:, 1, 1], some(1.0))
    assert aniso[:, 0, 0].log2().std().item() == pytest.approx(0.2, **close)
    shift = drawn("xfrac")
    assert shift[:, 0, 2].std().item() == pytest.approx(0.125 * 32, **close)
    assert shift[:, 1, 2].std().item() == pytest.approx(0.125 * 16, **close)
    turn = drawn("rotate")
    angle = torch.atan2(turn[:, 0, 1], turn[:, 0, 0])
    assert angle.std().item() == pytest.approx(math.pi / math.sqrt(3), **close)  # uniform
