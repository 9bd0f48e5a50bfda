"""Which files of a folder or zip are images, and why others are not."""

import functools
import os
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from gan_lab.console import warn
from gan_lab.data.decoding import DECODE_ERRORS, HEAD_BYTES, image_format, regular_file
from gan_lab.data.tables import TABLES
from gan_lab.errors import InputError

# files with these endings count as images; others are checked by their first bytes
IMAGE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".jp2", ".j2k", ".jpf", ".jpx", ".avif", ".npy",
)  # fmt: skip
PACKED_ENDING = ".packed"  # of what a representation has packed, beside the image of the same name
# labels and texts, expected beside images
SOURCE_ENDING = ".source"  # of the source of a pair, beside the sample of the same name
_SIDE_ENDINGS = (
    *(".csv", ".tsv", ".json", ".jsonl", ".txt", ".md", ".yaml", ".yml"),
    *(PACKED_ENDING, SOURCE_ENDING),
)
_SIDE_NAMES = ("readme", "license", "copying")
_NOT_REGULAR = "not a regular file"
_THREADS = 16
_CHUNK = 256
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a folder or zip, as sorted relative paths; hidden ones are in none of the lists.

    Attributes:
        images: or other samples; a damaged one is an error.
        side_files: labels and texts.
        passed_over: (name, reason) of everything else.
    """

    images: list[str]
    side_files: list[str]
    passed_over: list[tuple[str, str]]

    def report(self, root: Path) -> None:
        """Report the skipped files in one line, once per process."""
        if self.passed_over:
            _warn_once(f"{root}: passed over {_by_reason(self.passed_over)}")


def list_folder(folder: Path, *, endings: tuple[str, ...] | None = None) -> Listing:
    """List the files below `folder`; links are followed, only regular files are opened.

    Args:
        folder: where.
        endings: of samples; None for images, which are also recognized by their first bytes.

    Raises:
        OSError: when `folder` itself cannot be listed.
    """
    files, passed_over = _walk(folder)
    if endings is not None:
        return _listing_by_ending(files, passed_over, endings)
    return _listing(files, passed_over, lambda name: _head(regular_file(folder / name)))


def list_matching(folder: Path, matches: Callable[[str], bool]) -> Listing:
    """List the files below `folder` whose names match, in place of images, and metadata tables.

    Raises:
        InputError: when `folder` itself cannot be listed.
    """
    try:
        files, passed_over = _walk(folder)
    except OSError as error:
        raise InputError(f"data.root={folder} cannot be read: {error.strerror}") from error
    tables = [name for name in files if name.rpartition("/")[2].lower() in TABLES]
    rest = [name for name in files if name not in set(tables)]
    return Listing(
        images=[name for name in rest if matches(name)],
        side_files=tables,
        passed_over=[
            *passed_over,
            *((name, "of another name") for name in rest if not matches(name)),
        ],
    )


def list_zip(archive: zipfile.ZipFile, *, endings: tuple[str, ...] | None = None) -> Listing:
    """List the members of a zip as `list_folder` lists a folder."""
    names = sorted({name for name in archive.namelist() if not name.endswith("/")})
    shown = [name for name in names if not any(map(_is_hidden, name.split("/")))]
    if endings is not None:
        return _listing_by_ending(shown, [], endings)
    return _listing(shown, [], lambda name: _head(archive.open(name)))


def _listing_by_ending(
    files: list[str], passed_over: list[tuple[str, str]], endings: tuple[str, ...]
) -> Listing:
    samples = [name for name in files if name.lower().endswith(endings)]
    side_files = [name for name in files if _is_side_file(name)]
    unknown = sorted(set(files).difference(samples, side_files))
    others = [(name, "of another kind") for name in unknown]
    return Listing(
        images=samples, side_files=side_files, passed_over=sorted([*passed_over, *others])
    )


def _listing(
    files: list[str], passed_over: list[tuple[str, str]], head: Callable[[str], bytes]
) -> Listing:
    images = [name for name in files if name.lower().endswith(IMAGE_ENDINGS)]
    side_files = [name for name in files if _is_side_file(name)]
    unknown = sorted(set(files).difference(images, side_files))
    chunks = [unknown[start : start + _CHUNK] for start in range(0, len(unknown), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = pool.map(lambda chunk: [_why_not(name, head) for name in chunk], chunks)
        checked = list(zip(unknown, (reason for some in reasons for reason in some), strict=True))
    return Listing(
        images=sorted([*images, *(name for name, reason in checked if reason is None)]),
        side_files=side_files,
        passed_over=sorted(
            [*passed_over, *((name, why) for name, why in checked if why is not None)]
        ),
    )


def _walk(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Sorted files below a folder, and (name, reason) of pipes, devices and folders that cannot be read."""
    files: list[str] = []
    passed_over: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    left = [""]
    while left:
        prefix = left.pop()
        where = os.path.join(folder, prefix)
        try:
            status = os.stat(where)
            if (status.st_dev, status.st_ino) in seen:
                continue  # a link that leads back
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(where), key=lambda entry: entry.name)
        except OSError as error:
            if not prefix:
                raise
            passed_over.append((prefix, error.strerror or str(error)))
            continue
        for entry in entries:
            name = prefix + entry.name
            if _is_hidden(entry.name):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                is_folder, is_file = False, True
            if is_folder:
                left.append(f"{name}/")
            elif is_file or not os.path.exists(entry.path):
                files.append(name)  # the scan reports dangling links
            else:
                passed_over.append((name, _NOT_REGULAR))
    return sorted(files), passed_over


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX")) or name in ("Thumbs.db", "desktop.ini")


def _is_side_file(name: str) -> bool:
    name = name.rpartition("/")[2].lower()
    return name.endswith(_SIDE_ENDINGS) or name in _SIDE_NAMES


def _head(file: IO[bytes]) -> bytes:
    with file:
        return file.read(HEAD_BYTES)


def _why_not(name: str, head: Callable[[str], bytes]) -> str | None:
    """Why a file of unknown ending is skipped; None for an image."""
    try:
        found = image_format(head(name))
    except DECODE_ERRORS as error:
        return getattr(error, "strerror", None) or str(error)
    if found == "HEIC" and find_spec("pillow_heif") is None:
        return "HEIC, which needs pip install 'gan-laboratory[heic]'"
    return None if found else "not an image"


def _by_reason(passed_over: Iterable[tuple[str, str]]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in passed_over:
        by_reason.setdefault(reason, []).append(name)
    parts = []
    for reason, names in by_reason.items():
        more = ", ..." if len(names) > _SHOWN else ""
        files = "1 file" if len(names) == 1 else f"{len(names):,} files"
        parts.append(f"{files}: {reason} ({', '.join(names[:_SHOWN])}{more})")
    return "; ".join(parts)


def format_names(names: Iterable[str], limit: int = 10) -> str:
    """Format names for a message: the first ones, and how many more."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@functools.cache
def _warn_once(line: str) -> None:
    warn(line)
