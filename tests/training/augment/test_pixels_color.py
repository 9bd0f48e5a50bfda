import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from gan_lab.training.augment import Draws
from gan_lab.training.augment.pixels import (
    apply_colors,
    brightness,
    contrast,
    draw_colors,
    hue,
    luma_flip,
    saturation,
)

LUMA = np.ones(3) / math.sqrt(3)


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def color() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(1, 3, 4, 5, dtype=torch.float64) * 2 - 1


def test_brightness_and_contrast():
    assert torch.allclose(apply_colors(color(), brightness(one(0.3))), color() + 0.3)
    assert torch.allclose(apply_colors(color(), contrast(one(1.7))), color() * 1.7)


def test_luma_flip_mirrors_the_mean_and_keeps_the_rest():
    mean = color().mean(1, keepdim=True)
    assert torch.allclose(apply_colors(color(), luma_flip(one(1))), color() - 2 * mean)


def test_saturation_scales_the_distance_from_gray():
    mean = color().mean(1, keepdim=True)
    expected = mean + 2.5 * (color() - mean)
    assert torch.allclose(apply_colors(color(), saturation(one(2.5))), expected)


@pytest.mark.parametrize("angle", [0.7, -2.1, math.pi])
def test_hue_turns_about_the_luma_axis(angle):
    turned = Rotation.from_rotvec(LUMA * angle).apply(color()[0].flatten(1).T.numpy())
    result = apply_colors(color(), hue(one(angle)))
    np.testing.assert_allclose(result[0].flatten(1).T.numpy(), turned, atol=1e-12)


def test_a_third_of_a_turn_permutes_the_channels():
    assert torch.allclose(apply_colors(color(), hue(one(2 * math.pi / 3))), color().roll(1, 1))


@pytest.mark.parametrize("make", [brightness, contrast, luma_flip, saturation, hue])
def test_neutral_values_give_the_identity_to_the_bit(make):
    neutral = 1.0 if make in (contrast, saturation) else 0.0
    assert torch.equal(make(torch.tensor([neutral])), torch.eye(4)[None])


def draws(images: torch.Tensor, *operations: str) -> Draws:
    return Draws(images, torch.tensor(1.0), dict.fromkeys(operations, 1.0))


def test_gray_images_change_as_gray_colors_do():
    torch.manual_seed(0)
    gray = torch.rand(8, 1, 3, 3, dtype=torch.float64)
    matrix = draw_colors(draws(gray, "brightness", "contrast", "lumaflip"), gray=False)
    expected = apply_colors(gray.expand(-1, 3, -1, -1), matrix)
    assert torch.allclose(apply_colors(gray, matrix).expand(-1, 3, -1, -1), expected)


def test_opacity_stays():
    images = torch.rand(1, 4, 3, 3, dtype=torch.float64)
    result = apply_colors(images, brightness(one(0.5)))
    assert torch.equal(result[:, 3], images[:, 3])
    assert torch.allclose(result[:, :3], images[:, :3] + 0.5)


def test_magnitudes_are_the_papers():
    torch.manual_seed(0)
    images = torch.empty(20000, 3, 1, 1, dtype=torch.float64)
    offset = draw_colors(draws(images, "brightness"), gray=False)[:, 0, 3]
    assert offset.std().item() == pytest.approx(0.2, rel=0.03)
    factor = draw_colors(draws(images, "contrast"), gray=False)[:, 0, 0]
    assert factor.log2().std().item() == pytest.approx(0.5, rel=0.03)
    matrix = draw_colors(draws(images, "saturation"), gray=False)
    chroma = matrix[:, 0, 0] - matrix[:, 0, 1]
    assert chroma.log2().std().item() == pytest.approx(1, rel=0.03)
    turn = draw_colors(draws(images, "hue"), gray=False)
    cosine = (turn[:, :3, :3].diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    assert cosine.clamp(-1, 1).acos().mean().item() == pytest.approx(math.pi / 2, rel=0.03)


def test_brightness_comes_before_contrast():
    torch.manual_seed(0)
    images = torch.empty(4, 3, 1, 1, dtype=torch.float64)
    matrix = draw_colors(draws(images, "brightness", "contrast"), gray=False)
    torch.manual_seed(0)
    offset = draw_colors(draws(images, "brightness"), gray=False)[:, 0, 3]
    assert torch.allclose(matrix[:, 0, 3], matrix[:, 0, 0] * offset)
