"""Features that are being extracted, in pieces that outlive a kill."""

import shutil
import time
from pathlib import Path
from typing import Protocol

from torch import Tensor

from gan_lab.console import warn
from gan_lab.metrics.cache import read_entry, write_entry

_ABANDONED_S = 14 * 24 * 3600


class ChunkStore(Protocol):
    """Keeps pieces by name."""

    def has(self, name: str) -> bool:
        """Whether a piece is there; it may still turn out to be damaged."""
        ...

    def get(self, name: str) -> Tensor | None:
        """Return a piece; None where it is not there or damaged."""
        ...

    def put(self, name: str, values: Tensor) -> None:
        """Keep a piece."""
        ...

    def clear(self) -> None:
        """Forget all pieces."""
        ...


class MemoryChunks:
    """Keeps nothing: every piece is used once, in order."""

    def has(self, name: str) -> bool:
        return False

    def get(self, name: str) -> Tensor | None:
        return None

    def put(self, name: str, values: Tensor) -> None:
        pass

    def clear(self) -> None:
        pass


class FolderChunks:
    """A file for each piece, written whole or not at all, with a checksum.

    A folder that cannot be written to costs time only, and a warning says so, once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writable = True

    def remove_abandoned(self) -> None:
        """Delete other folders beside this one, of the same prefix, that nobody has written to for two weeks."""
        prefix, _, _ = self._folder.name.partition("-")
        for folder in self._folder.parent.glob(f"{prefix}-*"):
            age = time.time() - folder.stat().st_mtime
            if folder != self._folder and folder.is_dir() and age > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def get(self, name: str) -> Tensor | None:
        entry = read_entry(self._path(name))
        return None if entry is None else entry.get("values")

    def put(self, name: str, values: Tensor) -> None:
        if not self._writable:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._writable = False
            warn(f"features cannot be kept ({error}), so an interrupted evaluation begins anew")
            return
        self._writable = write_entry(self._path(name), {"values": values})

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pt"
