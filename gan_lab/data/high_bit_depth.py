"""Images with more than 8 bits per channel: reading, storing, writing, and windows of levels."""

import io
import logging
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_lab.data.cache import read_header
from gan_lab.data.decoding import DECODE_ERRORS, HEAD_BYTES, NotAnImage, image_format
from gan_lab.data.sample import Representation, SampleKind
from gan_lab.errors import InputError

Bits = Literal[8, 16, 32]
WindowName = Literal["range", "full", "percentiles"]

PERCENTILES = (0.5, 99.5)
_FULL = 65535.0
_SAMPLED = 4096  # sampled pixels per image for percentiles

# it logs a line for each odd tag; what cannot be read is reported by the caller
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class HighBitDepthImage(SampleKind):
    """Images of 16 bits, uint16 [C, H, W], or of floating-point values, float32 [C, H, W].

    Args:
        bits: 16 or 32 (floating point).
        channels: C.
        window: lowest and highest level of previews, black and white.
        spacing: (height, width) of a pixel in mm, the same in all images; None if unknown.
    """

    axes = ("channels", "height", "width")
    is_precise = True

    def __init__(
        self,
        *,
        bits: Literal[16, 32],
        channels: int,
        window: tuple[float, float],
        spacing: tuple[float, float] | None = None,
    ) -> None:
        self.bits = bits
        self.channels = channels
        self.window = (float(window[0]), float(window[1]))
        self.spacing = None if spacing is None else (float(spacing[0]), float(spacing[1]))
        self.name = f"{bits}-bit image"
        self.suffix = ".png" if bits == 16 and channels == 1 else ".tif"

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "bits": self.bits,
            "channels": self.channels,
            "window": list(self.window),
            "spacing": None if self.spacing is None else list(self.spacing),
        }

    def to_float(self, stored: Tensor) -> Tensor:
        """Map 0 to 65535 to -1 to 1, exactly in float32; floating-point values are unchanged."""
        return stored.float().div(_FULL / 2).sub(1) if self.bits == 16 else stored.float()

    def to_stored(self, values: Tensor) -> Tensor:
        values = values.float()
        if not torch.isfinite(values).all():
            raise InputError("images contain NaN or infinity")
        if self.bits == 32:
            return values
        return values.add(1).mul(_FULL / 2).round().clamp(0, _FULL).to(torch.uint16)

    def encoded(self, stored: Tensor) -> bytes:
        """Return one image [C, H, W] as a file: gray of 16 bits as PNG, all others as TIFF."""
        pixels, file = stored.cpu().numpy(), io.BytesIO()
        if self.suffix == ".png":
            Image.fromarray(pixels[0]).save(file, format="PNG")
        else:
            is_color = self.channels == 3 and self.bits == 16
            library("tifffile").imwrite(
                file,
                pixels.transpose(1, 2, 0),
                photometric="rgb" if is_color else "minisblack",
                # otherwise channels would be pages
                planarconfig="contig" if self.channels > 1 else None,
                compression="zlib",
            )
        return file.getvalue()

    def decoded(self, data: bytes) -> Tensor:
        pixels = read_levels(io.BytesIO(data))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def zip_options(self, shape: Sequence[int]) -> str:
        return "data=zip"

    def preview(self, stored: Tensor) -> Tensor:
        """Map the window's levels to 0 to 255; with other numbers of channels than 1 and 3, the first one."""
        low, high = self.window
        gray = (stored.float() - low).div(max(high - low, 1e-12)).mul(255).round()
        images = gray.clamp(0, 255).to(torch.uint8)
        return images if images.shape[1] in (1, 3) else images[:, :1]

    def measured(self, stored: Tensor) -> Tensor:
        """Return previews: feature networks take 8 bits."""
        return self.preview(stored)


