"""NumPy's `.npz` files, read without trusting their headers, and a cache of slow arrays in such files."""

import math
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gan_lab.config import cache_dir
from gan_lab.console import warn
from gan_lab.data.decoding import DECODE_ERRORS, check_regular
from gan_lab.errors import InputError
from gan_lab.run import replacing

MAX_ROWS = 100_000_000

MEMBER_HEADER = 30  # bytes of a zip's member before its name, APPNOTE.TXT 4.3.7
MOST_PACKED = 1032  # deflate's largest ratio, https://zlib.net/zlib_tech.html


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type of an array, and leave its file where the values begin.

    Raises:
        ValueError: for unknown formats, column-major arrays, arrays of objects, and negative sizes.
        SyntaxError: or another of DECODE_ERRORS for a damaged header.
    """
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"format {version} of numpy is not known")
    shape, fortran, dtype = read(file)
    if fortran and len(shape) > 1:
        raise ValueError("its values are in Fortran order")
    if dtype.hasobject:
        raise ValueError("it holds objects")
    if any(side < 0 for side in shape):
        raise ValueError(f"it claims shape {list(shape)}")
    return shape, dtype


def check_size(
    path: Path, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Check that a file can hold an array, before memory is taken for it.

    Raises:
        InputError: naming what it claims.
    """
    claimed = math.prod(shape) * dtype.itemsize
    packed = min(member.compress_size, path.stat().st_size)
    most = packed * (1 if member.compress_type == zipfile.ZIP_STORED else MOST_PACKED)
    if claimed > min(member.file_size, most) or (shape and shape[0] > MAX_ROWS):
        raise InputError(
            f"{path}: {member.filename} claims shape {list(shape)}, {claimed:,} bytes, in a file of {packed:,}; "
            f"copy or make it again (at most {MAX_ROWS:,} rows)"
        )


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file.

    Raises:
        InputError: when it is damaged, holds objects, or claims more than its bytes can hold.
    """
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as file:
                    check_size(path, member, *read_header(file))
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except DECODE_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not a complete .npz ({error}); copy or make it again"
        ) from error


def mapped(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Map an uncompressed array of numbers of an archive into memory.

    Raises:
        ValueError: when it is something else; others of DECODE_ERRORS when it is damaged.
    """
    with archive.open(member) as opened:
        shape, dtype = read_header(opened)
        begin = opened.tell()
    check_size(path, member, shape, dtype)
    is_packed = member.compress_type != zipfile.ZIP_STORED
    if is_packed or dtype.kind not in "iuf" or not shape or not np.prod(shape):
        raise ValueError(f"{member.filename} is packed, empty, or of {dtype}")
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(MEMBER_HEADER)
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    offset = member.header_offset + MEMBER_HEADER + names + begin
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


# The cache


Arrays = dict[str, NDArray]


def cached_arrays(kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """Load arrays from the cache, or call `make`, in one process per machine while the others wait.

    If the cache cannot be written, there is a warning, and every start calls `make` again.
    """
    with ExitStack() as stack:
        try:
            path = cache_dir() / kind / f"{key}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))
        except OSError as error:
            _warn(error)
            return make()
        arrays = _load(path)
        if arrays is None:
            arrays = make()
            try:
                _save(path, arrays)
            except InputError as error:
                _warn(error)
        return arrays


def _warn(error: OSError | InputError) -> None:
    warn(
        f"results about the data cannot be cached ({error}), so every start computes them again; "
        f"set GAN_LAB_CACHE to a writable folder"
    )


def _load(path: Path) -> Arrays | None:
    try:
        return read_arrays(path)
    except InputError:
        return None  # missing or truncated: compute it again


def _save(path: Path, arrays: Arrays) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
