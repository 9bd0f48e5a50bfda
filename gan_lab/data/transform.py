"""Transform any image to uint8 [C, H, W] of one size: orientation, mode, crop, resampling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gan_lab.errors import InputError

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_GRAY = ("1", "L", "I", *_SIXTEEN_BIT)

ImageSize = int | Sequence[int] | None
Crop = str | int | Sequence[int]


class UnusableImage(ValueError):
    """The image cannot be converted to 8 bits."""


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """Makes every image uint8 [C, H, W].

    EXIF orientation is applied; 16-bit gray keeps its high byte; transparency becomes white unless there are 4
    channels. The filters are Pillow's, which widen with the scale and so do not alias.

    Args:
        size: (height, width) of the result.
        channels: 1, 3 or 4.
        crop: "center" cuts the largest centered part with the aspect of `size`; "none" cuts nothing and distorts;
            (height, width) cuts that many pixels from the center first, then as "center".
        resample: a name in FILTERS.
    """

    size: tuple[int, int]
    channels: int
    crop: str | tuple[int, int]
    resample: str

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Transform one opened image.

        Raises:
            UnusableImage: for 32-bit and floating-point pixels, whose range is unknown.
            OSError: from Pillow, when the file cannot be decoded.
        """
        image = _to_eight_bits(image)
        ImageOps.exif_transpose(image, in_place=True)
        image = _to_mode(image, self.channels)
        # not resize(box=...), which uses pixels outside the box
        image = image.crop(self.box(image.height, image.width))
        if (image.height, image.width) != self.size:
            image = image.resize(self.size[::-1], FILTERS[self.resample])
        pixels = np.asarray(image)  # [H, W] or [H, W, C]
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def levels(self, pixels: NDArray[Any], *, bits: int) -> NDArray[Any]:
        """Transform an image [H, W, C] of any levels to [C, H, W] of `bits`, each channel separately.

        Raises:
            UnusableImage: for another number of channels.
        """
        if pixels.shape[2] != self.channels:
            raise UnusableImage(f"it has {pixels.shape[2]} channels; expected {self.channels}")
        left, top, right, bottom = self.box(*pixels.shape[:2])
        planes = pixels[top:bottom, left:right].transpose(2, 0, 1)
        if planes.shape[1:] != self.size:
            resized = [
                Image.fromarray(plane.astype(np.float32)).resize(
                    self.size[::-1], FILTERS[self.resample]
                )
                for plane in planes
            ]
            planes = np.stack([np.asarray(plane) for plane in resized])
        if bits == 32:
            return planes.astype(np.float32)
        kind = np.uint16 if bits == 16 else np.uint8
        return np.rint(planes).clip(0, np.iinfo(kind).max).astype(kind)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the crop of an image of this size."""
        if self.crop == "none":
            return 0, 0, width, height
        keep_height, keep_width = height, width
        if not isinstance(self.crop, str):
            keep_height, keep_width = min(height, self.crop[0]), min(width, self.crop[1])
        aspect = self.size[1] / self.size[0]
        if keep_width > keep_height * aspect:
            keep_width = max(1, round(keep_height * aspect))
        else:
            keep_height = max(1, round(keep_width / aspect))
        left, top = (width - keep_width) // 2, (height - keep_height) // 2
        return left, top, left + keep_width, top + keep_height

    def spacing(self, mm: tuple[float, float], shape: tuple[int, int]) -> tuple[float, float]:
        """Pixel spacing (height, width) in mm after the transform of images of `shape` whose pixels have `mm`."""
        left, top, right, bottom = self.box(*shape)
        return (
            round(mm[0] * (bottom - top) / self.size[0], 4),
            round(mm[1] * (right - left) / self.size[1], 4),
        )


def native_channels(image: Image.Image) -> int:
    """Channels (1, 3 or 4) that represent an opened image without loss."""
    if image.has_transparency_data:
        return 4
    return 1 if image.mode in _GRAY else 3


def usable_mode(mode: str, file_format: str | None) -> bool:
    """Whether the range of the pixels is known: 8 bits, or the 16 of PNG."""
    return mode != "F" and (mode != "I" or file_format == "PNG")


def parse_size(image_size: ImageSize, name: str = "data.image_size") -> tuple[int, int] | None:
    """(height, width) of a size given as one number, [H, W], or None for "as stored".

    Raises:
        InputError: for anything else and for sides below 1 pixel.
    """
    if image_size is None:
        return None
    sides = [image_size, image_size] if isinstance(image_size, int) else image_size
    if (
        isinstance(image_size, bool | str)
        or not isinstance(sides, Sequence)
        or len(sides) != 2
        or not all(type(side) is int and side > 0 for side in sides)
    ):
        raise InputError(
            f"{name}={image_size!r} is not an image size; allowed: one number of pixels ({name}=64), "
            f"height and width ({name}=[64,96]), or null for the size of the files"
        )
    return int(sides[0]), int(sides[1])


def parse_crop(crop: Crop) -> str | tuple[int, int]:
    """Check `crop` as `ImageTransform` takes it.

    Raises:
        InputError: unless it is "center", "none", a number of pixels or [H, W].
    """
    if crop in ("center", "none"):
        return str(crop)
    if isinstance(crop, str) or crop is None:
        raise InputError(
            f"data.crop={crop!r}; allowed: center, none, a number of pixels, or [height,width] in pixels"
        )
    parsed = parse_size(crop, name="data.crop")
    assert parsed is not None
    return parsed


def check_max_megapixels(max_megapixels: float) -> None:
    """Raise InputError unless it is a positive number."""
    if (
        isinstance(max_megapixels, bool)
        or not isinstance(max_megapixels, int | float)
        or not 0 < max_megapixels < float("inf")
    ):
        raise InputError(
            f"data.max_megapixels={max_megapixels!r}; allowed: a number of megapixels above 0"
        )


def check_options(resample: str, channels: int | None) -> None:
    """Raise InputError for an unknown filter or number of channels."""
    if resample not in FILTERS:
        raise InputError(f"data.resample={resample!r}; allowed: {', '.join(FILTERS)}")
    if channels is not None and channels not in _MODES:
        raise InputError(
            f"data.channels={channels!r}; allowed: 1 (gray), 3 (RGB), 4 (RGBA), null (as the files)"
        )


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit gray, which Pillow would clip, to 8 bits; other modes stay."""
    if not usable_mode(image.mode, image.format):
        raise UnusableImage(
            f"its pixels are of mode {image.mode}, whose range is unknown; save it with 8 or 16 bits"
        )
    if image.mode not in (*_SIXTEEN_BIT, "I"):
        return image
    gray = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    gray.info = image.info
    return gray


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    mode = _MODES[channels]
    if image.mode == mode:
        return image
    if channels < 4 and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
