"""Opening images of allowed formats, which are recognized by a file's first bytes, never by its name.

All image decoding goes through `open_image`. PostScript is not allowed: Pillow would start Ghostscript, whatever the
file's name.
"""

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

from PIL import Image, ImageFile

HEAD_BYTES = 64  # enough to recognize a format
MAX_MEGAPIXELS = 300.0  # 0.9 GB decoded; the largest phones and cameras make 200
FORMATS = ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "JPEG 2000", "AVIF", "HEIC", "NumPy")

# what Pillow, tifffile, imagecodecs, NumPy and the containers raise on broken files
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError, MemoryError,
    AttributeError, TokenError, struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip

_PLUGINS = {"WebP": "WEBP", "JPEG 2000": "JPEG2000"}  # Pillow's names where they differ
_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
_HEIC_BRANDS = {
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
}  # fmt: skip
_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50706  # TIFF tags


class NotAnImage(OSError):
    """The file has none of the allowed formats, or its header is damaged."""


class ImageTooLarge(OSError):
    """The image has more pixels than are allowed."""


def open_image(
    file: BinaryIO, *, max_megapixels: float = MAX_MEGAPIXELS, name: str = "max_megapixels"
) -> ImageFile.ImageFile:
    """Open an image of one of FORMATS; its pixels are decoded on demand.

    Pillow's own limit on pixels, which holds for the whole process, is raised to `max_megapixels` where it is lower.

    Args:
        file: seekable; the caller closes it after decoding the pixels.
        max_megapixels: largest size, in millions of pixels.
        name: of that limit, for messages.

    Raises:
        NotAnImage: for any other content, including PostScript.
        ImageTooLarge: naming the limit.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    file.seek(0)
    found = image_format(head)
    if found is None:
        raise NotAnImage(_rejection(head))
    limit = int(max_megapixels * 1e6)
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    try:
        image = _opened(file, found)
    except SyntaxError as error:
        raise NotAnImage(f"its {found} header is damaged ({error})") from error
    check_pixels(image.width, image.height, max_megapixels=max_megapixels, name=name)
    if found == "TIFF" and _is_camera_raw(image):
        raise NotAnImage("a camera's raw file; develop it to TIFF, PNG or JPEG")
    return image


def check_pixels(
    width: int, height: int, *, max_megapixels: float, name: str, channels: int = 1
) -> None:
    """Raise ImageTooLarge for more pixels, or values of four channels each, than a bound that the user calls `name`."""
    limit = int(max_megapixels * 1e6)
    if width * height <= limit < width * height * channels / 4:
        raise ImageTooLarge(
            f"{width} x {height} pixels of {channels:,} channels hold more than {name}={max_megapixels:g} in color"
        )
    if width * height > limit:
        raise ImageTooLarge(
            f"{width} x {height} pixels are {width * height / 1e6:,.0f} megapixels, more than {name}={max_megapixels:g}"
        )


def image_format(head: bytes) -> str | None:
    """Name in FORMATS of a file that begins with `head` (HEAD_BYTES of it); None for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")) and head[8:10] != b"CR":
        return "TIFF"  # "CR" marks a Canon's raw file
    if head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return "JPEG 2000"
    if head.startswith(b"\x93NUMPY"):
        return "NumPy"
    if head[4:8] == b"ftyp":
        return _iso_media_format(head)
    return None


def regular_file(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; opening pipes, sockets or devices could block or have effects.

    Raises:
        OSError: also when it is not a regular file.
    """
    check_regular(path)
    return open(path, "rb")


def check_regular(path: str | Path) -> None:
    """Raise OSError unless the path is a regular file."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")


def _iso_media_format(head: bytes) -> str | None:
    """AVIF or HEIC by the brands of the `ftyp` box (ISO/IEC 14496-12, 4.3)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None


def _opened(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    if name == "HEIC":
        try:
            from pillow_heif import HeifImageFile
        except ImportError as error:
            raise NotAnImage(
                "HEIC needs the extra heic: pip install 'gan-laboratory[heic]'"
            ) from error
        return HeifImageFile(file)
    if name == "NumPy":
        raise NotAnImage(
            "a NumPy array; data sets may be .npy, single images must be PNG, JPEG and the like"
        )
    plugin = _PLUGINS.get(name, name)
    if plugin not in Image.OPEN:
        Image.init()
    if plugin not in Image.OPEN:
        raise NotAnImage(f"this Pillow was built without {name}")
    # not Image.open, which has its own size limit
    factory, _ = Image.OPEN[plugin]
    try:
        return factory(file, "")
    except (IndexError, TypeError, struct.error) as error:
        raise SyntaxError(str(error)) from error


def _is_camera_raw(image: Image.Image) -> bool:
    """Whether a TIFF's first image is only the preview of a raw photograph (DNG, NEF, ARW, ...)."""
    tags = getattr(image, "tag_v2", {})
    return _DNG_VERSION in tags or bool(tags.get(_NEW_SUBFILE_TYPE, 0) & 1)


def _rejection(head: bytes) -> str:
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "PostScript, which is not decoded; save it as PNG"
    return "not an image, or its beginning is damaged"
