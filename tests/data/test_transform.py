from typing import Any

import numpy as np
import pytest
from PIL import Image

from gan_lab.data.transform import ImageTransform, UnusableImage

RNG = np.random.default_rng(0)


def transform(size: tuple[int, int], channels: int = 3, **options: Any) -> ImageTransform:
    return ImageTransform(
        **{"size": size, "channels": channels, "crop": "center", "resample": "lanczos", **options}
    )


def make_image(height: int, width: int, channels: int = 3) -> Image.Image:
    pixels = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def test_the_right_size_is_left_as_it_is() -> None:
    image = make_image(5, 7)
    np.testing.assert_array_equal(transform((5, 7))(image), np.asarray(image).transpose(2, 0, 1))


def test_center_crop_keeps_the_middle() -> None:
    image = make_image(6, 10)
    np.testing.assert_array_equal(
        transform((6, 6))(image), np.asarray(image)[:, 2:8].transpose(2, 0, 1)
    )


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (24, 16), (50, 20)])
@pytest.mark.parametrize("resample", ["lanczos", "box", "bicubic", "bilinear"])
def test_crop_and_resize_as_in_two_steps(size: tuple[int, int], resample: str) -> None:
    image = make_image(218, 178)
    height, width = (
        min(218, round(178 * size[0] / size[1])),
        min(178, round(218 * size[1] / size[0])),
    )
    left, top = (178 - width) // 2, (218 - height) // 2
    cropped = image.crop((left, top, left + width, top + height))
    expected = cropped.resize(size[::-1], Image.Resampling[resample.upper()])
    np.testing.assert_array_equal(
        transform(size, resample=resample)(image), np.asarray(expected).transpose(2, 0, 1)
    )


def test_box_halves_by_averaging() -> None:
    image = make_image(8, 8, 1)
    blocks = np.asarray(image).reshape(4, 2, 4, 2).astype(float).mean(axis=(1, 3))
    result = transform((4, 4), 1, resample="box")(image)[0]
    assert np.abs(result - blocks).max() <= 1  # Pillow rounds after each direction


def test_crop_in_pixels_comes_first() -> None:
    image = make_image(218, 178)
    result = transform((148, 148), crop=(148, 148))(image)
    np.testing.assert_array_equal(result, np.asarray(image)[35:183, 15:163].transpose(2, 0, 1))


def test_crop_larger_than_the_image_takes_all_of_it() -> None:
    image = make_image(6, 6)
    np.testing.assert_array_equal(
        transform((6, 6), crop=(100, 100))(image), np.asarray(image).transpose(2, 0, 1)
    )


def test_no_crop_distorts() -> None:
    image = make_image(6, 10)
    expected = np.asarray(image.resize((4, 4), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    np.testing.assert_array_equal(transform((4, 4), crop="none")(image), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honored(orientation: int, tmp_path: Any) -> None:
    upright = make_image(4, 6)
    array = np.asarray(upright)
    # what must be stored for a viewer to see `array`: EXIF 2.3, table 6
    stored = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1],
        5: array.swapaxes(0, 1), 6: array.swapaxes(0, 1)[::-1],
        7: array.swapaxes(0, 1)[::-1, ::-1], 8: array.swapaxes(0, 1)[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        result = transform((4, 6))(image)
    np.testing.assert_array_equal(result, array.transpose(2, 0, 1))


def test_sixteen_bits_keep_the_high_byte(tmp_path: Any) -> None:
    deep = RNG.integers(0, 65536, (5, 5), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(transform((5, 5), 1)(image)[0], deep >> 8)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(
            transform((5, 5), 3)(image), np.broadcast_to(deep >> 8, (3, 5, 5))
        )


def test_floating_point_is_rejected() -> None:
    with pytest.raises(UnusableImage, match="mode F"):
        transform((2, 2))(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 2, 4))
    result = transform((4, 4))(image.convert(mode) if mode != "P" else image.quantize(4))
    assert (result[:, :, :2] == 0).all()
    assert (result[:, :, 2:] == 255).all()


def test_four_channels_keep_transparency() -> None:
    image = make_image(4, 4, 4)
    np.testing.assert_array_equal(transform((4, 4), 4)(image), np.asarray(image).transpose(2, 0, 1))
    assert (transform((4, 4), 4)(make_image(4, 4))[3] == 255).all()


def test_palette_and_cmyk_become_rgb() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    for image in (red.quantize(4), red.convert("CMYK")):
        result = transform((2, 2))(image)
        assert result[:, 0, 0].tolist() == [255, 0, 0]


def test_color_becomes_gray_by_luma() -> None:
    image = make_image(4, 4)
    expected = np.asarray(image).astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(transform((4, 4), 1)(image)[0] - expected).max() <= 1
