"""Sources of encoded images, and the scan that checks them all before training."""

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags

from gan_lab.console import say
from gan_lab.data.base import digest
from gan_lab.data.cache import Arrays, cached_arrays
from gan_lab.data.decoding import (
    DECODE_ERRORS,
    MAX_MEGAPIXELS,
    check_pixels,
    open_image,
    regular_file,
)
from gan_lab.data.high_bit_depth import bit_depth, check_finite, read_levels, shape_of
from gan_lab.data.listing import format_names
from gan_lab.data.transform import UnusableImage, native_channels, usable_mode
from gan_lab.errors import InputError, counted

_STAT_THREADS = 16
_STAT_CHUNK = 1024


class Source(ABC):
    """A list of encoded images. It can be pickled, forked, and read from several threads."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's name for messages: a path, or the key in a container."""

    @abstractmethod
    def open(self, index: int) -> BinaryIO:
        """The encoded image as a seekable stream, to be closed by the caller.

        Raises:
            OSError: when it cannot be read.
        """

    @property
    @abstractmethod
    def listing(self) -> str:
        """Digest of names, sizes and modification times."""


class FileSource(Source):
    """Files under a folder.

    Args:
        root: the folder.
        names: paths relative to it.
    """

    def __init__(self, *, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self._folder = str(root)
        # fixed-width bytes, not a list: reference counts of a list's items would copy its pages in every worker
        self._names = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return os.fsdecode(bytes(self._names[index]))

    def open(self, index: int) -> BinaryIO:
        return regular_file(os.path.join(self._folder, self.name(index)))

    @property
    def listing(self) -> str:
        starts = range(0, len(self), _STAT_CHUNK)
        with ThreadPoolExecutor(_STAT_THREADS) as pool:
            tables = list(pool.map(self._stats, starts))
        return digest(
            str(self._root.resolve()), self._names.tobytes(), *[table.tobytes() for table in tables]
        )

    def _stats(self, start: int) -> NDArray[np.int64]:
        """(size, time of change) of a run of files, [count, 2]."""
        stop = min(start + _STAT_CHUNK, len(self))
        table = np.full((stop - start, 2), -1, dtype=np.int64)
        for index in range(start, stop):
            # a dangling link has no status; the scan reports it
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(self._folder, self.name(index)))
                table[index - start] = status.st_size, status.st_mtime_ns
        return table


def existing_folder(root: str | Path | None, what: str) -> Path:
    """Return `data.root`, checked to be a folder.

    Raises:
        InputError: when it is not given, does not exist or is not a folder.
    """
    path = existing_path(root, what)
    if not path.is_dir():
        hint = "; for a zip use data=zip" if path.suffix == ".zip" else ""
        raise InputError(f"data.root={path} is a file; expected {what}{hint}")
    return path


def existing_path(root: str | Path | None, what: str) -> Path:
    """Return `data.root`, checked to exist.

    Raises:
        InputError: when it is not given or does not exist.
    """
    if root is None or str(root) == "":
        raise InputError(f"data.root is not set; set data.root=PATH to {what}")
    path = Path(root).expanduser()
    if not path.exists():
        missing = next(
            p for p in [*reversed(path.absolute().parents), path.absolute()] if not p.exists()
        )
        detail = "" if missing == path.absolute() else f" ({missing} is not there)"
        raise InputError(f"data.root={path} does not exist{detail}; set data.root=PATH to {what}")
    return path


def readable_files(
    source: Source, reasons: Mapping[int, str], *, skip: bool, what: str
) -> NDArray[np.bool_]:
    """Return a mask [N] of the files to use.

    Args:
        source: of the files.
        reasons: why a file cannot be read, by its index.
        skip: whether to skip such files.
        what: a file is, for messages.

    Raises:
        InputError: when none can be read, or some cannot and are not to be skipped.
    """
    readable = np.ones(len(source), dtype=bool)
    readable[list(reasons)] = False
    bad = describe_unreadable([(source.name(index), why) for index, why in reasons.items()])
    if reasons and not readable.any():
        raise InputError(f"no {what} can be read: {bad}")
    if reasons and not skip:
        raise InputError(
            f"{bad} (of {len(source):,}); repair or remove them, or set data.skip_unreadable=true to continue without "
            "them"
        )
    return readable


def describe_unreadable(bad: Sequence[tuple[str, str]]) -> str:
    """Format names and reasons of unreadable files for a message."""
    files = counted(len(bad), "unreadable file")
    return f"{files}: {format_names(f'{name} ({reason})' for name, reason in bad)}"


# Scan: check each image without decoding it (size, channels, truncated or not).


