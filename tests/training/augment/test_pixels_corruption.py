import math

import pytest
import torch

from gan_lab.training.augment import Draws
from gan_lab.training.augment.pixels import add_noise, cut_out, rectangle


def draws(images: torch.Tensor, operation: str, p: float = 1.0) -> Draws:
    return Draws(images, torch.tensor(p), {operation: 1.0})


def test_noise_is_white_with_a_half_normal_deviation():
    torch.manual_seed(0)
    images = torch.zeros(2000, 3, 8, 8)
    noise = add_noise(images, draws(images, "noise"))
    deviation = noise.flatten(1).std(1)
    assert deviation.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.05)
    assert deviation.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)
    unit = noise / deviation.view(-1, 1, 1, 1)
    assert abs((unit[:, 0] * unit[:, 1]).mean()) < 0.02  # every channel has its own


def test_cutout_blanks_a_quarter_where_it_fits():
    images = torch.ones(1, 3, 16, 24)
    middle = torch.tensor([0.5])
    cut = rectangle(images, middle, middle, middle)
    assert cut.sum() == 16 * 24 / 4
    assert cut[0, 0, 4:12, 6:18].all()


def test_cutout_blanks_what_is_inside_the_image():
    images = torch.ones(1, 3, 16, 16)
    corner = rectangle(images, torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.5]))
    assert corner.sum() == 4 * 4
    assert corner[0, 0, 12:, :4].all()


def test_mean_area_of_cutout():
    torch.manual_seed(0)
    images = torch.ones(5000, 1, 16, 16)
    cut = cut_out(images, draws(images, "cutout")) == 0
    # a side is 1/2 where it fits, on average 3/8 where it does not: half the time each
    assert cut.float().mean().item() == pytest.approx((7 / 16) ** 2, rel=0.03)


def test_cutout_happens_with_its_probability():
    torch.manual_seed(0)
    images = torch.ones(4000, 1, 4, 4)
    happened = (cut_out(images, draws(images, "cutout", 0.3)) == 0).flatten(1).any(1)
    assert happened.float().mean().item() == pytest.approx(0.3, abs=0.03)
