"""The schedule of progressive growing at its boundaries, and real images at a stage."""

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.resolutions import (
    Growth,
    GrowthStage,
    avg_pool,
    first_level,
    resize_to_stage,
    resized,
    upsample_nearest,
)


@pytest.mark.parametrize(
    ("kimg", "stage"),
    [
        *((0, 0), (0.799, 0), (0.8, 0), (1.2, 0.5), (1.6, 1), (2.4, 1), (2.8, 1.5), (3.2, 2)),
        *((4.8, 3), (4.799, 2 + 799 / 800), (4.801, 3), (1000, 3)),
    ],
)
def test_a_level_is_stable_and_then_the_next_one_fades_in(kimg: float, stage: float) -> None:
    growth = Growth(first=0, last=3, fade_kimg=0.8, stable_kimg=0.8)
    assert growth.stage(kimg) == pytest.approx(stage, abs=1e-12)
    assert growth.end_kimg == pytest.approx(4.8)


def test_phases_of_other_lengths() -> None:
    growth = Growth(first=1, last=3, fade_kimg=2, stable_kimg=1)
    stages = [growth.stage(k) for k in (0, 1, 1.5, 2, 3, 4, 5, 6, 7)]
    assert stages == [1, 1, 1.25, 1.5, 2, 2, 2.5, 3, 3]
    at_once = Growth(first=0, last=2, fade_kimg=0, stable_kimg=1)
    assert [at_once.stage(k) for k in (0, 0.999, 1, 1.999, 2, 3)] == [0, 0, 1, 1, 2, 2]
    never_stable = Growth(first=0, last=2, fade_kimg=1, stable_kimg=0)
    assert [never_stable.stage(k) for k in (0, 0.25, 1, 1.5, 2)] == [0, 0.25, 1, 1.5, 2]
    whole = Growth(first=2, last=2, fade_kimg=1, stable_kimg=1)
    assert [whole.stage(k) for k in (0, 1, 1.5, 9)] == [2] * 4
    assert whole.end_kimg == 0


def test_published_schedules_end_at_the_published_kimg() -> None:
    """800 kimg a phase from 4x4, 600 from 8x8, both up to 1024x1024."""
    progan = Growth(first=0, last=8, fade_kimg=800, stable_kimg=800)
    stylegan = Growth(first=1, last=8, fade_kimg=600, stable_kimg=600)
    for growth, end in ((progan, 12800), (stylegan, 8400)):
        assert growth.end_kimg == end
        assert growth.stage(end - 1) < 8 == growth.stage(end)


@pytest.mark.parametrize(("fade", "stable"), [(-1, 2), (2, -1), (0, 0)])
def test_invalid_lengths(fade: float, stable: float) -> None:
    with pytest.raises(InputError, match="growing=false"):
        Growth(first=0, last=1, fade_kimg=fade, stable_kimg=stable)


def test_the_first_level() -> None:
    assert [first_level((4, 4), 4, size) for size in (1, 4, 8, 9, 64, 65)] == [0, 0, 1, 2, 4, 4]
    assert first_level((5, 10), 3, 8) == 1
    with pytest.raises(InputError, match="start_size=0"):
        first_level((4, 4), 4, 0)


def test_a_stage_is_saved_with_the_weights_and_safe_to_load(tmp_path) -> None:
    network, other = (nn.ModuleDict({"stage": GrowthStage(first=0, last=4)}) for _ in range(2))
    network["stage"].value = 2.3
    torch.save(network.state_dict(), tmp_path / "x.pt")
    other.load_state_dict(torch.load(tmp_path / "x.pt", weights_only=True))
    stage = other["stage"]
    assert (stage.value, stage.level, stage.fade) == (2.3, 3, pytest.approx(0.3))
    smaller = nn.ModuleDict({"stage": GrowthStage(first=0, last=1)})
    smaller.load_state_dict(network.state_dict())
    assert (smaller["stage"].value, smaller["stage"].fade) == (1, 1)


def test_resizing() -> None:
    images = torch.randn(2, 3, 8, 12)
    assert_close(resized(images, (2, 3)), avg_pool2d(images, 4))
    assert_close(avg_pool(upsample_nearest(images, 4), 4), images)
    assert torch.equal(resized(images, (16, 24))[..., ::2, 1::2], images)
    assert resized(images, (8, 12)) is images
    for wrong in ((4, 8), (3, 4), (16, 12)):
        with pytest.raises(ValueError, match="8 x 12"):
            resized(images, wrong)


@pytest.mark.parametrize("shape", [(4, 4), (5, 6)])
def test_real_images_fade_as_the_networks_do(shape: tuple[int, int]) -> None:
    images = torch.randn(2, 3, shape[0] * 8, shape[1] * 8)
    stage = GrowthStage(first=0, last=3)
    for value in (0, 1, 2, 3):
        stage.value = value
        assert torch.equal(resize_to_stage(images, stage, shape), avg_pool(images, 8 >> value))
    stage.value = 1.25
    high, low = avg_pool2d(images, 2), avg_pool2d(images, 4)
    mixed = 0.25 * high + 0.75 * low.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_close(resize_to_stage(images, stage, shape), mixed)
    stage.value = 1 + 1e-12
    assert_close(resize_to_stage(images, stage, shape), upsample_nearest(low), rtol=0, atol=1e-6)