class Window(Representation):
    """Map the levels between two ends to -1 to 1, clipping others, as a radiologist's window.

    Args:
        low: lower end, in the unit of `HighBitDepthImage.to_float`.
        high: upper end.
    """

    def __init__(self, *, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise InputError(
                f"a window from {low:g} to {high:g} is empty; its end must be above its start"
            )
        self.low, self.high = float(low), float(high)

    @property
    def arguments(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high}

    def encode(self, samples: Tensor) -> Tensor:
        center, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return samples.sub(center).div(half).clamp(-1, 1)

    def decode(self, values: Tensor) -> Tensor:
        center, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return values.float().clamp(-1, 1).mul(half).add(center)


def window_of(levels: tuple[float, float], *, bits: int) -> Window:
    """Return the representation for a window given in stored levels."""
    low, high = levels
    if bits == 16:
        low, high = low / (_FULL / 2) - 1, high / (_FULL / 2) - 1
    return Window(low=low, high=high)


def parse_window(window: object) -> WindowName | tuple[float, float]:
    """Check `data.window`: a name, or [center, width] in levels, which becomes (low, high).

    Raises:
        InputError: for anything else.
    """
    if window in ("range", "full", "percentiles"):
        return window
    if (
        not isinstance(window, Sequence)
        or isinstance(window, str)
        or len(window) != 2
        or not all(type(end) in (int, float) and np.isfinite(end) for end in window)
        or not window[1] > 0
    ):
        raise InputError(
            f"data.window={window!r}; allowed: range (of the images' levels), full, percentiles "
            f"({PERCENTILES[0]} to {PERCENTILES[1]} %), or [center,width] in levels, such as data.window=[1024,400]"
        )
    center, width = float(window[0]), float(window[1])
    return center - width / 2, center + width / 2


def find_levels(images: Iterable[NDArray[Any]], window: WindowName) -> tuple[float, float]:
    """Return the lowest and highest level of images, or percentiles of evenly spaced pixels of each.

    Raises:
        InputError: when all levels are the same.
    """
    low, high = np.inf, -np.inf
    some = []
    for pixels in images:
        flat = pixels.reshape(-1)
        if window == "percentiles":
            some.append(flat[:: max(1, flat.size // _SAMPLED)].astype(np.float32))
        else:
            low, high = min(low, float(flat.min())), max(high, float(flat.max()))
    if some:
        low, high = map(float, np.percentile(np.concatenate(some), PERCENTILES))
    if not low < high:
        raise InputError(
            f"all images have the one level {low:g}, of which nothing can be learned; set data.window=[center,width] "
            "if that is right"
        )
    return low, high


# Reading


def bit_depth(file: BinaryIO) -> Bits | None:
    """Bits of an image that this module reads (16-bit or float PNG and TIFF, arrays); None for others."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    found = image_format(head)
    if found == "PNG":
        return 16 if head[24] == 16 else None  # PNG specification, 11.2.1
    if found == "TIFF":
        try:
            page = _tiff_page(file)
        except NotAnImage:
            return None  # Pillow reads it, or reports what is wrong
        return _bits_of(page.dtype, at_least=16)
    if found == "NumPy":
        return _bits_of(read_header(file)[1], at_least=8)
    return None


def shape_of(file: BinaryIO) -> tuple[int, int, int]:
    """Height, width and channels of an image for which `bit_depth` is not None.

    Raises:
        NotAnImage: when it holds something else, or nothing.
    """
    height, width, channels = _sides(file)
    if not height * width * channels:
        raise NotAnImage(f"{height} x {width} pixels of {channels} channels: nothing is in it")
    return height, width, channels


def _sides(file: BinaryIO) -> tuple[int, int, int]:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    found = image_format(head)
    if found == "PNG":
        width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        channels = {0: 1, 2: 3, 6: 4}.get(head[25])
        if channels is None:
            raise NotAnImage("gray with transparency in 16 bits; save it without transparency")
        return height, width, channels
    shape = _tiff_page(file).shape if found == "TIFF" else read_header(file)[0]
    axes = _tiff_page(file).axes if found == "TIFF" else ""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) == 3 and axes in ("", "YXS"):
        return shape[0], shape[1], shape[2]
    if len(shape) == 3 and axes == "SYX":
        return shape[1], shape[2], shape[0]
    raise NotAnImage(f"an array of shape {list(shape)}; an image is [H, W] or [H, W, C]")


def read_levels(file: BinaryIO) -> NDArray[Any]:
    """Read an image as [H, W, C]: uint8, uint16, or float32 for floating-point values and signed integers.

    Raises:
        NotAnImage: when it holds something else.
        OSError: or another of DECODE_ERRORS when it is damaged.
    """
    file.seek(0)
    found = image_format(file.read(HEAD_BYTES))
    file.seek(0)
    if found == "PNG":
        imagecodecs = library("imagecodecs")
        try:
            pixels = imagecodecs.png_decode(file.read())
        except imagecodecs.PngError as error:
            raise NotAnImage(str(error)) from error
    elif found == "TIFF":
        page = _tiff_page(file)
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = pixels.transpose(1, 2, 0)
    elif found == "NumPy":
        shape, dtype = read_header(file)
        values = file.read()
        if len(values) != int(np.prod(shape)) * dtype.itemsize:
            raise NotAnImage(f"it claims shape {list(shape)} and holds {len(values):,} bytes")
        pixels = np.frombuffer(values, dtype=dtype).reshape(shape)
    else:
        raise NotAnImage("not a PNG, TIFF or NumPy file of 16 or floating-point bits")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if _bits_of(pixels.dtype, at_least=8) == 32:
        pixels = pixels.astype(np.float32)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def check_finite(pixels: NDArray[Any]) -> None:
    """Raise NotAnImage for NaN and infinity."""
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise NotAnImage(f"{count:,} of {pixels.size:,} values are NaN or infinite; replace them")


def _bits_of(dtype: np.dtype[Any] | None, *, at_least: int) -> Bits | None:
    if dtype is None or dtype.kind not in "uif":
        return None
    if dtype.kind == "u" and dtype.itemsize <= 2:
        bits = 8 * dtype.itemsize
        return bits if bits >= at_least else None  # type: ignore[return-value]
    return 32


def _tiff_page(file: BinaryIO) -> Any:
    file.seek(0)
    tifffile = library("tifffile")
    try:
        return tifffile.TiffFile(io.BytesIO(file.read())).pages[0]
    except DECODE_ERRORS as error:
        raise NotAnImage(f"its TIFF header is damaged ({error})") from error


def library(name: str) -> Any:
    """Return the library that reads such files; other images can be trained on without it.

    Raises:
        InputError: where it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name} is not installed, and images of more than 8 bits need it; pip install {name}"
        ) from error
