"""The one quantization."""

import io
import pickle
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import default_collate

from gan_lab.data.images import Images, save_png, to_float, to_uint8
from gan_lab.data.media import grid
from gan_lab.data.sample import to_pil
from gan_lab.errors import InputError


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
def test_another_convention_is_rejected(images: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_uint8(images)


def test_to_float_takes_uint8_only() -> None:
    with pytest.raises(InputError, match="takes uint8"):
        to_float(torch.zeros(2))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_images(channels: int, mode: str, tmp_path: Path) -> None:
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


def shown(count: int = 6, channels: int = 3) -> Images:
    return Images(torch.rand(count, channels, 8, 9) * 2 - 1)


def test_images_are_a_tensor() -> None:
    images = shown()
    values = images * 1
    assert type(values) is torch.Tensor and torch.equal(values, images)
    assert type(images.mean()) is torch.Tensor and type(images.numpy()) is np.ndarray
    assert type(images.max(dim=0).values) is torch.Tensor
    assert f"{images[0, 0, 0, 0]:.2f}" == f"{float(values[0, 0, 0, 0]):.2f}"
    assert repr(images) == repr(values)
    images[0] = 0
    images.mul_(2)
    assert isinstance(images, Images) and images[0].abs().sum() == 0
    images.requires_grad_()
    (images.square().sum()).backward()
    assert torch.equal(images.grad, 2 * images.detach() * 1)  # type: ignore[arg-type]
    collated = default_collate([images[0].detach(), images[1].detach()])
    assert torch.equal(collated, images.detach()[:2])


def test_what_is_picked_from_them_are_images() -> None:
    images = shown()
    for some in (images[:2], images[1], torch.cat([images, images]), images.clone(), images.cpu()):
        assert isinstance(some, Images)


def test_they_are_saved_as_a_tensor() -> None:
    images = shown()
    for restored in (pickle.loads(pickle.dumps(images)), saved(images)):
        assert type(restored) is torch.Tensor and torch.equal(restored, images)
    copied = deepcopy(images)
    assert isinstance(copied, Images) and torch.equal(copied, images)
    assert copied.data_ptr() != images.data_ptr()


def saved(images: torch.Tensor) -> torch.Tensor:
    buffer = io.BytesIO()
    torch.save({"images": images}, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)["images"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_they_show_themselves(channels: int, mode: str) -> None:
    images = shown(channels=channels)
    pil_images = images.pil()
    assert len(pil_images) == 6 and images[2].pil().tobytes() == pil_images[2].tobytes()
    assert pil_images[0].size == (9, 8) and pil_images[0].mode == mode
    sheet = images.grid(columns=4, scale=2)
    assert sheet.size == (4 * 20 + 2, 2 * 18 + 2) and sheet.mode == mode
    assert images.grid().size == (3 * 11 + 2, 2 * 10 + 2)
    with Image.open(io.BytesIO(images._repr_png_() or b"")) as opened:
        assert opened.size == (3 * (9 * 7 + 2) + 2, 2 * (8 * 7 + 2) + 2), (
            "small images are enlarged"
        )
    many = Images(torch.zeros(300, 1, 200, 200))
    with Image.open(io.BytesIO(many._repr_png_() or b"")) as opened:
        assert max(opened.size) <= 1600


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(3),
        torch.zeros(4, 4),
        torch.zeros(2, 2, 4, 4),
        torch.zeros(0, 3, 4, 4),
        torch.full((1, 1, 4, 4), float("nan")),
    ],
)
def test_what_is_not_an_image_is_shown_as_numbers(values: torch.Tensor) -> None:
    images = Images(values)
    assert images._repr_png_() is None
    with pytest.raises(InputError):
        images.pil()
    with pytest.raises(InputError):
        images.grid()


def test_grids_unknown() -> None:
    for arguments in ({"columns": 0}, {"scale": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            shown().grid(**arguments)
