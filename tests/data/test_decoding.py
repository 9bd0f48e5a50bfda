import builtins
import io
import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

import gan_lab
from gan_lab.data.decoding import (
    DECODE_ERRORS,
    HEAD_BYTES,
    ImageTooLarge,
    NotAnImage,
    image_format,
    open_image,
    regular_file,
)
from gan_lab.data.image_folder import ImageFolder
from gan_lab.data.images import ImageKind
from gan_lab.data.listing import list_folder
from gan_lab.data.source import inspect
from gan_lab.data.transform import ImageTransform
from gan_lab.errors import InputError
from gan_lab.sampling.sampler import read_sources
from gan_lab.sampling.targets import read_targets

# name in FORMATS -> what Pillow calls it
WRITTEN = {
    "PNG": ("PNG", {}),
    "JPEG": ("JPEG", {"quality": 95}),
    "WebP": ("WEBP", {"lossless": True}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "JPEG 2000": ("JPEG2000", {}),
    "AVIF": ("AVIF", {"quality": 95}),
    "HEIC": ("HEIF", {"quality": 95}),
}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"


def encoded(name: str, image: Image.Image) -> bytes:
    if name == "HEIC":
        pytest.importorskip("pillow_heif").register_heif_opener()
    file = io.BytesIO()
    plugin, options = WRITTEN[name]
    image.save(file, plugin, **options)
    return file.getvalue()


def ramp(height: int = 16, width: int = 24) -> Image.Image:
    return Image.fromarray(np.linspace(0, 255, height * width).reshape(height, width).astype("u1"))


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("ending", ["", ".png", ".jfif", ".dat"])
def test_content_decides_and_not_the_ending(tmp_path: Path, name: str, ending: str) -> None:
    data = encoded(name, ramp().convert("RGB"))
    assert image_format(data[:HEAD_BYTES]) == name
    (tmp_path / f"file{ending}").write_bytes(data)
    pixels = ImageFolder(split="train", root=tmp_path, channels=1)[0].real[0]
    assert np.abs(pixels[0].numpy().astype(int) - np.asarray(ramp())).max() <= 12


@pytest.mark.parametrize("name", WRITTEN)
def test_truncation_is_found_in_every_format(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(name, Image.fromarray(noise))
    assert inspect(io.BytesIO(data)) == (64, 64, 3, 8)
    with pytest.raises((OSError, SyntaxError, ValueError)):
        inspect(io.BytesIO(data[: len(data) * 3 // 4]))


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gs` that writes a file when started."""
    mark = tmp_path / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return mark


@pytest.mark.parametrize("head", [EPS, b"\xc5\xd0\xd3\xc6" + bytes(28) + EPS])
def test_postscript_starts_nothing_whatever_it_is_called(
    tmp_path: Path, ghostscript: Path, head: bytes
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "x.png").write_bytes(head)
    with pytest.raises(InputError, match=r"x\.png \(PostScript"):
        ImageFolder(split="train", root=folder)
    with pytest.raises(InputError, match=r"x\.png cannot be read \(PostScript"):
        read_targets(folder, size=(16, 16), channels=3)
    with pytest.raises(InputError, match=r"x\.png is no image that can be read \(PostScript"):
        read_sources(folder, ImageKind())
    if head == EPS:
        with pytest.raises(InputError, match="image 0 is PostScript"):
            read_targets(Image.open(folder / "x.png"), size=(16, 16), channels=3)
    assert not ghostscript.exists()


@pytest.mark.parametrize("plugin", ["PPM", "ICO", "TGA", "PCX", "PDF", "SGI", "MSP"])
def test_other_formats_of_pillow_are_not_decoded(plugin: str) -> None:
    file = io.BytesIO()
    ramp().convert("1" if plugin == "MSP" else "L").save(file, plugin)
    with pytest.raises(NotAnImage):
        open_image(file)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_previews_of_raw_photographs_are_not_taken_for_them(tags: dict[int, object]) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    file = io.BytesIO()
    ramp().save(file, "TIFF", tiffinfo=info)
    with pytest.raises(NotAnImage, match="raw file"):
        open_image(file)


def test_heic_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded("HEIC", ramp())
    imported = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name == "pillow_heif":
            raise ImportError(name)
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotAnImage, match=r"pip install 'gan-laboratory\[heic\]'"):
        open_image(io.BytesIO(data))
    monkeypatch.setattr("gan_lab.data.listing.find_spec", lambda name: None)
    (tmp_path / "a.heic").write_bytes(data)
    assert list_folder(tmp_path).passed_over == [
        ("a.heic", "HEIC, which needs pip install 'gan-laboratory[heic]'")
    ]


def test_a_photograph_of_200_megapixels_is_read(tmp_path: Path, write_images) -> None:
    """Pillow reports a decompression bomb when it is opened and when it is cropped."""
    Image.new("L", (20_000, 10_000), 200).save(tmp_path / "a.jpg")
    data = ImageFolder(split="train", root=tmp_path, image_size=16)
    assert (data[0].real == 200).all()
    with pytest.raises(InputError) as caught:
        ImageFolder(split="train", root=tmp_path, image_size=16, max_megapixels=150)
    assert "a.jpg (20000 x 10000 pixels are 200 megapixels" in str(caught.value)
    assert "data.max_megapixels=150" in str(caught.value)


def test_the_bound_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = io.BytesIO(encoded("WebP", ramp(1000, 1000)))  # whose plugin has a check of its own
    with pytest.raises(ImageTooLarge, match=r"1 megapixels, more than max_megapixels=0\.5"):
        open_image(file, max_megapixels=0.5)
    with open_image(file, max_megapixels=1) as image:
        crop = ImageTransform(size=(500, 500), channels=1, crop="center", resample="box")
        assert crop(image).shape == (1, 500, 500)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "many"])
def test_a_bound_that_is_none_is_rejected(tmp_path: Path, write_images, value: object) -> None:
    write_images(tmp_path, ["a.png"])
    with pytest.raises(InputError, match=r"data\.max_megapixels="):
        ImageFolder(split="train", root=tmp_path, max_megapixels=value)  # type: ignore[arg-type]


def test_pipes_sockets_and_devices_are_not_opened(tmp_path: Path, write_images) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "zero.png")
    with pytest.raises(OSError, match="not a regular file"):
        regular_file(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.png"))
        assert [name for name, _ in list_folder(tmp_path).passed_over] == [
            "pipe.png", "s.png", "zero.png",
        ]  # fmt: skip
        write_images(tmp_path, ["a.png"])
        assert len(ImageFolder(split="train", root=tmp_path)) == 1
    with pytest.raises(InputError, match=r"pipe\.png cannot be read \(not a regular file"):
        read_targets(tmp_path / "pipe.png", size=(4, 4), channels=1)


def test_nothing_opens_images_but_one_function() -> None:
    sources = Path(gan_lab.__file__).parent.rglob("*.py")
    assert not [path.name for path in sources if "Image.open(" in path.read_text()]


@pytest.mark.parametrize("what", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)])
def test_sources_that_are_no_files_are_named(
    tmp_path: Path, what: Callable[[Path], object]
) -> None:
    ramp().save(tmp_path / "a.png")
    what(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png"):
        read_sources(tmp_path, ImageKind())


@pytest.mark.parametrize("name", WRITTEN)
def test_whatever_a_decoder_raises_is_known(name: str) -> None:
    data, draw = encoded(name, ramp().convert("RGB")), random.Random(name)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 2, 8))):
            damaged[draw.randrange(min(len(data), 300))] = draw.choice((0, 1, 127, 255))
        with suppress(*DECODE_ERRORS):
            inspect(io.BytesIO(damaged))
            with open_image(io.BytesIO(damaged)) as image:
                image.load()
