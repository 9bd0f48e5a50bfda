"""What a path means as images: a folder, a zip or an .npz."""

import zipfile
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.base import digest
from gan_lab.data.decoding import MAX_MEGAPIXELS, check_regular
from gan_lab.data.image_folder import ImageFolder
from gan_lab.data.metadata import MAX_LABEL, AmbiguousClasses
from gan_lab.data.npz import READ_ERRORS, check_size, read_header
from gan_lab.data.scan import scan
from gan_lab.data.source import Source
from gan_lab.data.transform import ImageSize
from gan_lab.data.zip import Zip
from gan_lab.errors import InputError
from gan_lab.metrics.images import DatasetImages, ImageSource


def open_files(
    path: Path,
    *,
    num: int | None = None,
    image_size: ImageSize = None,
    channels: int | None = None,
    skip_unreadable: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> ImageSource:
    """Open images of one size.

    Args:
        path: a folder, whose sub-folders are classes; a zip; an .npz.
        num: images at most, a random choice, always the same one; None takes all.
        image_size: one number or [H, W], to which all are cropped and resized; None for the one size that they have.
        channels: 1, 3, or None for those that all files have.
        skip_unreadable: whether to leave out damaged images.
        max_megapixels: larger images count as damaged.

    Raises:
        InputError: for a path that is none of these, damaged images, mixed sizes or channels.
    """
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a run, a folder or zip of images, or an .npz"
        )
    if path.suffix == ".npz":
        return NpzImages(path, num=num)
    if not path.is_dir() and path.suffix != ".zip":
        raise InputError(
            f"{path} is no folder, .zip, .npz or .ckpt; give a run, a folder or zip of images, or an .npz"
        )
    try:
        opened = partial(
            ImageFolder if path.is_dir() else Zip,
            split="train",
            root=path,
            image_size=image_size,
            channels=channels,
            skip_unreadable=skip_unreadable,
            max_megapixels=max_megapixels,
        )
        try:
            data = opened()
        except AmbiguousClasses:
            data = opened(classes=False)  # folders are classes only where nothing lies beside them
        if channels is None:
            _check_alike(data.source, path, max_megapixels)
        return DatasetImages(data, num=num, name=str(path))
    except InputError as error:
        # the data sets speak of their own keys
        message = str(error).replace("data.root=", "").replace("data.", "files.")
        raise InputError(message) from error


def _check_alike(source: Source, path: Path, max_megapixels: float) -> None:
    kinds, counts = np.unique(
        scan(source, max_megapixels=max_megapixels).shapes[:, 2], return_counts=True
    )
    found = {int(kind): int(count) for kind, count in zip(kinds, counts, strict=True) if kind}
    if len(found) > 1:
        modes = ", ".join(f"{count:,} with {kind}" for kind, count in found.items())
        raise InputError(
            f"the images of {path} have different channels ({modes}); set data.channels=3 to make them all RGB, "
            "or data.channels=1"
        )


# Images in an .npz, as samples are often published: `arr_0` or `images`, uint8 [N, H, W, C].

_IMAGES = ("images", "arr_0", "samples")

_LABELS = ("labels", "arr_1")


class NpzImages(ImageSource):
    """Images of an .npz, read piece by piece: the file may be larger than memory.

    Args:
        path: of the file.
        num: how many at most; fewer than there are gives a random choice, always the same one. None takes all.

    Raises:
        InputError: for a file that holds no such images.
    """

    in_memory = False

    def __init__(self, path: Path, *, num: int | None = None) -> None:
        self._path = path
        try:
            check_regular(path)
            self._archive = zipfile.ZipFile(path)
            members = {
                info.filename.removesuffix(".npy"): info for info in self._archive.infolist()
            }
            self._member = _first(members, _IMAGES)
            if self._member is None:
                raise InputError(
                    f"{path} holds {', '.join(members) or 'nothing'}; images are looked for in {', '.join(_IMAGES)}"
                )
            with self._archive.open(f"{self._member}.npy") as file:
                shape, dtype = read_header(file)
            _check(path, self._member, shape, dtype)
            check_size(path, members[self._member], shape, dtype)
            labels = self._read_labels(_first(members, _LABELS), shape[0])
        except READ_ERRORS as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no whole .npz ({error}); copy or make it again") from error
        self._shape = shape[1:]
        total = shape[0]
        chosen = total if num is None else min(num, total)
        self._rows = np.sort(np.random.default_rng(0).permutation(total)[:chosen])
        self._labels = None if labels is None else labels[self._rows]
        self._file: IO[bytes] | None = None
        self._position = 0
        self.name = str(path)
        self.count = chosen
        self.shape = (self._shape[2], *self._shape[:2])
        if labels is not None and labels.max() > 0:
            self.num_classes = int(labels.max()) + 1
            self.class_names = tuple(map(str, range(self.num_classes)))
        sums = sorted((info.filename, info.CRC, info.file_size) for info in members.values())
        self._fingerprint = digest("npz", *sums, self._rows.tobytes())
        self.description = {
            "images": str(path),
            "count": chosen,
            "of": total,
            "fingerprint": self._fingerprint,
        }

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def read(self, start: int, stop: int) -> Tensor:
        images = np.empty((stop - start, *self._shape), dtype=np.uint8)
        for place, row in enumerate(self._rows[start:stop].tolist()):
            images[place] = self._row(row)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def labels(self, start: int, stop: int) -> Tensor | None:
        if not self.num_classes or self._labels is None:
            return None
        return torch.from_numpy(self._labels[start:stop])

    def _row(self, row: int) -> NDArray[np.uint8]:
        """Image `row` of the array; going back opens the member anew, since what is packed has no places."""
        size = int(np.prod(self._shape))
        if self._file is None or row < self._position:
            self._file = self._archive.open(f"{self._member}.npy")
            read_header(self._file)
            self._position = 0
        for _ in range(row - self._position):
            self._read_exactly(size)
        self._position = row + 1
        return np.frombuffer(self._read_exactly(size), dtype=np.uint8).reshape(self._shape)

    def _read_exactly(self, size: int) -> bytes:
        assert self._file is not None
        data = self._file.read(size)
        if len(data) != size:
            raise InputError(f"{self._path} ends before its images do; copy or make it again")
        return data

    def _read_labels(self, member: str | None, count: int) -> NDArray[np.int64] | None:
        if member is None:
            return None
        with self._archive.open(f"{member}.npy") as file:
            shape, dtype = read_header(file)
        if dtype.kind not in "iufb" or len(shape) not in (1, 2) or shape[0] != count:
            raise InputError(
                f"{self._path}: {member} has shape {shape} and type {dtype}; labels are whole numbers, "
                f"one for each of {count} images"
            )
        check_size(self._path, self._archive.getinfo(f"{member}.npy"), shape, dtype)
        with self._archive.open(f"{member}.npy") as file:
            labels = np.lib.format.read_array(file, allow_pickle=False)
        if labels.ndim == 2:  # one-hot
            labels = labels.argmax(1)
        if not (labels == np.floor(labels)).all() or labels.min() < 0 or labels.max() > MAX_LABEL:
            raise InputError(
                f"{self._path}: {member} has labels from {labels.min()} to {labels.max()}; allowed: whole numbers "
                f"from 0 to {MAX_LABEL:,}"
            )
        return labels.astype(np.int64)


def _first(members: dict[str, zipfile.ZipInfo], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in members), None)


def _check(path: Path, member: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3, 4) or not shape[0]:
        raise InputError(
            f"{path}: {member} has shape {list(shape)} and type {dtype}; expected uint8 [N, H, W, C] with 1, 3 or 4 "
            "channels"
        )
