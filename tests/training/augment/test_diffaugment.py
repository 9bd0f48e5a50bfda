from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gan_lab.data.sample import Representation
from gan_lab.errors import InputError
from gan_lab.training.augment.diffaugment import DiffAugment, shift, spread
from tests.helpers.samples import images_of


def seeded(augmentation: DiffAugment, images: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    return augmentation(images)


def test_spread_scales_differences_from_the_mean():
    images = torch.randn(2, 3, 4, 5)
    factor = torch.tensor([0.0, 1.5])
    saturated = spread(images, factor, dims=(1,))
    assert torch.allclose(saturated[0], images[0].mean(0, keepdim=True).expand(3, -1, -1))
    assert torch.allclose(saturated.mean(1), images.mean(1), atol=1e-6)
    contrasted = spread(images, factor, dims=(1, 2, 3))
    assert torch.allclose(contrasted[1], images[1].mean() + 1.5 * (images[1] - images[1].mean()))


@pytest.mark.parametrize("dim", [2, 3])
def test_shift_brings_in_zeros(dim):
    images = torch.randn(3, 2, 6, 8)
    result = shift(images, torch.tensor([2, 0, -1]), dim=dim)
    assert torch.equal(result[1], images[1])
    assert torch.equal(
        result[0].narrow(dim - 1, 0, 2), torch.zeros_like(result[0]).narrow(dim - 1, 0, 2)
    )
    length = images.shape[dim]
    assert torch.equal(
        result[0].narrow(dim - 1, 2, length - 2), images[0].narrow(dim - 1, 0, length - 2)
    )
    assert torch.equal(
        result[2].narrow(dim - 1, 0, length - 1), images[2].narrow(dim - 1, 1, length - 1)
    )


def test_translation_reaches_an_eighth_of_the_size():
    images = torch.ones(3000, 1, 16, 16)
    result = seeded(DiffAugment(policy=["translation"]), images)
    for lines in (result.amax(3), result.amax(2)):
        lost = 16 - lines.sum(2)[:, 0]
        counts = lost.long().bincount(minlength=3)
        assert len(counts) == 3  # up to 2 pixels
        assert ((counts / 3000 - torch.tensor([0.2, 0.4, 0.4])).abs() < 0.04).all()


def test_cutout_blanks_a_square_of_half_the_size():
    images = torch.ones(3000, 3, 16, 16)
    blank = seeded(DiffAugment(policy=["cutout"]), images) == 0
    assert blank.flatten(1).sum(1).max() == 3 * 8 * 8
    assert blank.float().mean().item() == pytest.approx((7 / 16) ** 2, rel=0.03)


def test_color_ranges_are_the_papers():
    flat = torch.zeros(4000, 3, 2, 2)
    shade = seeded(DiffAugment(policy=["color"]), flat)  # contrast and saturation leave it alone
    assert torch.allclose(shade, shade[:, :1, :1, :1].expand_as(shade))
    level = shade[:, 0, 0, 0]
    assert -0.5 <= level.min() < -0.49 and 0.49 < level.max() <= 0.5
    gray = torch.tensor([1.0, -1.0]).expand(4000, 3, 2, 2)
    contrast = seeded(DiffAugment(policy=["color"]), gray)[:, 0, 0].diff(dim=1) / -2
    assert 0.5 <= contrast.min() < 0.51 and 1.49 < contrast.max() <= 1.5
    colored = torch.tensor([1.0, 0, -1]).view(1, 3, 1, 1).expand(4000, 3, 2, 2)
    both = seeded(DiffAugment(policy=["color"]), colored)[:, :, 0, 0]
    chroma = (both[:, 0] - both[:, 2]) / 2  # saturation times contrast
    assert 0 <= chroma.min() < 0.01 and 2.7 < chroma.max() <= 3
    assert chroma.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (9, 21)])
def test_channels_and_sizes(channels, size):
    images = torch.rand(5, channels, *size)
    result = seeded(DiffAugment(), images)
    assert result.shape == images.shape
    opaque = seeded(DiffAugment(policy=["color"]), images)
    assert torch.equal(opaque[:, 3:], images[:, 3:])


def test_p_is_the_share_of_images():
    images = torch.ones(3000, 1, 8, 8)
    changed = (seeded(DiffAugment(policy=["cutout"], p=0.25), images) == 0).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(DiffAugment(p=0.0)(images), images)


@pytest.mark.parametrize("policy", [["color"], ["translation"], ["cutout"], ["color", "cutout"]])
def test_derivatives(policy):
    augmentation = DiffAugment(policy=policy)
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: seeded(augmentation, x), images, fast_mode=True)
    squared = lambda x: seeded(augmentation, x).square()  # noqa: E731
    assert gradgradcheck(squared, images, fast_mode=True)


def test_mixed_precision():
    images = torch.randn(3, 3, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(seeded(DiffAugment(), images), seeded(DiffAugment(), images))
        assert seeded(DiffAugment(), images.bfloat16()).dtype == torch.bfloat16
    assert seeded(DiffAugment(), images).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": ["colour"]}, "give one or more of color, translation, cutout, flip"),
        ({"policy": []}, "give one or more"),
        ({"p": -0.1}, "p=-0.1 must be from 0 to 1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        DiffAugment(**arguments)


def test_every_second_image_is_mirrored():
    images = torch.arange(8.0).view(1, 1, 2, 4).repeat(400, 1, 1, 1)
    result = seeded(DiffAugment(policy=["flip"]), images)
    mirrored = torch.tensor([torch.equal(image, images[0].flip(2)) for image in result])
    same = torch.tensor([torch.equal(image, images[0]) for image in result])
    assert (mirrored ^ same).all() and 150 < int(mirrored.sum()) < 250


def test_latents_have_no_opacity():
    augmentation = DiffAugment(policy=["color"])
    images = torch.ones(4, 4, 2, 2)
    assert torch.equal(seeded(augmentation, images)[:, 3], images[:, 3])
    halved = Representation()
    halved.shape = lambda stored: (4, 2, 2)
    augmentation.check(replace(images_of(4, channels=3), representation=halved))
    result = seeded(augmentation, images)
    assert torch.equal(result[:, 3], result[:, 0]) and not torch.equal(result, images)
