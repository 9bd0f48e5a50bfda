"""LSUN as published: an LMDB folder for each category and split, encoded images as the values.

Yu et al. 2015, https://arxiv.org/abs/1506.03365; the folders as https://github.com/fyu/lsun exports them.
"""

import functools
import io
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gan_lab.console import say
from gan_lab.data.base import MissingSplit, check_split, digest
from gan_lab.data.cache import Arrays, cached_arrays
from gan_lab.data.decoding import MAX_MEGAPIXELS
from gan_lab.data.image_files import EncodedImages
from gan_lab.data.listing import format_names
from gan_lab.data.source import Source, existing_folder
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError, import_extra

_LAYOUT = "the folder with bedroom_train_lmdb, bedroom_val_lmdb or those of other categories"
_FOLDER = re.compile(r"(?P<category>.+)_(?P<split>train|val)_lmdb")
_REPORTED_FROM_BYTES = 1 << 30


class LSUN(EncodedImages):
    """Categories of LSUN, each a class.

    Args:
        split: "train" (`*_train_lmdb`) or "val" (`*_val_lmdb`).
        root: the folder that holds the LMDB folders, or one of them.
        categories: in the order of their labels; None for all, sorted.
        image_size: one number, [H, W], or None for the one size that all images have (LSUN's differ).
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for those of most images.
        flip: append the mirror images.
        skip_unreadable: skip files that cannot be read.
        max_megapixels: larger images count as unreadable.

    Raises:
        InputError: for a missing category, a folder that is not an LMDB, or without the extra `lmdb`.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        categories: Sequence[str] | None = None,
        image_size: ImageSize = 64,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = 3,
        flip: bool = False,
        skip_unreadable: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        check_split(split)
        folder = existing_folder(root, _LAYOUT)
        if (match := _FOLDER.fullmatch(folder.resolve().name)) and (folder / "data.mdb").exists():
            folder, categories = folder.resolve().parent, [match["category"]]
        class_names = _categories(folder, categories)
        present = [
            (label, folder / f"{name}_{split}_lmdb")
            for label, name in enumerate(class_names)
            if (folder / f"{name}_{split}_lmdb").is_dir()
        ]
        if not present:
            raise MissingSplit(
                f"data.root={folder} has no *_{split}_lmdb folder of {format_names(class_names)}"
            )
        source = LmdbSource(folders=[path for _, path in present])
        super().__init__(
            source=source,
            labels=np.repeat([label for label, _ in present], source.counts).astype(np.int64),
            class_names=class_names,
            members=np.ones(len(source), dtype=bool),
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
            skip_unreadable=skip_unreadable,
            max_megapixels=max_megapixels,
        )


class LmdbSource(Source):
    """The values of some LMDB folders, in the order of their keys.

    Raises:
        InputError: when one is not an LMDB or is empty.
    """

    def __init__(self, *, folders: Sequence[Path]) -> None:
        self._folders = [folder.resolve() for folder in folders]
        keys = [_keys(folder) for folder in self._folders]
        self._keys = [blob.tobytes() for blob, _ in keys]
        self._ends = [ends for _, ends in keys]
        self.counts = [len(ends) - 1 for ends in self._ends]
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        folder, key = self._locate(index)
        return f"{folder.name}/{key.decode(errors='replace')}"

    def open(self, index: int) -> BinaryIO:
        folder, key = self._locate(index)
        value = _environment(folder).read(key)
        if value is None:
            raise OSError(f"the key {key!r} is no longer in {folder}")
        return io.BytesIO(value)

    @property
    def listing(self) -> str:
        return digest(*[_stamp(folder) for folder in self._folders])

    def _locate(self, index: int) -> tuple[Path, bytes]:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = index - int(self._starts[which])
        start, end = self._ends[which][row : row + 2]
        return self._folders[which], self._keys[which][start:end]


class _Environment:
    """One LMDB of this process, opened at the first read and again after a fork.

    LMDB allows to open an environment only once per process, and not across a fork.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pid = -1
        self._opened: Any = None

    def read(self, key: bytes) -> bytes | None:
        with self._open().begin() as transaction:
            value: bytes | None = transaction.get(key)
        return value

    def keys(self) -> list[bytes]:
        with self._open().begin() as transaction, transaction.cursor() as cursor:
            return list(cursor.iternext(keys=True, values=False))

    def _open(self) -> Any:
        with self._lock:
            if self._pid != os.getpid():
                if self._opened is not None:
                    self._opened.close()
                self._opened = _lmdb().open(
                    str(self._folder), readonly=True, lock=False, create=False, readahead=False
                )
                self._pid = os.getpid()
            return self._opened


@functools.cache
def _environment(folder: Path) -> _Environment:
    return _Environment(folder)


def _lmdb() -> Any:
    return import_extra("lmdb", extra="lmdb", what="data=lsun")


def _categories(folder: Path, wanted: Sequence[str] | None) -> list[str]:
    matches = [_FOLDER.fullmatch(path.name) for path in folder.iterdir() if path.is_dir()]
    there = sorted({match["category"] for match in matches if match})
    if not there:
        raise InputError(
            f"data.root={folder} has no *_train_lmdb folder; set data.root=PATH to {_LAYOUT}"
        )
    if wanted is None:
        return there
    absent = [name for name in wanted if name not in there]
    if absent or not wanted:
        raise InputError(
            f"data.categories={list(wanted)}: {format_names(absent) or 'none named'}, but data.root={folder} has "
            f"{', '.join(there)}"
        )
    return list(wanted)


def _stamp(folder: Path) -> tuple[str, int, int]:
    status = (folder / "data.mdb").stat()
    return str(folder), status.st_size, status.st_mtime_ns


def _keys(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All keys of an LMDB concatenated, and the N + 1 offsets where they start and end.

    Listing them reads much of the file, so the result is cached.
    """
    if not (folder / "data.mdb").is_file():
        raise InputError(f"{folder} is not an LMDB folder: it has no data.mdb")
    arrays = cached_arrays("lmdb", digest(_stamp(folder)), lambda: _list_keys(folder))
    return arrays["blob"], arrays["ends"]


def _list_keys(folder: Path) -> Arrays:
    lmdb = _lmdb()
    if _stamp(folder)[1] > _REPORTED_FROM_BYTES:
        say(f"listing the keys of {folder.name} (once; the result is cached) ...")
    try:
        keys = _environment(folder).keys()
    except lmdb.Error as error:
        raise InputError(
            f"{folder} is not an LMDB that can be read: {error}; copy it again"
        ) from error
    if not keys:
        raise InputError(f"{folder} is an empty LMDB; copy it again")
    return {
        "blob": np.frombuffer(b"".join(keys), dtype=np.uint8),
        "ends": np.cumsum([0, *map(len, keys)], dtype=np.int64),
    }
