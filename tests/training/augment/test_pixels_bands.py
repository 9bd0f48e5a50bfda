import math

import numpy as np
import pytest
import torch

from gan_lab.training.augment import Draws
from gan_lab.training.augment.pixels import POWER, SYM2, amplify, draw_gains, octave_bands


def gains(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize("size", [(80, 48), (8, 8), (2, 3)])
def test_equal_gains_only_scale(size):
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    assert torch.allclose(amplify(images, gains(1, 1, 1, 1)), images)
    assert torch.allclose(amplify(images, gains(2, 2, 2, 2)), images * 4)  # both ways


@pytest.mark.parametrize("size", [(48, 40), (9, 12), (70, 90)])
def test_equals_padding_and_convolving(size):
    images = torch.randn(2, 1, *size, dtype=torch.float64)
    chosen = torch.tensor([[0.5, 2, 1.5, 0.3], [1, 1, 3, 1]], dtype=torch.float64)
    bands = octave_bands(SYM2, 4)
    reach = bands.shape[1] // 2
    result = amplify(images, chosen)
    for image, gain, ours in zip(images, chosen, result, strict=True):
        taps = gain.numpy() @ bands
        lines = np.pad(image[0].numpy(), reach, mode="reflect")
        lines = np.apply_along_axis(np.convolve, 0, lines, taps, mode="valid")
        lines = np.apply_along_axis(np.convolve, 1, lines, taps, mode="valid")
        np.testing.assert_allclose(ours[0].numpy(), lines, atol=1e-12)


def test_a_wave_is_amplified_by_the_gain_of_its_frequency():
    frequency = math.pi * 3 / 4  # the highest band's
    wave = torch.cos(frequency * torch.arange(5, dtype=torch.float64)).expand(1, 1, 5, 5)
    bands = octave_bands(SYM2, 4)
    offsets = np.arange(bands.shape[1]) - bands.shape[1] // 2
    chosen = gains(1, 0.7, 1.3, 3)
    gain = chosen[0].numpy() @ bands @ np.cos(frequency * offsets)
    result = amplify(wave, chosen)  # along columns it is constant: the lowest band alone
    assert torch.allclose(result, wave * gain)


def draw(count: int, p: float) -> torch.Tensor:
    torch.manual_seed(0)
    images = torch.empty(count, 1, 2, 2, dtype=torch.float64)
    return draw_gains(Draws(images, torch.tensor(p), {"imgfilter": 1.0}))


def test_every_single_draw_keeps_the_power_of_a_typical_image():
    chosen = draw(4000, 0.05)
    ordered = chosen.sort(1).values
    same = (
        (ordered[:, 0] / ordered[:, 2] - 1).abs().minimum((ordered[:, 1] / ordered[:, 3] - 1).abs())
    )
    single = chosen[(same < 1e-9) & (chosen != 1).any(1)]  # three bands alike
    assert len(single) > 300
    power = single.square() @ torch.tensor(POWER, dtype=torch.float64)
    assert torch.allclose(power, torch.ones_like(power))
    assert (chosen == 1).all(1).sum() > 3000


def test_magnitude_is_the_papers():
    chosen = draw(20000, 1.0).log2()
    # between two bands the normalization drops out: a difference of two independent normal variables
    assert (chosen[:, 1] - chosen[:, 2]).std().item() == pytest.approx(math.sqrt(2), rel=0.03)
