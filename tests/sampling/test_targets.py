"""Images to project: conversions and errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lab.data.images import to_float
from gan_lab.errors import InputError
from gan_lab.sampling.targets import Given, read_targets

GRAY = {"size": (8, 8), "channels": 1}
COLOR = {"size": (8, 8), "channels": 3}


def gradient(width: int, height: int, mode: str = "L") -> Image.Image:
    pixels = np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1))
    return Image.fromarray(pixels).convert(mode)


def test_the_right_size_is_taken_as_it_is(tmp_path: Path) -> None:
    image = gradient(8, 8)
    image.save(tmp_path / "a.png")
    found = read_targets(tmp_path / "a.png", **GRAY)
    assert torch.equal(found.images[0], to_float(torch.from_numpy(np.array(image))[None]))
    assert found.names == [str(tmp_path / "a.png")] and found.notes == []


def test_conversions_are_reported(tmp_path: Path) -> None:
    gradient(40, 16).save(tmp_path / "a.png")
    gradient(4, 4, "RGB").save(tmp_path / "b.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "c.png")
    found = read_targets(tmp_path, **GRAY)
    assert [Path(name).name for name in found.names] == ["a.png", "b.png", "c.png"]
    notes = [note.removeprefix(str(tmp_path) + "/") for note in found.notes]
    assert notes == [
        "a.png: 40x16 pixels, cropped to the 16x16 in the middle",
        "b.png: 4x4 pixels, enlarged to 8x8",
        "b.png: color became gray, as the model makes",
        "c.png: transparent parts became white",
        "c.png: color with transparency became gray, as the model makes",
    ]
    middle = (gradient(40, 16).getpixel((12, 0)) + gradient(40, 16).getpixel((27, 0))) / 2
    assert found.images[0].mean().item() == pytest.approx(middle / 127.5 - 1, abs=0.02)
    assert found.images[2].min() == 1, "white"


def test_gray_becomes_color_and_turned_photos_stand_upright(tmp_path: Path) -> None:
    image = gradient(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    (image,) = (read_targets(tmp_path / "a.jpg", size=(8, 16), channels=3).images,)
    assert image.shape == (1, 3, 8, 16)
    assert (image[0, :, -1] > image[0, :, 0]).all(), "what was right is below"


def test_images_and_tensors_in_memory() -> None:
    tensor = torch.rand(2, 3, 8, 8)
    image = gradient(16, 8, "RGB")
    found = read_targets([tensor, image, tensor[0]], **COLOR)
    assert found.names == [f"image {i}" for i in range(4)] and len(found) == 4
    assert torch.equal(found.images[:2], tensor) and torch.equal(found.images[3], tensor[0])
    assert image.size == (16, 8), "the given one is untouched"


def animation(path: Path) -> Path:
    frames = [Image.new("L", (8, 8), i) for i in (0, 100, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def test_animated_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.gif has 3 frames; save the one"):
        read_targets(animation(tmp_path / "a.gif"), **GRAY)
    with pytest.raises(InputError, match="image 0 has 3 frames"):
        read_targets(Image.open(tmp_path / "a.gif"), **GRAY)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b\.png cannot be read \(not an image"):
        read_targets(tmp_path / "b.png", **GRAY)
    gradient(64, 64).save(tmp_path / "c.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:80])
    with pytest.raises(InputError, match=r"c\.png cannot be read"):
        read_targets(tmp_path / "c.png", **GRAY)
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(tmp_path / "d.tif")
    with pytest.raises(InputError, match=r"d\.tif cannot be read \(.*range is unknown"):
        read_targets(tmp_path / "d.tif", **GRAY)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.png", r"none\.png does not exist"),
        ([], "no images to project"),
        (torch.zeros(1, 8, 8), r"the model makes \[N, 3, 8, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "give floats in"),
        (torch.full((3, 8, 8), 255.0), "must be finite and lie in"),
        (torch.full((3, 8, 8), float("nan")), "must be finite"),
        (Image.fromarray(np.zeros((8, 8), dtype=np.float32)), "image 0 cannot be read"),
    ],
)
def test_bad_input(given: Given, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_targets(given, **COLOR)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match="holds no images"):
        read_targets(tmp_path, **GRAY)
