"""A cache of tensors that are expensive to compute."""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock
from torch import Tensor

from gan_lab.config import cache_dir
from gan_lab.console import warn
from gan_lab.errors import InputError
from gan_lab.run import replacing

_REMEDY = "the environment variable GAN_LAB_CACHE names another folder"


def cached_tensors(name: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Load tensors from the cache, or build and store them.

    One process builds, others that need the same entry wait for it. Damaged entries are rebuilt, and a cache that
    cannot be written only costs time, both with a warning.

    Args:
        name: file name of the entry; holds a hash of everything that the tensors depend on.
        build: computes them, on the CPU.

    Returns:
        The tensors, on the CPU.
    """
    try:
        path = cache_dir() / name
    except OSError as error:
        warn(f"no cache: {error}; {_REMEDY}")
        return build()
    with locked(path):
        tensors = read_entry(path)
        if tensors is None:
            tensors = build()
            write_entry(path, tensors)
    return tensors


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of tensors on the CPU, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock an entry against other processes, if the folder is writable."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire()
    except OSError:  # not writable: write_entry will warn
        yield
        return
    try:
        yield
    finally:
        lock.release()


def read_entry(path: Path) -> dict[str, Tensor] | None:
    """Read an entry; None if missing, or, with a warning, damaged."""
    if not path.is_file():
        return None
    try:
        entry = torch.load(path, map_location="cpu", weights_only=True)
        tensors: dict[str, Tensor] = entry["tensors"]
        if tensors_sha256(tensors) == entry["sha256"]:
            return tensors
        reason = "its content does not match its checksum"
    except Exception as error:  # a damaged file may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    warn(f"cache entry {path} cannot be used ({reason}); it is computed again")
    return None


def write_entry(path: Path, tensors: dict[str, Tensor]) -> bool:
    """Write an entry atomically; return whether it worked, with a warning if not."""
    entry = {"sha256": tensors_sha256(tensors), "tensors": tensors}
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(entry, file)
    except InputError as error:
        warn(f"{error}; the next run computes it again, and {_REMEDY}")
        return False
    return True


# Chunks of features, which survive a kill.

_ABANDONED_S = 14 * 24 * 3600


class ChunkStore(Protocol):
    """Stores chunks by name."""

    def has(self, name: str) -> bool:
        """Whether a chunk exists; it may still be damaged."""
        ...

    def get(self, name: str) -> Tensor | None:
        """Return a chunk; None if missing or damaged."""
        ...

    def put(self, name: str, values: Tensor) -> None:
        """Store a chunk."""
        ...

    def remove(self, name: str) -> None:
        """Delete a chunk, if it is there."""
        ...

    def clear(self) -> None:
        """Delete all chunks."""
        ...


class MemoryChunks:
    """Stores nothing: every chunk is used once, in order."""

    def has(self, name: str) -> bool:
        return False

    def get(self, name: str) -> Tensor | None:
        return None

    def put(self, name: str, values: Tensor) -> None:
        pass

    def remove(self, name: str) -> None:
        pass

    def clear(self) -> None:
        pass


class FolderChunks:
    """A file for each chunk, written atomically with a checksum.

    A folder that cannot be written only costs time, with one warning.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writable = True

    def remove_abandoned(self) -> None:
        """Delete sibling folders with the same prefix that have not changed for two weeks."""
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
            warn(f"features cannot be stored ({error}), so an interrupted evaluation starts again")
            return
        self._writable = write_entry(self._path(name), {"values": values})

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.pt"
