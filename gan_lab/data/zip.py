"""A zip of PNG or JPEG files with `dataset.json`: the layout that NVIDIA's dataset tools write, and prepare-data.

`dataset.json` is {"labels": [["00000/img00000000.png", 3], ...]} or {"labels": null}. prepare-data adds
"class_names" and "val", the names of the images to validate on; readers that do not know them lose nothing.
"""

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import check_split, digest, members_by_name
from gan_lab.data.encoded import EncodedImages
from gan_lab.data.source import Source, existing_path, is_image_name, listed
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError

METADATA = "dataset.json"


class Zip(EncodedImages):
    """The pictures of one zip; labels, class names and validation images from its `dataset.json`, where it has them.

    Args:
        split: "train" or "val".
        root: the zip.
        val_fraction: part of the images to validate on, by a hash of their names; for zips that do not say.
        image_size: one number, [H, W], or None for the one size that all images have.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for those of most images.
        flip: append the mirror images.
        skip_unreadable: leave out what cannot be read.

    Raises:
        InputError: for what is no zip, images without a label, labels without an image, unreadable images.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        val_fraction: float = 0.0,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = None,
        flip: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        path = existing_path(root, "a zip of pictures")
        source = ZipSource(path=path)
        names = [source.name(index) for index in range(len(source))]
        metadata = source.metadata
        labels, class_names = _labels(path, names, metadata)
        members = _members(path, names, metadata.get("val"), split, val_fraction)
        super().__init__(
            source=source,
            labels=labels,
            class_names=class_names,
            members=members,
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
            skip_unreadable=skip_unreadable,
        )


class ZipSource(Source):
    """The pictures in a zip, in the order of their names.

    Attributes:
        metadata: what `dataset.json` holds; empty without it.

    Raises:
        InputError: for a file that is no zip, holds no pictures, or has a damaged `dataset.json`.
    """

    def __init__(self, *, path: Path) -> None:
        self._path = path.resolve()
        self._pid = -1
        self._archive: zipfile.ZipFile | None = None
        if not path.is_file():
            raise InputError(
                f"data.root={path} is a folder; for a folder of pictures use data=image_folder"
            )
        try:
            entries = self._open_archive().namelist()
        except zipfile.BadZipFile as error:
            raise InputError(
                f"data.root={path} is not a whole zip ({error}); copy or make it again"
            ) from error
        names = sorted(name for name in entries if is_image_name(name) and "__MACOSX/" not in name)
        if not names:
            raise InputError(
                f"data.root={path} holds no images (but {listed(entries, limit=3) or 'nothing'})"
            )
        self._names = np.array([name.encode() for name in names], dtype=np.bytes_)
        self.metadata: dict[str, Any] = self._metadata() if METADATA in entries else {}

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return bytes(self._names[index]).decode()

    def open(self, index: int) -> BinaryIO:
        try:
            return io.BytesIO(self._open_archive().read(self.name(index)))
        except RuntimeError as error:
            raise OSError(str(error)) from error  # it is encrypted

    @property
    def listing(self) -> str:
        status = self._path.stat()
        return digest(str(self._path), status.st_size, status.st_mtime_ns)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None, "_pid": -1}

    def _open_archive(self) -> zipfile.ZipFile:
        """The archive of this process: two that share a file after a fork would move each other's position."""
        if self._archive is None or self._pid != os.getpid():
            self._archive, self._pid = zipfile.ZipFile(self._path), os.getpid()
        return self._archive

    def _metadata(self) -> dict[str, Any]:
        try:
            metadata = json.loads(self._open_archive().read(METADATA))
        except (ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{self._path}: {METADATA} is damaged ({error}); make the zip again"
            ) from error
        if not isinstance(metadata, dict):
            raise InputError(f'{self._path}: {METADATA} must hold an object with "labels"')
        return metadata


def _members(
    path: Path, names: list[str], val: list[str] | None, split: str, val_fraction: float
) -> NDArray[np.bool_]:
    """Mask [N] of the images of a split: as `dataset.json` says, else by the names."""
    check_split(split)
    if val is None:
        return members_by_name(names, split=split, val_fraction=val_fraction)
    if val_fraction:
        raise InputError(
            f"data.val_fraction={val_fraction}, but {path} says itself which images validate; set data.val_fraction=0"
        )
    return np.isin(names, val) == (split == "val")


def _labels(
    path: Path, names: list[str], metadata: dict[str, Any]
) -> tuple[NDArray[np.int64], list[str]]:
    """(labels [N], class names) of the images `names`."""
    pairs = metadata.get("labels")
    if pairs is None:
        return np.zeros(len(names), dtype=np.int64), ["all"]
    try:
        by_name = {str(name).replace("\\", "/"): label for name, label in pairs}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: the labels of {METADATA} must be pairs of a name and a number"
        ) from error
    wrong = [name for name, label in by_name.items() if type(label) is not int or label < 0]
    if wrong:
        raise InputError(
            f"{path}: labels must be whole numbers from 0; they are not for {listed(wrong, limit=3)}"
        )
    bare = [name for name in names if name not in by_name]
    if bare:
        raise InputError(
            f"{path}: {METADATA} has no label for {len(bare):,} images: {listed(bare)}"
        )
    absent = sorted(by_name.keys() - set(names))
    if absent:
        raise InputError(
            f"{path}: {METADATA} has labels for {len(absent):,} files that are missing: {listed(absent)}"
        )
    labels = np.array([by_name[name] for name in names], dtype=np.int64)
    return labels, _class_names(path, int(labels.max()) + 1, metadata.get("class_names"))


def _class_names(path: Path, num_classes: int, given: list[str] | None) -> list[str]:
    if given is None:
        return [str(label) for label in range(num_classes)]
    if len(given) < num_classes:
        raise InputError(
            f"{path}: {METADATA} names {len(given)} classes and has labels up to {num_classes - 1}"
        )
    return [str(name) for name in given]
