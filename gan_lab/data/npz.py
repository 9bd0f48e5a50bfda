"""Arrays of NumPy's `.npz` files, which may be anybody's: what a header claims is checked before memory is taken."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.decoding import DECODE_ERRORS, check_regular
from gan_lab.errors import InputError

MAX_ROWS = 100_000_000

MOST_PACKED = 1032  # deflate's largest ratio, https://zlib.net/zlib_tech.html


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and type of an array, and leave its file where the values begin.

    Raises:
        ValueError: for a format that is not known, for one that does not lie row by row, and for no shape at all.
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
        raise ValueError("its values lie in Fortran's order")
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
        raise InputError(f"{path} is no whole .npz ({error}); copy or make it again") from error
