"""Data sets of the Hugging Face hub, of local folders in its formats, and of `save_to_disk`: images, sound and text.

They are read by the library `datasets`: rows lie in Arrow files that are mapped into memory, and images and sounds are
decoded on access.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.audio import Pad
from gan_lab.data.audio_folder import EncodedSounds
from gan_lab.data.base import check_split, digest
from gan_lab.data.decoding import MAX_MEGAPIXELS, regular_file
from gan_lab.data.image_files import EncodedImages
from gan_lab.data.listing import format_names
from gan_lab.data.metadata import UNLABELED, MetadataTable, natural_order
from gan_lab.data.source import Source
from gan_lab.data.splits import members_by_name
from gan_lab.data.text import PADDING, UNKNOWN
from gan_lab.data.text_files import Long, Read, Reading, SplitLines, packed_texts
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError, first_line, import_extra

Column = str | Literal[False] | None

_VALIDATION = ("validation", "valid", "val", "test")  # the first one present is for validation
_LABELS = ("label", "labels", "class", "category")
_TEXTS = 1 << 10  # rows that are read at a time


class HuggingFaceImages(EncodedImages):
    """A column of images.

    Args:
        split: "train" or "val".
        name: of the hub, such as "uoft-cs/cifar10"; or a folder of `save_to_disk`, of parquet files, or of images.
        subset: one of those that some sets come in.
        revision: of the hub: a branch, tag or commit; None for the newest.
        train_split: its name there.
        val_split: its name; None for "validation", "valid", "val" or "test", the first that there is.
        val_fraction: share of the training rows for validation, if there is no validation split.
        image_column: its name; None for the only one that holds images.
        label_column: its name; None for the only one that holds classes, or one with a usual name; False for no
            classes.
        image_size: one number, [H, W], or None for the one size that all images have.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for those of most images.
        flip: append the mirror images.
        skip_unreadable: leave out what cannot be read.
        max_megapixels: larger images count as unreadable.
        bits: 8 | 16 | 32 (floating point), or None for those that they have.
        window: of more than 8 bits; as `ImageFolder` takes it.

    Raises:
        InputError: for a set, split or column that is not there, offline, and without the extra `datasets`.
    """

    def __init__(
        self,
        *,
        split: str,
        name: str | None,
        subset: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        val_fraction: float = 0.0,
        image_column: str | None = None,
        label_column: Column = None,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = None,
        flip: bool = False,
        skip_unreadable: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
        bits: int | None = None,
        window: str | Sequence[float] = "range",
    ) -> None:
        rows = open_rows(
            name, subset=subset, revision=revision, train_split=train_split, val_split=val_split
        )
        source = CellSource(rows, rows.column_of("Image", image_column, "image_column"))
        labels, names = rows.labels(label_column)
        super().__init__(
            source=source,
            labels=labels,
            class_names=names,
            members=rows.members(split, val_fraction),
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
        )


class HuggingFaceSounds(EncodedSounds):
    """A column of sounds; arguments as for `HuggingFaceImages` and `AudioFolder`.

    Raises:
        InputError: also without the extra `audio`.
    """

    def __init__(
        self,
        *,
        split: str,
        name: str | None,
        subset: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        val_fraction: float = 0.0,
        audio_column: str | None = None,
        label_column: Column = None,
        rate: int = 16000,
        length: int = 16384,
        channels: int = 1,
        crop: str = "random",
        pad: Pad = "end",
        skip_unreadable: bool = False,
    ) -> None:
        rows = open_rows(
            name, subset=subset, revision=revision, train_split=train_split, val_split=val_split
        )
        source = CellSource(rows, rows.column_of("Audio", audio_column, "audio_column"))
        labels, names = rows.labels(label_column)
        super().__init__(
            source=source,
            table=MetadataTable(
                files=[source.name(i) for i in range(len(source))], labels=labels, class_names=names
            ),
            members=rows.members(split, val_fraction),
            split=split,
            rate=rate,
            length=length,
            channels=channels,
            crop=crop,
            pad=pad,
            skip_unreadable=skip_unreadable,
        )


class HuggingFaceText(SplitLines):
    """A column of text, whose lines are packed in the cache once; arguments as for `HuggingFaceImages` and `TextFiles`.

    Raises:
        InputError: for a set, split or column that is not there, or rows without text.
    """

    def __init__(
        self,
        *,
        split: str,
        name: str | None,
        subset: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        val_fraction: float = 0.0,
        text_column: str | None = None,
        label_column: Column = None,
        length: int = 32,
        long: Long = "cut",
        min_length: int = 1,
        alphabet: str | None = None,
        alphabet_size: int = 256,
        padding: str | None = PADDING,
        unknown: str | None = UNKNOWN,
        max_lines: int | None = None,
    ) -> None:
        check_split(split)
        rows = open_rows(
            name, subset=subset, revision=revision, train_split=train_split, val_split=val_split
        )
        column = rows.column_of("text", text_column, "text_column")
        labels, names = rows.labels(label_column)
        reading = Reading(
            length=length,
            long=long,
            min_length=min_length,
            encoding="utf-8",
            alphabet=alphabet,
            alphabet_size=alphabet_size,
            padding=padding,
            unknown=unknown,
            max_lines=max_lines,
        )
        packed = packed_texts(
            lambda: rows.texts(column, labels, reading),
            reading,
            key=digest(rows.listing, column, labels.tobytes(), names),
            class_names=[] if names == UNLABELED else names,
            has_splits=rows.has_validation,
        )
        super().__init__(packed, split=split, val_fraction=val_fraction, origin=f"data.name={name}")


@dataclass(frozen=True, kw_only=True)
class HubRows:
    """The training and validation rows of a data set, one after the other.

    Attributes:
        name: for messages.
        parts: one `datasets.Dataset`, or two: training and validation.
        split_names: of the parts.
    """

    name: str
    parts: list[Any]
    split_names: list[str]

    @property
    def has_validation(self) -> bool:
        return len(self.parts) == 2

    @property
    def counts(self) -> list[int]:
        return [len(part) for part in self.parts]

    @property
    def listing(self) -> str:
        """Digest of the rows, from the fingerprint of `datasets`."""
        return digest(self.name, *(part._fingerprint for part in self.parts), self.counts)

    def members(self, split: str, val_fraction: float) -> NDArray[np.bool_]:
        """Mask of the rows of a split.

        Raises:
            MissingSplit: for split="val" without validation data.
            InputError: for a fraction beside a validation split, or out of range.
        """
        check_split(split)
        if not self.has_validation:
            names = [f"{self.split_names[0]}/{row:09d}" for row in range(self.counts[0])]
            return members_by_name(names, split=split, val_fraction=val_fraction)
        if val_fraction:
            raise InputError(
                f"data.val_fraction={val_fraction}, but data.name={self.name} has the split {self.split_names[1]}; "
                "set data.val_fraction=0"
            )
        return np.repeat([split == "train", split == "val"], self.counts)

    def column_of(self, kind: str, wanted: str | None, key: str) -> str:
        """Return the name of a column.

        Args:
            kind: of its feature: "Image", "Audio" or "text".
            wanted: its name; None for the only one of that kind.
            key: for messages.

        Raises:
            InputError: naming the columns that there are.
        """
        features = self.parts[0].features
        columns = format_names(
            (f"{name} ({_kind(one)})" for name, one in features.items()), limit=20
        )
        there_are = f"data.name={self.name} has the columns {columns}"
        if wanted is not None:
            if wanted not in features:
                raise InputError(f"data.{key}={wanted} is not there; {there_are}")
            return wanted
        fitting = [name for name, one in features.items() if _kind(one) == kind]
        if len(fitting) != 1:
            raise InputError(f"set data.{key}=: {there_are}")
        return fitting[0]

    def labels(self, wanted: Column) -> tuple[NDArray[np.int64], list[str]]:
        """Return classes of all rows and their names; `UNLABELED` without classes.

        Raises:
            InputError: for a column that is not there, or whose values are no classes.
        """
        column = self._label_column(wanted)
        if column is None:
            return np.zeros(sum(self.counts), dtype=np.int64), list(UNLABELED)
        values = np.concatenate([_values(part, column) for part in self.parts])
        names = getattr(self.parts[0].features[column], "names", None)
        if names is not None:
            if (values < 0).any():
                raise InputError(
                    f"data.label_column={column}: {int((values < 0).sum()):,} rows have no class; choose splits that "
                    "have, or set data.label_column=false"
                )
            return values.astype(np.int64), list(names)
        texts = np.array([str(value) for value in values.tolist()])
        if values.dtype.kind == "f":
            raise InputError(
                f"data.label_column={column} holds fractions, not classes; set "
                "data.label_column=false"
            )
        found = sorted(set(texts.tolist()), key=natural_order)
        numbers = {name: number for number, name in enumerate(found)}
        return np.array([numbers[text] for text in texts.tolist()], dtype=np.int64), found

    def _label_column(self, wanted: Column) -> str | None:
        features = self.parts[0].features
        if wanted is False:
            return None
        if wanted is not None:
            if wanted not in features:
                raise InputError(
                    f"data.label_column={wanted} is not there; data.name={self.name} has the columns "
                    f"{format_names(features)}"
                )
            return wanted
        classes = [name for name, one in features.items() if _kind(one) == "ClassLabel"]
        if len(classes) > 1:
            raise InputError(
                f"data.name={self.name} has several columns of classes ({format_names(classes)}); set "
                "data.label_column= to one of them, or to false"
            )
        by_name = [name for name in _LABELS if name in features]
        return (classes or by_name or [None])[0]

    def texts(self, column: str, labels: NDArray[np.int64], reading: Reading) -> Iterator[Read]:
        """Read the lines of all rows.

        Raises:
            InputError: for a column that holds no text.
        """
        first = 0
        for split, part in zip(self.split_names, self.parts, strict=True):
            for start in range(0, len(part), _TEXTS):
                for row, text in enumerate(part[start : start + _TEXTS][column], start):
                    if not isinstance(text, str):
                        raise InputError(
                            f"data.text_column={column}: row {row} of {split} is {type(text).__name__}, not text"
                        )
                    yield Read(
                        rows=reading.lines(text),
                        label=int(labels[first + row]),
                        validates=split != self.split_names[0],
                        name=f"{split}/{row:09d}",
                    )
            first += len(part)


class CellSource(Source):
    """The encoded images or sounds of one column.

    Args:
        rows: of the data set.
        column: its name.
    """

    def __init__(self, rows: HubRows, column: str) -> None:
        self._listing = digest(rows.listing, column)
        self._name, self._column = rows.name, column
        self._split_names = rows.split_names
        self._starts = np.concatenate([[0], np.cumsum(rows.counts)])
        self._parts = []
        for part in rows.parts:
            cells = part.select_columns([column])
            feature = part.features[column]
            if type(feature).__name__ in ("Image", "Audio"):
                cells = cells.cast_column(column, type(feature)(decode=False))
            elif not {"bytes", "path"} & set(feature if isinstance(feature, dict) else ()):
                raise InputError(
                    f"the column {column} of data.name={rows.name} is {_kind(feature)}; it must hold files"
                )
            self._parts.append(cells)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        part, row = self._locate(index)
        return f"{self._split_names[part]}/{row:09d}"

    def open(self, index: int) -> BinaryIO:
        part, row = self._locate(index)
        cell = self._parts[part][row][self._column]
        if cell is None:
            raise OSError("the row is empty")
        if cell.get("bytes") is not None:
            return io.BytesIO(cell["bytes"])
        return regular_file(str(cell["path"]))

    @property
    def listing(self) -> str:
        return self._listing

    def _locate(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])


def open_rows(
    name: str | None,
    *,
    subset: str | None,
    revision: str | None,
    train_split: str,
    val_split: str | None,
) -> HubRows:
    """Open a data set; arguments as for `HuggingFaceImages`.

    Raises:
        InputError: when it is not there or cannot be read, or has no such split.
    """
    if not name:
        raise InputError(
            "data.name is not set; set data.name=uoft-cs/cifar10, or a folder of save_to_disk, parquet files or images"
        )
    splits = _open(name, subset, revision)
    if train_split not in splits:
        raise InputError(
            f"data.name={name} has no split {train_split}, but {format_names(splits)}; set data.train_split="
        )
    others = [one for one in _VALIDATION if one in splits and one != train_split]
    if val_split is not None and val_split not in splits:
        raise InputError(f"data.val_split={val_split} is not there, but {format_names(splits)} are")
    chosen = val_split or (others[0] if others else None)
    names = [train_split] if chosen is None else [train_split, chosen]
    for one in names:
        if not len(splits[one]):
            raise InputError(f"the split {one} of data.name={name} has no rows")
    return HubRows(name=name, parts=[splits[one] for one in names], split_names=names)


def _open(name: str, subset: str | None, revision: str | None) -> dict[str, Any]:
    library = import_extra("datasets", extra="datasets", what="data=huggingface")
    path = Path(name).expanduser()
    try:
        if path.is_dir() and any(
            (path / one).is_file() for one in ("state.json", "dataset_dict.json")
        ):
            opened = library.load_from_disk(str(path))
        elif path.is_file():
            opened = library.load_dataset(_builder(path), data_files={"train": str(path)})
        else:
            opened = library.load_dataset(
                str(path) if path.is_dir() else name, subset, revision=revision
            )
    except Exception as error:
        # of very many types: of the hub, its HTTP client, Arrow, and the library
        raise InputError(_reason(name, path, error)) from error
    return dict(opened) if isinstance(opened, dict) else {"train": opened}


def _builder(path: Path) -> str:
    known = {
        ".parquet": "parquet",
        ".arrow": "arrow",
        ".csv": "csv",
        ".json": "json",
        ".jsonl": "json",
    }
    if path.suffix not in known:
        raise InputError(
            f"data.name={path} is a file; allowed are {format_names(known)}, and folders"
        )
    return known[path.suffix]


def _reason(name: str, path: Path, error: Exception) -> str:
    said = first_line(error)
    if path.exists():
        return f"data.name={name} cannot be read as a data set ({said})"
    return (
        f"data.name={name} is no folder here, and not downloadable from the hub ({said}); check the name and the "
        "connection, or load it once where there is one and copy the folder of save_to_disk"
    )


def _kind(feature: Any) -> str:
    """Describe the content of a column."""
    name = type(feature).__name__
    if name == "Value":
        return "text" if feature.dtype in ("string", "large_string") else str(feature.dtype)
    return name


def _values(part: Any, column: str) -> NDArray[Any]:
    table = part.select_columns([column]).with_format("arrow")[:]
    values: NDArray[Any] = table[column].to_numpy()
    return values