_VERSION = 3
_CHUNK = 256
_THREADS = 16
_REPORTED_FROM = 10_000
_BOUND = "data.max_megapixels"
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Sizes and channels of all images, from their headers.

    Attributes:
        shapes: int32 [N, 4]: height and width after EXIF orientation, channels, bits (32: floating point); zeros
            where unreadable.
        reasons: why an image cannot be read, by its index.
        listing: the source's at the time of the scan.
    """

    shapes: NDArray[np.int32]
    reasons: dict[int, str]
    listing: str


def scan(source: Source, *, max_megapixels: float = MAX_MEGAPIXELS) -> Scan:
    """Scan all images of `source`, or load the cached result if they are unchanged.

    Unreadable images are scanned again: the reason may have been a permission or a network.
    """
    listing = source.listing
    key = digest(_VERSION, listing, float(max_megapixels))
    arrays = cached_arrays("scans", key, lambda: _as_arrays(_scan_all(source, max_megapixels)))
    shapes, reasons = arrays["shapes"], _reasons(arrays)
    for index in list(reasons):
        with contextlib.suppress(*DECODE_ERRORS), source.open(index) as file:
            shapes[index] = inspect(file, max_megapixels=max_megapixels, name=_BOUND)
            del reasons[index]
    return Scan(shapes=shapes, reasons=reasons, listing=listing)


def reason_of(error: BaseException) -> str:
    """One line for a user about why an image could not be read."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _scan_all(source: Source, max_megapixels: float) -> tuple[NDArray[np.int32], dict[int, str]]:
    if len(source) >= _REPORTED_FROM:
        say(f"checking {len(source):,} images (once; the result is cached) ...")
    starts = range(0, len(source), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = list(pool.map(lambda start: _scan_chunk(source, start, max_megapixels), starts))
    shapes = np.concatenate([shapes for shapes, _ in chunks])
    reasons = {index: reason for _, some in chunks for index, reason in some.items()}
    return shapes, reasons


def _scan_chunk(
    source: Source, start: int, max_megapixels: float
) -> tuple[NDArray[np.int32], dict[int, str]]:
    stop = min(start + _CHUNK, len(source))
    shapes = np.zeros((stop - start, 4), dtype=np.int32)
    reasons = {}
    for index in range(start, stop):
        try:
            with source.open(index) as file:
                shapes[index - start] = inspect(file, max_megapixels=max_megapixels, name=_BOUND)
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


def inspect(
    file: BinaryIO, *, max_megapixels: float = MAX_MEGAPIXELS, name: str = "max_megapixels"
) -> tuple[int, int, int, int]:
    """(height, width, channels, bits) of an image after orientation; 32 bits are floating-point values.

    Reads the header, and the pixels only if the file does not end as its format requires: because of truncation, or of
    padding.

    Raises:
        UnusableImage: when the range of its pixels is unknown.
        NotAnImage: and the others of `open_image`.
        OSError: or another of DECODE_ERRORS when it is not an image or is cut short.
    """
    bits = bit_depth(file)
    if bits is not None:
        height, width, channels = shape_of(file)
        check_pixels(width, height, max_megapixels=max_megapixels, name=name, channels=channels)
        if bits == 32 or not _ends_as_it_should(file, "PNG"):
            check_finite(read_levels(file))
        return height, width, channels, bits
    with open_image(file, max_megapixels=max_megapixels, name=name) as image:
        if not usable_mode(image.mode, image.format):
            raise UnusableImage(f"pixels of mode {image.mode}, whose range is unknown")
        height, width = image.height, image.width
        if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
            height, width = width, height
        channels = native_channels(image)
        if not _ends_as_it_should(file, image.format):
            with open_image(file, max_megapixels=max_megapixels, name=name) as whole:
                whole.load()
    return height, width, channels, 8


def _ends_as_it_should(file: BinaryIO, file_format: str | None) -> bool:
    length = file.seek(0, os.SEEK_END)
    if file_format in ("JPEG", "MPO"):
        return _tail(file, length, 2) == b"\xff\xd9"  # EOI, ITU-T T.81 table B.1
    if file_format == "PNG":
        return _tail(file, length, 8) == b"IEND\xaeB`\x82"  # PNG specification, 11.2.5
    if file_format == "WEBP":
        file.seek(4)
        return length >= 8 + int.from_bytes(file.read(4), "little")  # RIFF counts its bytes
    if file_format == "GIF":
        return _tail(file, length, 1) == b"\x3b"  # GIF89a, 27
    if file_format == "JPEG2000":
        return _tail(file, length, 2) == b"\xff\xd9"  # EOC, ITU-T T.800 table A.2
    return file_format in ("AVIF", "HEIF") and _boxes_end(file, length)


def _boxes_end(file: BinaryIO, length: int) -> bool:
    """Whether the boxes of an ISO media file (ISO/IEC 14496-12, 4.2) fill it exactly."""
    at = 0
    while at < length:
        file.seek(at)
        size = int.from_bytes(file.read(4), "big")
        if size == 1:
            size = int.from_bytes(file.read(12)[4:], "big")
        if size < 8:
            return False
        at += size
    return at == length


def _tail(file: BinaryIO, length: int, count: int) -> bytes:
    file.seek(max(0, length - count))
    return file.read(count)
