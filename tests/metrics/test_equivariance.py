"""The metrics of equivariance: of signals whose motion is known, and of generators that have it or lack it."""

import math

import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.metrics.equivariance import (
    Equivariance,
    decibels,
    drawn,
    errors,
    filter_of,
    motions,
    shifted,
    turned,
)
from gan_lab.metrics.features import NoFeatures
from gan_lab.metrics.sources import GanImages
from gan_lab.models.stylegan2 import Generator as StyleGAN2
from gan_lab.sampling.gan import Gan
from tests.helpers.features import compute_of_generator
from tests.helpers.generators import settled_stylegan3

SIDE = 64
KINDS = ("translation", "fractional", "rotation")


class Waves:
    """Sums of waves up to a frequency, cycles a pixel, which can be sampled anywhere."""

    def __init__(self, *, highest, count=3):
        generator = torch.Generator().manual_seed(0)
        radius = highest * torch.rand(count, 2, 40, generator=generator, dtype=torch.float64).sqrt()
        angle = 2 * math.pi * torch.rand(count, 2, 40, generator=generator, dtype=torch.float64)
        self.frequencies = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        self.phases = torch.rand(count, 2, 40, 1, 1, generator=generator, dtype=torch.float64)

    def at(self, transforms):
        """[N, 2, SIDE, SIDE] where transforms [N, 3, 3], in image sides from the middle, look."""
        line = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE - 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)], dim=-1)  # [S, S, 3]
        places = torch.einsum("nij,yxj->nyxi", transforms, points)[..., :2] * SIDE
        waves = torch.einsum("nckj,nyxj->nckyx", self.frequencies, places) + self.phases
        return (2 * math.pi * waves).sin().mean(2).float()


def agreement(kind, *, highest, backwards=False):
    waves = Waves(highest=highest)
    found = []
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        shifts, angle = drawn(kind, 3, SIDE, generator)
        moved = waves.at(motions(shifts / SIDE, angle))
        if backwards:
            shifts, angle = -shifts, None if angle is None else -angle
        found.append(errors(waves.at(motions(0 * shifts, None)), moved, shifts, angle))
    return decibels(torch.cat(found))


@pytest.mark.parametrize(
    ("kind", "least"), [("translation", 100), ("fractional", 45), ("rotation", 45)]
)
def test_signals_of_low_bandwidth_move_exactly(kind, least):
    assert agreement(kind, highest=0.15) > least
    assert agreement(kind, highest=0.15, backwards=True) < 25


def test_a_rotation_compares_only_what_both_grids_hold():
    """Frequencies in the corners of a grid's square leave the square when they turn."""
    assert agreement("rotation", highest=0.48) > 30


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_moves_pixels(quarters):
    images = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(images, 7, stride=1, padding=3)
    found, known = turned(smooth, quarters * math.pi / 2)
    # x to y: rot90 with the other sign, since rows count downwards
    expected = smooth.rot90(quarters, (2, 3))
    inside = known.expand_as(found)
    assert inside.float().mean() > 0.5
    assert (found - expected)[inside].abs().max() < 0.02 * smooth.std() + 2e-3


def test_whole_shifts_are_exact_and_what_they_bring_in_is_not_known():
    images = torch.rand(1, 2, 16, 16)
    found, known = shifted(images, 3, -2)
    assert torch.equal(found[..., 2:, :13], images[..., :14, 3:])
    assert known[0, 0, 2:, :13].all() and known.sum() == 14 * 13
    found, known = shifted(images, 0.5, 0)
    assert known.sum() == 16 * (16 - 5)


def test_filters_keep_constants_and_do_not_lean():
    for angle in (0.0, 0.3, -2.0):
        kernels = filter_of(angle, 4)
        assert kernels.shape == (16, 12, 12)
        torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(16, dtype=torch.float64))
        centered = filter_of(angle, 1)[0][:11, :11]
        torch.testing.assert_close(centered, centered.flip(0, 1))


def test_decibels_are_of_a_range_of_two():
    plain = torch.zeros(1, 1, 32, 32)
    found = errors(plain, plain + 0.02, torch.zeros(1, 2), None)
    assert decibels(found) == pytest.approx(40, abs=1e-4)
    assert decibels(errors(plain, plain, torch.zeros(1, 2), None)) == math.inf


# Generators -----------------------------------------------------------------------------------------------------------


def measured(generator, metric, num):
    images = GanImages(Gan(generator), seed=0)
    found = compute_of_generator(images, metric, num=num, extractor=NoFeatures())
    return {value.key: value.value for value in found}


def test_r_follows_shifts_and_turns_and_t_shifts_alone():
    r = measured(settled_stylegan3(SIDE, kernel=1, radial=True), Equivariance(), num=6)
    t = measured(settled_stylegan3(SIDE), Equivariance(), num=6)
    assert set(r) == {"eqt6_int", "eqt6_frac", "eqr6"}
    assert min(r.values()) > 40
    assert min(t["eqt6_int"], t["eqt6_frac"]) > 40 and t["eqr6"] < 30


@torch.no_grad()
def test_stylegan2_follows_neither():
    torch.manual_seed(0)
    network = StyleGAN2(
        image_size=SIDE, channels=1, z_dim=32, w_dim=32, channel_base=2048, channel_max=32
    ).eval()
    w = network.mapping(torch.randn(4, 32))
    plain = network.synthesis(w, noise="none")
    constant = network.synthesis.b4.const.clone()
    generator = torch.Generator().manual_seed(0)
    for kind in KINDS:
        shifts, angle = drawn(kind, 1, SIDE, generator)
        grid = torch.nn.functional.affine_grid(
            motions(2 * shifts / SIDE, angle)[:, :2].float(),
            [1, *constant.shape],
            align_corners=False,
        )
        turned_constant = torch.nn.functional.grid_sample(
            constant[None], grid, mode="bicubic", padding_mode="border", align_corners=False
        )
        network.synthesis.b4.const.data.copy_(turned_constant[0])
        moved = network.synthesis(w, noise="none")
        network.synthesis.b4.const.data.copy_(constant)
        # in units of the images' own spread, which is not yet that of trained ones
        scale = 1 / plain.std()
        found = errors(plain * scale, moved * scale, shifts.expand(4, 2), angle)
        assert decibels(found) < 15, kind


def test_others_have_no_input_to_move():
    network = StyleGAN2(image_size=16, channels=1, z_dim=8, w_dim=8, channel_base=64, channel_max=8)
    with pytest.raises(InputError, match="stylegan2 has no input that could be moved"):
        measured(network.eval(), Equivariance(), num=4)
    with pytest.raises(InputError, match=r"kinds=\['turn'\]: any of translation"):
        Equivariance(kinds=["turn"])
