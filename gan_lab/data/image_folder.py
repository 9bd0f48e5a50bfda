"""A folder or zip of images, with classes from a table, from sub-folders, or none."""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.base import digest
from gan_lab.data.cache import MEMBER_HEADER, read_header
from gan_lab.data.decoding import DECODE_ERRORS, FORMATS, MAX_MEGAPIXELS, regular_file
from gan_lab.data.image_files import EncodedImages
from gan_lab.data.listing import PACKED_ENDING, format_names, list_folder, list_zip
from gan_lab.data.metadata import MetadataTable, read_metadata
from gan_lab.data.packing import PACKED_BY, name_beside
from gan_lab.data.source import (
    FileSource,
    Source,
    existing_folder,
    existing_path,
)
from gan_lab.data.splits import grouped, members_by_table
from gan_lab.data.tables import BadTable, read_table
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError

_ENCRYPTED = 1  # flag of a member, APPNOTE.TXT 4.4.4
_LARGEST_MEMBER = (
    2**31
)  # bytes that one sample may have: 300 megapixels in color of 16 bits have fewer


class ImageFolder(EncodedImages):
    """All images in a folder and its sub-folders; hidden files and folders are skipped.

    Classes and splits come from `read_metadata`; test images are not used.

    Args:
        split: "train" or "val".
        root: the folder.
        classes: True makes each sub-folder of `root` a class, False makes one class of everything; None takes the
            classes of a table, or else the sub-folders when there are images in them and none in `root` itself.
        attributes: columns of numbers in its table that are labels in place of classes, or True for all of them; None
            takes them where the table has no classes.
        val_fraction: share of the images for validation, chosen by a hash of their names, if there are no splits.
        image_size: one number, [H, W], or None for the one size that all files have.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for those of most files.
        flip: append the mirror images.
        skip_unreadable: skip files that cannot be read.
        max_megapixels: larger images count as unreadable.
        bits: 8 | 16 | 32 (floating point), or None for those that they have.
        window: of more than 8 bits: "range" | "full" | "percentiles" | [center, width], in levels.
        group_by: images of one group stay on one side of a split; as `grouped` takes it.
        folds: instead of `val_fraction`: number of folds with about equally many groups, one for validation.
        fold: index of the validation fold.

    Raises:
        InputError: for a missing or empty folder, unreadable files, mixed sizes, options out of range.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        classes: bool | None = None,
        attributes: bool | str | Sequence[str] | None = None,
        val_fraction: float = 0.0,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = None,
        flip: bool = False,
        skip_unreadable: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
        bits: int | None = None,
        window: str | Sequence[float] = "range",
        group_by: str | None = None,
        folds: int | None = None,
        fold: int = 0,
    ) -> None:
        path = self._path(root)
        table, source = open_samples(path, "images", classes=classes, group_by=group_by)
        table = grouped(table, group_by, root=path)
        labels, names = table.conditions(attributes, root=path)
        super().__init__(
            source=source,
            labels=labels,
            class_names=table.class_names,
            attributes=names,
            members=members_by_table(
                table, split=split, val_fraction=val_fraction, root=path, folds=folds, fold=fold
            ),
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
            skip_unreadable=skip_unreadable,
            max_megapixels=max_megapixels,
            bits=bits,
            window=window,
            table=table,
        )

    def _path(self, root: str | Path | None) -> Path:
        return existing_folder(root, "a folder of images")


class Zip(ImageFolder):
    """All images in a zip, read as the folder that was packed; `root` is the zip, the other arguments are the same.

    prepare-data and NVIDIA's dataset tools store `dataset.json` in it, {"labels": [["00000/img00000000.png", 3], ...]}
    or {"labels": null}. prepare-data adds the other columns of the metadata table, which other readers ignore.

    Raises:
        InputError: also for a file that is not a zip, and for images without a label or labels without an image.
    """

    def _path(self, root: str | Path | None) -> Path:
        path = existing_path(root, "a zip of images")
        with open_zip(path) as archive:
            is_packed = PACKED_BY in archive.namelist()
        if is_packed:
            try:
                self.packed_by = read_member(path, PACKED_BY).decode(errors="replace")
            except BadTable as error:
                raise InputError(f"data.root={path}: {PACKED_BY} {error}; pack it again") from error
        return path

    def load_packed(self, index: int) -> Tensor:
        assert isinstance(self.source, ZipSource)
        name = name_beside(self.name(index), PACKED_ENDING)
        try:
            file = io.BytesIO(self.source.packed(int(self._items[index])))
            shape, dtype = read_header(file)
            values = np.frombuffer(file.read(), dtype=dtype).reshape(shape)
        except DECODE_ERRORS as error:
            raise InputError(
                f"{name} cannot be read ({error}); pack the data again with prepare-data"
            ) from error
        return torch.from_numpy(values.copy())


class ZipSource(Source):
    """Images in a zip by their byte offsets: zipfile's directory would take 1 GB a process for a million images.

    Args:
        path: of the zip.
        names: of its members.
    """

    def __init__(self, *, path: Path, names: Sequence[str]) -> None:
        self._path = path.resolve()
        self._names = np.array([name.encode() for name in names], dtype=np.bytes_)
        with open_zip(path) as archive:
            self._members = _directory([archive.getinfo(name) for name in names])
            beside = [archive.NameToInfo.get(name_beside(name, PACKED_ENDING)) for name in names]
        self._packed = _directory(beside) if any(beside) else None

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return bytes(self._names[index]).decode()

    def open(self, index: int) -> BinaryIO:
        return io.BytesIO(self._read(self._members[index], self.name(index)))

    def packed(self, index: int) -> bytes:
        """Return the packed representation of an image.

        Raises:
            OSError: when it cannot be read.
        """
        if self._packed is None or self._packed[index, 0] < 0:
            raise OSError("it is missing")
        return self._read(self._packed[index], name_beside(self.name(index), PACKED_ENDING))

    def _read(self, entry: NDArray[np.int64], name: str) -> bytes:
        offset, packed_size, size, crc, method, flags = entry.tolist()
        if size > _LARGEST_MEMBER:
            raise OSError(f"it claims {size:,} bytes, more than {_LARGEST_MEMBER:,}")
        if flags & _ENCRYPTED:
            raise OSError("it is encrypted")
        member = zipfile.ZipInfo(name)
        member.compress_size, member.file_size = packed_size, size
        member.CRC, member.compress_type = crc, method
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                header = file.read(MEMBER_HEADER)
                names = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
                file.seek(offset + MEMBER_HEADER + sum(names))
                return zipfile.ZipExtFile(file, "r", member).read()
        except DECODE_ERRORS as error:  # damaged, or packed in an unknown way
            if isinstance(error, OSError):
                raise
            raise OSError(str(error) or type(error).__name__) from error

    @property
    def listing(self) -> str:
        status = self._path.stat()
        return digest(str(self._path), status.st_size, status.st_mtime_ns, self._names.tobytes())


def _directory(members: Sequence[zipfile.ZipInfo | None]) -> NDArray[np.int64]:
    """Return first byte, bytes, bytes unpacked, CRC-32, compression and flags of members, [N, 6]; -1 for none."""
    rows = [
        (-1,) * 6
        if m is None
        else (m.header_offset, m.compress_size, m.file_size, m.CRC, m.compress_type, m.flag_bits)
        for m in members
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 6)


def open_samples(
    path: Path,
    what: str,
    *,
    endings: tuple[str, ...] | None = None,
    classes: bool | None = None,
    group_by: str | None = None,
) -> tuple[MetadataTable, Source]:
    """List the samples of a folder or zip and read their metadata; other files are counted and named.

    Args:
        path: of the folder or zip.
        what: the samples are, for messages.
        endings: of their files; None for images, which are recognized by their first bytes.
        classes: as `ImageFolder` takes it.
        group_by: as `grouped` takes it.

    Raises:
        InputError: when it cannot be read or holds no samples.
    """
    read: Callable[[str], bytes]
    if path.is_dir():
        read = lambda name: read_side_file(path / name)  # noqa: E731
        try:
            listing = list_folder(path, endings=endings)
        except OSError as error:
            raise InputError(f"data.root={path} cannot be read: {error.strerror}") from error
    else:
        read = lambda name: read_member(path, name)  # noqa: E731
        with open_zip(path) as archive:
            listing = list_zip(archive, endings=endings)
    if not listing.images:
        others = [*listing.side_files, *(name for name, _ in listing.passed_over)]
        content = f"holds no {what} (but {format_names(others, limit=3)})" if others else "is empty"
        raise InputError(f"data.root={path} {content}; expected {', '.join(endings or FORMATS)}")
    listing.report(path)
    table = read_metadata(listing, read, root=path, classes=classes, group_by=group_by)
    if path.is_dir():
        return table, FileSource(root=path, names=table.files)
    return table, ZipSource(path=path, names=table.files)


def read_side_file(path: Path) -> bytes:
    """Return the content of a table or text beside samples."""
    with regular_file(path) as file:
        return read_table(file)


def read_member(path: Path, name: str) -> bytes:
    """Return the content of a table or text in a zip."""
    try:
        with open_zip(path) as archive, archive.open(name) as file:
            return read_table(file)
    except DECODE_ERRORS as error:
        if isinstance(error, InputError | BadTable):
            raise
        raise BadTable(f"is damaged ({error})") from error


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip of samples.

    Raises:
        InputError: when it is not a zip.
    """
    if path.is_dir():
        raise InputError(
            f"data.root={path} is a folder; for a folder of images use data=image_folder"
        )
    if not path.is_file():
        raise InputError(f"data.root={path} is not a regular file; expected a zip of images")
    try:
        return zipfile.ZipFile(path)
    except DECODE_ERRORS as error:  # also a name that is no UTF-8, and a version that is not known
        raise InputError(
            f"data.root={path} is not a complete zip ({error}); copy or make it again"
        ) from error
