"""Sources of encoded images: anything that opens the i-th of them."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import digest
from gan_lab.data.decoding import regular_file
from gan_lab.errors import InputError

_STAT_THREADS = 16
_STAT_CHUNK = 1024


class Source(ABC):
    """A numbered list of encoded images. It can be pickled, forked, and read from several threads."""

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
        """Digest of names, sizes and times of change: equal as long as nothing has been touched."""


class FileSource(Source):
    """Files under a folder.

    Args:
        root: the folder.
        names: paths relative to it.
    """

    def __init__(self, *, root: Path, names: Sequence[str]) -> None:
        self._root = root
        self._folder = str(root)
        # fixed-width bytes and no list: touching a list's items copies its pages into every worker
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
            # a dangling link has no status; the check of the images names it
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(self._folder, self.name(index)))
                table[index - start] = status.st_size, status.st_mtime_ns
        return table


def existing_folder(root: str | Path | None, what: str) -> Path:
    """Return `data.root`, checked to be a folder.

    Raises:
        InputError: when it is not given, does not exist or is no folder.
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
