"""NumPy's `.npz` files, read without trusting their headers, and a cache of slow arrays in such files."""

import math
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gan_lab.config import cache_dir
from gan_lab.console import warn
from gan_lab.data.decoding import check_regular
from gan_lab.errors import InputError
from gan_lab.run import replacing

MAX_ROWS = 100_000_000

MOST_PACKED = 1032  # deflate's largest ratio, https://zlib.net/zlib_tech.html

# raised for truncated files and files of another format
READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type of an array, and leave its file where the values begin.

    Raises:
        ValueError: for a format that is not known, and for one that does not lie row by row.
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
        raise ValueError("its values lie in Fortran's order")
    if dtype.hasobject:
        raise ValueError("it holds objects")
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
    except READ_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no whole .npz ({error}); copy or make it again") from error


# The cache


Arrays = dict[str, NDArray]


def kept(kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
    """Arrays from the cache, or from `make`, which one process of a machine calls while the others wait for it.

    Where the cache cannot be written there is a warning, and every start calls `make` again.
    """
    with ExitStack() as held:
        try:
            path = cache_dir() / kind / f"{key}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(f"{path}.lock"))
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
        f"what was found out about the images cannot be kept ({error}), so every start finds it out again; "
        f"set GAN_LAB_CACHE to a folder that can be written"
    )


def _load(path: Path) -> Arrays | None:
    try:
        return read_arrays(path)
    except InputError:
        return None  # not there, or cut short: it is made again


def _save(path: Path, arrays: Arrays) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
