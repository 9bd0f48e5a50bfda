"""A cache of arrays that are slow to compute."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gan_lab.config import cache_dir
from gan_lab.console import warn
from gan_lab.data.npz import read_arrays
from gan_lab.errors import InputError
from gan_lab.run import replacing

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
