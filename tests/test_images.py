"""The one quantisation."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gan_lab.errors import InputError
from gan_lab.images import grid, save_png, to_float, to_pil, to_uint8


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_float(levels).min() == -1 and to_float(levels).max() == 1


@given(st.floats(-1, 1))
def test_nearest_level(value: float) -> None:
    assert abs(int(to_uint8(torch.tensor([value]))) - (value + 1) * 127.5) <= 0.5001


def test_values_that_torchmetrics_wraps() -> None:
    # normalize=True makes [1, 129, 0] of these
    assert to_uint8(torch.tensor([-1.0, -0.5, 0.0, 1.3, -2.0])).tolist() == [0, 64, 128, 255, 0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, dtype=torch.uint8), "takes floats"),
        (torch.tensor([0.0, float("nan")]), "NaN"),
        (torch.tensor([0.0, float("inf")]), "infinity"),
        (torch.tensor([0.0, 255.0]), r"expected \[-1, 1\]"),
    ],
)
def test_another_convention_is_refused(images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_uint8(images)


def test_to_float_takes_uint8_only() -> None:
    with pytest.raises(InputError, match="takes uint8"):
        to_float(torch.zeros(2))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures(channels: int, mode: str, tmp_path: Path) -> None:
    images = torch.randint(256, (6, channels, 4, 5), dtype=torch.uint8)
    assert to_pil(images[0]).mode == mode
    tiled = grid(images, columns=3)
    assert tiled.shape == (channels, 2 * 6 + 2, 3 * 7 + 2)
    assert torch.equal(tiled[:, 8:12, 2:7], images[3])
    save_png(tiled, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as opened:
        assert opened.mode == mode and opened.size == (23, 14)


def test_a_generator_may_go_far_to_both_sides() -> None:
    assert to_uint8(torch.tensor([-29.5, 0.0, 13.1])).tolist() == [0, 128, 255]
