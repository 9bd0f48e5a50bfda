"""Look at every picture before training, without decoding it: size, channels, and whether its end is there."""

import contextlib
import json
import os
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from gan_lab.console import say
from gan_lab.data.base import digest
from gan_lab.data.cache import Arrays, kept
from gan_lab.data.source import Source
from gan_lab.data.transform import UnusableImage, native_channels, usable_mode

# what Pillow and the containers raise on broken input
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip

_VERSION = 1
_CHUNK = 256
_THREADS = 16
_WORTH_SAYING = 10_000
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the headers say.

    Attributes:
        shapes: int32 [N, 3]: height and width after EXIF orientation, channels (1, 3, 4); zeros where unreadable.
        reasons: why a picture cannot be read, by its number.
        listing: the source's, when it was scanned.
    """

    shapes: NDArray[np.int32]
    reasons: dict[int, str]
    listing: str


def scan(source: Source) -> Scan:
    """Check all pictures of `source`, or take what an earlier check of the unchanged files found.

    Pictures that were unreadable then are looked at again: their trouble may have been a permission or a network.
    """
    listing = source.listing
    arrays = kept("scans", digest(_VERSION, listing), lambda: _as_arrays(_scan_all(source)))
    shapes, reasons = arrays["shapes"], _reasons(arrays)
    for index in list(reasons):
        with contextlib.suppress(*DECODE_ERRORS), source.open(index) as file:
            shapes[index] = inspect(file)
            del reasons[index]
    return Scan(shapes=shapes, reasons=reasons, listing=listing)


def reason_of(error: BaseException) -> str:
    """One line for a user about why a picture could not be read."""
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or its beginning is damaged"
    return text


def _scan_all(source: Source) -> tuple[NDArray[np.int32], dict[int, str]]:
    if len(source) >= _WORTH_SAYING:
        say(f"checking {len(source):,} images (once; the result is kept) ...")
    starts = range(0, len(source), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = list(pool.map(lambda start: _scan_chunk(source, start), starts))
    shapes = np.concatenate([shapes for shapes, _ in chunks])
    reasons = {index: reason for _, some in chunks for index, reason in some.items()}
    return shapes, reasons


def _scan_chunk(source: Source, start: int) -> tuple[NDArray[np.int32], dict[int, str]]:
    stop = min(start + _CHUNK, len(source))
    shapes = np.zeros((stop - start, 3), dtype=np.int32)
    reasons = {}
    for index in range(start, stop):
        try:
            with source.open(index) as file:
                shapes[index - start] = inspect(file)
        except DECODE_ERRORS as error:
            reasons[index] = reason_of(error)
    return shapes, reasons


def _as_arrays(found: tuple[NDArray[np.int32], dict[int, str]]) -> Arrays:
    shapes, reasons = found
    return {
        "shapes": shapes,
        "reasons": np.frombuffer(json.dumps(reasons).encode(), dtype=np.uint8),
    }


def _reasons(arrays: Arrays) -> dict[int, str]:
    stored: dict[str, str] = json.loads(arrays["reasons"].tobytes())
    return {int(index): reason for index, reason in stored.items()}


def inspect(file: BinaryIO) -> tuple[int, int, int]:
    """(height, width, channels) of a picture as it will be shown.

    The header is read; the pixels only when the file does not end as its format does, which padding behind a whole
    picture does as well as truncation.

    Raises:
        UnusableImage: when the range of its pixels is unknown.
        OSError: or another of DECODE_ERRORS when it is no picture or is cut short.
    """
    with Image.open(file) as image:
        if not usable_mode(image.mode, image.format):
            raise UnusableImage(f"pixels of mode {image.mode}, whose range is unknown")
        height, width = image.height, image.width
        if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
            height, width = width, height
        channels = native_channels(image)
        if not _ends_as_it_should(file, image.format):
            file.seek(0)
            with Image.open(file) as whole:
                whole.load()
    return height, width, channels


def _ends_as_it_should(file: BinaryIO, file_format: str | None) -> bool:
    length = file.seek(0, os.SEEK_END)
    if file_format == "JPEG":
        return _tail(file, length, 2) == b"\xff\xd9"  # EOI, ITU-T T.81 table B.1
    if file_format == "PNG":
        return _tail(file, length, 8) == b"IEND\xaeB`\x82"  # PNG specification, 11.2.5
    if file_format == "WEBP":
        file.seek(4)
        return length >= 8 + int.from_bytes(file.read(4), "little")  # RIFF counts its bytes
    return True


def _tail(file: BinaryIO, length: int, count: int) -> bytes:
    file.seek(max(0, length - count))
    return file.read(count)
