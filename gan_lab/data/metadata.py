"""The metadata table: class, attributes, group, split and caption of each sample of a data set.

A row is (file, class, attributes, group, series, split, caption). The reader, for folders and zips, uses in this order:

- tables among the files, at any depth, with paths relative to their folder: `dataset.json` (NVIDIA's
  dataset tools and prepare-data), `labels.csv`, `labels.tsv`, `labels.json`, `labels.jsonl`;
- folders named train, val and test, if there are no others beside them, as splits;
- the folders below these as classes.
"""

import functools
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gan_lab.console import say, warn
from gan_lab.data.listing import Listing, format_names
from gan_lab.data.tables import TABLES, BadTable, Columns, parse_table
from gan_lab.errors import InputError, counted

MAX_LABEL = 999_999  # larger labels are identifiers or damage: each class costs memory
UNLABELED = ["all"]
T = TypeVar("T")
_MOST_UNLIKE = 10  # allowed ratio between the scales of attributes

_TEXTS = ("files", "groups", "series", "splits", "captions")  # columns of texts
_SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# parts of a large data set, not classes: NVIDIA's 00000/img00000000.png and FFHQ's 01000/01234.png
_PART, _PART_FILE = re.compile(r"[0-9]{5,}"), re.compile(r"(img)?([0-9]{5,})\.[^.]+")


class AmbiguousClasses(InputError):
    """There are images beside the folders that could be classes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MetadataTable:
    """One row for each image.

    Attributes:
        files: names in the source of the images.
        labels: int64 [N], numbers of classes.
        class_names: by number; ["all"] without classes.
        attributes: float32 [N, K], or None.
        attribute_names: K of them.
        groups: [N], such as the patient or scene of an image, or None.
        group_column: column of a table with the groups; "" if none.
        series: [N], such as the scan whose slices the images are, or None.
        splits: [N] of "train", "val" or "test", or None if there are none.
        captions: [N], or None.
        spacing: (height, width) in mm of a pixel of all files, or None if unknown.
    """

    files: list[str]
    labels: NDArray[np.int64]
    class_names: list[str]
    attributes: NDArray[np.float32] | None = None
    attribute_names: list[str] = field(default_factory=list)
    groups: list[str] | None = None
    group_column: str = ""
    series: list[str] | None = None
    splits: list[str] | None = None
    captions: list[str] | None = None
    spacing: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def has_more_than_classes(self) -> bool:
        """Whether there are attributes, groups, series, captions or a size of pixels."""
        more = (self.attributes, self.groups, self.series, self.captions, self.spacing)
        return any(one is not None for one in more)

    def conditions(
        self, wanted: bool | str | Sequence[str] | None, *, root: Path
    ) -> tuple[NDArray[Any], list[str]]:
        """Labels of the images: classes int64 [N] and no names, or vectors float32 [N, K] and the names of attributes.

        Args:
            wanted: attributes to use as labels instead of classes, in this order; True for all, False for none, None
                for all if there are no classes.
            root: for messages.

        Raises:
            InputError: for unknown attributes.
        """
        if wanted is None:
            wanted = self.attributes is not None and self.class_names == UNLABELED
        if wanted is False:
            return self.labels, []
        wanted = [wanted] if isinstance(wanted, str) else wanted
        if self.attributes is None:
            raise InputError(
                f"data.attributes={wanted}, but {root} has none; give labels.csv a column of numbers for each"
            )
        names = self.attribute_names if wanted is True else [str(name) for name in wanted]
        wrong = [name for name in names if name not in self.attribute_names]
        if wrong or not names or len(set(names)) < len(names):
            raise InputError(
                f"data.attributes={names}: choose from {', '.join(self.attribute_names)}, each once"
            )
        vectors = self.attributes[:, [self.attribute_names.index(name) for name in names]]
        spans = np.abs(vectors).max(0)
        if spans.max() > _MOST_UNLIKE * max(spans.min(), 1):
            _warn_once(
                f"{root}: attributes differ in scale: the values of {names[int(spans.argmax())]} go up to "
                f"{spans.max():g} and those of {names[int(spans.argmin())]} to {spans.min():g}; networks see "
                "them as they are, so scale them in the table to about 0 to 1"
            )
        return vectors, names

    def rows(self, indices: ArrayLike) -> "MetadataTable":
        """The table of some rows, in the order of `indices`."""
        chosen = np.asarray(indices, dtype=np.int64)
        columns: dict[str, Any] = {}
        for name in _TEXTS:
            column = getattr(self, name)
            columns[name] = None if column is None else [column[i] for i in chosen.tolist()]
        attributes = None if self.attributes is None else self.attributes[chosen]
        return replace(self, labels=self.labels[chosen], attributes=attributes, **columns)

    def content(self) -> tuple[object, ...]:
        """The whole content, for comparisons and digests."""
        values = (getattr(self, one.name) for one in fields(self) if one.name != "group_column")
        return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in values)

    def to_json(self) -> dict[str, Any]:
        """Content of `dataset.json`, with labels in NVIDIA's format."""
        result: dict[str, Any] = {"labels": None}
        if self.class_names != UNLABELED:
            result["labels"] = self._pairs(self.labels.tolist())
            result["class_names"] = self.class_names
        if self.attributes is not None:
            result["attributes"] = self._pairs(self.attributes.tolist())
            result["attribute_names"] = self.attribute_names
        if self.groups is not None:
            result["groups"] = self._pairs(self.groups)
        if self.series is not None:
            result["series"] = self._pairs(self.series)
        if self.captions is not None:
            result["captions"] = self._pairs(self.captions)
        if self.spacing is not None:
            result["spacing"] = list(self.spacing)
        if self.splits is not None and len(set(self.splits)) > 1:
            result["val"] = [
                file for file, split in zip(self.files, self.splits, strict=True) if split == "val"
            ]
        return result

    def _pairs(self, values: Sequence[object]) -> list[list[object]]:
        return [list(pair) for pair in zip(self.files, values, strict=True)]


def join_tables(tables: Sequence[MetadataTable]) -> MetadataTable:
    """Concatenate tables; columns that not all of them have are dropped.

    Raises:
        InputError: when their classes, attributes or sizes of pixels differ.
    """
    first = tables[0]
    for table in tables[1:]:
        for what in ("class_names", "attribute_names", "spacing"):
            if getattr(table, what) != getattr(first, what):
                raise InputError(f"{what} differ: {getattr(first, what)}, {getattr(table, what)}")
    columns: dict[str, Any] = {}
    for name in _TEXTS:
        parts = [getattr(table, name) for table in tables]
        columns[name] = None if None in parts else [value for part in parts for value in part]
    attributes = [table.attributes for table in tables if table.attributes is not None]
    return replace(
        first,
        labels=np.concatenate([table.labels for table in tables]),
        attributes=np.concatenate(attributes) if len(attributes) == len(tables) else None,
        **columns,
    )


def read_metadata(
    listing: Listing,
    read: Callable[[str], bytes],
    *,
    root: Path,
    classes: bool | None = None,
    group_by: str | None = None,
) -> MetadataTable:
    """Read the metadata of the images of `listing`, in its order and without test images.

    Args:
        listing: of a folder or zip.
        read: returns a side file's content; raises OSError.
        root: for messages.
        classes: True takes folders as classes, even with a table; False takes all as one class; None takes the
            classes of a table, else the folders if there are no images beside them.
        group_by: column of a table that names groups, in place of "group" or "patient".

    Raises:
        AmbiguousClasses: for `classes` None, and images beside the folders.
        InputError: for tables that are damaged or do not match the images.
    """
    rows = _read_tables(listing, read, root, group_by)
    folders = _Folders(listing.images)
    splits = rows.splits() or folders.splits
    kept = np.arange(len(listing.images))
    if splits is not None:
        kept = np.flatnonzero(np.array(splits) != "test")
        _tell_splits(splits, root, by_folder=rows.splits() is None)
    files = [listing.images[i] for i in kept.tolist()]
    if not files:
        raise InputError(f"data.root={root} holds test images only; set data.root to them")
    attributes, attribute_names = rows.attributes(kept)
    labels, names = np.zeros(len(files), dtype=np.int64), list(UNLABELED)
    if classes or (classes is None and not rows.says_of_classes):
        labels, names = folders.classes(kept, root, classes)
    elif classes is None and "class" in rows.values:
        labels, names = rows.classes(kept)
    elif classes is None and attributes is not None and rows.vectors_are_labels:
        if _is_one_hot(attributes):
            labels, names = rows.numbered(
                attributes.argmax(1), rows.class_names or rows.attribute_names
            )
            attributes, attribute_names = None, []
        else:
            _say_once(f"{root}: {counted(attributes.shape[1], 'attribute')} an image, no classes")
    table = MetadataTable(
        files=files,
        labels=labels,
        class_names=[as_unicode(name) for name in names],
        attributes=attributes,
        attribute_names=[as_unicode(name) for name in attribute_names],
        groups=rows.texts("group", kept),
        group_column=rows.group_column if "group" in rows.values else "",
        series=rows.texts("series", kept),
        splits=None if splits is None else [splits[i] for i in kept.tolist()],
        captions=rows.texts("caption", kept),
        spacing=rows.spacing,
    )
    return table if (labels >= 0).all() else table.rows(np.flatnonzero(labels >= 0))


def natural_order(name: str) -> tuple[list[tuple[int, str] | str], str]:
    """Sort key that puts 2 before 10."""
    parts: list[tuple[int, str] | str] = []
    for i, part in enumerate(re.split("([0-9]+)", name)):
        digits = part.lstrip("0")
        parts.append((len(digits), digits) if i % 2 else part)
    return parts, name


def as_unicode(name: str) -> str:
    """Return a name as valid Unicode: file names may be any bytes, and JSON may have lone surrogates."""
    return name.encode(errors="backslashreplace").decode()


class _Folders:
    """Classes from the folders of images.

    Attributes:
        splits: [N] of "train", "val" and "test" by folders, else None.
    """

    def __init__(self, images: list[str]) -> None:
        self.splits: list[str] | None = None
        self._below = images
        while all("/" in name for name in self._below):
            first = {name.partition("/")[0] for name in self._below}
            if all(name.lower() in _SPLITS for name in first):
                self.splits = [_SPLITS[n.partition("/")[0].lower()] for n in self._below]
            elif len(first) > 1 or any(name.count("/") == 1 for name in self._below):
                return
            # or a single top folder, common in zips
            self._below = [name.partition("/")[2] for name in self._below]
            if self.splits is not None:
                return

    def classes(
        self, kept: NDArray[np.int64], root: Path, wanted: bool | None
    ) -> tuple[NDArray[np.int64], list[str]]:
        """Labels [N] and names of the classes; -1 for images beside the folders."""
        below = [self._below[i] for i in kept.tolist()]
        first = [name.rpartition("/")[0].partition("/")[0] for name in below]
        nested = sum(map(bool, first))
        if wanted and not nested:
            raise InputError(
                f"data.classes=true, but data.root={root} has no sub-folders with images; "
                f"put each class into its own, or set data.classes=null"
            )
        if wanted is None and 0 < nested < len(below):
            raise AmbiguousClasses(
                f"data.root={root} holds {counted(len(below) - nested, 'image')} itself and {nested:,} in sub-folders; "
                "set data.classes=true to take only the sub-folders, one class each, or data.classes=false to take "
                "all as one class"
            )
        if wanted is None and nested and all(map(_is_part, first, below)):
            _say_once(
                f"{root}: the folders {format_names(sorted(set(first)), limit=3)} only number the images; "
                f"set data.classes=true to use them as classes"
            )
            nested = 0
        if not nested:
            return np.zeros(len(below), dtype=np.int64), list(UNLABELED)
        names = sorted(set(first) - {""}, key=natural_order)
        number = {"": -1, **{name: i for i, name in enumerate(names)}}
        return np.array([number[name] for name in first], dtype=np.int64), names


def _is_part(folder: str, name: str) -> bool:
    """Whether a folder is a part of a large set: NVIDIA's 00000/img00000000.png, FFHQ's 01000/01234.png."""
    found = _PART_FILE.fullmatch(name.rpartition("/")[2])
    if not _PART.fullmatch(folder) or found is None:
        return False
    return bool(found[1]) or int(found[2]) // 1000 * 1000 == int(folder)


@dataclass(kw_only=True)
class _Rows:
    """All metadata tables of a data set, aligned with its images.

    Attributes:
        values: column -> one value an image, None where it is missing.
        says_of_classes: whether the tables define the classes.
    """

    images: list[str]
    root: Path
    origin: str
    values: dict[str, list[Any]]
    class_names: list[str] | None
    attribute_names: list[str] | None
    vectors_are_labels: bool
    says_of_classes: bool
    group_column: str = ""
    spacing: tuple[float, float] | None = None

    def splits(self) -> list[str] | None:
        if "split" not in self.values:
            return None
        given = ["train" if value is None else str(value).lower() for value in self.values["split"]]
        wrong = sorted(set(given) - set(_SPLITS))
        if wrong:
            raise InputError(
                f"{self.root}: {self.origin} has the split {format_names(wrong, limit=3)}; allowed: train, val, test"
            )
        return [_SPLITS[value] for value in given]

    def classes(self, kept: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        values = self._complete("class", kept, "label")
        numbers = [_whole_number(value) for value in values]
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers) and all(type(value) in (str, int) for value in values):
            texts = [str(value) for value in values]
            names = self.class_names or sorted(set(texts), key=natural_order)
            if new := sorted(set(texts).difference(names)):
                raise InputError(
                    f"{self.root}: {self.origin} has the classes {format_names(new, limit=3)}, which are not among its "
                    f"class_names"
                )
            position = {name: i for i, name in enumerate(names)}
            return np.array([position[text] for text in texts], dtype=np.int64), names
        wrong = [
            f"{self.images[i]} ({str(value)[:40]})"
            for i, value, number in zip(kept.tolist(), values, numbers, strict=True)
            if number is None or not 0 <= number <= MAX_LABEL
        ]
        if wrong:
            raise InputError(
                f"{self.root}: labels in {self.origin} must be names, or whole numbers from 0 to {MAX_LABEL:,}; they "
                f"are not for {format_names(wrong, limit=3)}"
            )
        return self.numbered(np.array(known, dtype=np.int64), self.class_names)

    def numbered(
        self, labels: NDArray[np.int64], names: list[str] | None
    ) -> tuple[NDArray[np.int64], list[str]]:
        """Labels and names of their classes; without `names`, labels are renumbered without gaps."""
        if names is not None:
            if labels.max() >= len(names):
                raise InputError(
                    f"{self.root}: {self.origin} names {counted(len(names), 'class')} and has labels up to "
                    f"{labels.max()}"
                )
            return labels, names
        values, compact = np.unique(labels, return_inverse=True)
        if values[-1] >= len(values):
            _say_once(
                f"{self.root}: the labels {format_names(map(str, values.tolist()), limit=5)} become the classes 0 to "
                f"{len(values) - 1}, named by them"
            )
        return compact.astype(np.int64), [str(value) for value in values.tolist()]

    def attributes(self, kept: NDArray[np.int64]) -> tuple[NDArray[np.float32] | None, list[str]]:
        if "attributes" not in self.values:
            return None, []
        values = self._complete("attributes", kept, "attributes")
        try:
            vectors = np.array(values, dtype=np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._no_vectors() from error
        if vectors.ndim != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
            raise self._no_vectors()
        names = self.attribute_names or [str(i) for i in range(vectors.shape[1])]
        if len(names) != vectors.shape[1]:
            raise InputError(
                f"{self.root}: {self.origin} names {counted(len(names), 'attribute')} and has "
                f"{vectors.shape[1]} an image"
            )
        return vectors, names

    def texts(self, column: str, kept: NDArray[np.int64]) -> list[str] | None:
        if column not in self.values:
            return None
        values = [self.values[column][i] for i in kept.tolist()]
        return ["" if value is None else as_unicode(str(value)) for value in values]

    def _complete(self, column: str, kept: NDArray[np.int64], what: str) -> list[Any]:
        values = [self.values[column][i] for i in kept.tolist()]
        bare = [self.images[i] for i, v in zip(kept.tolist(), values, strict=True) if v is None]
        if bare:
            raise InputError(
                f"{self.root}: {self.origin} has no {what} for {counted(len(bare), 'image')}: {format_names(bare)}"
            )
        return values

    def _no_vectors(self) -> InputError:
        return InputError(
            f"{self.root}: attributes in {self.origin} must be as many finite numbers for every image"
        )


def _read_tables(
    listing: Listing, read: Callable[[str], bytes], root: Path, group_by: str | None
) -> _Rows:
    number = {name: i for i, name in enumerate(listing.images)}
    passed_over = {name for name, _ in listing.passed_over}
    tables = [n for n in listing.side_files if n.rpartition("/")[2].lower() in TABLES]
    parsed: list[Columns] = []
    rows = _Rows(
        images=listing.images,
        root=root,
        origin=format_names(tables, limit=3),
        values={},
        class_names=None,
        attribute_names=None,
        vectors_are_labels=False,
        says_of_classes=False,
    )
    said: dict[str, str] = {}  # image -> its table
    for name in tables:
        columns, files = _parse(name, read, root, number, group_by)
        rows.group_column = columns.group_column or rows.group_column
        parsed.append(columns)
        absent = sorted(set(files).difference(number, passed_over))
        if absent:
            raise InputError(
                f"{root}: {name} has labels for {counted(len(absent), 'file')} that are missing: {format_names(absent)}"
            )
        twice = next((file for file in files if file in said), None)
        if twice is not None:
            raise InputError(
                f"{root}: {twice} has a row in {said[twice]} and in {name}; remove one of the tables"
            )
        said.update(dict.fromkeys(files, name))
        for column, values in columns.values.items():
            whole = rows.values.setdefault(column, [None] * len(number))
            for file, value in zip(files, values, strict=True):
                if file in number:
                    whole[number[file]] = value
        if columns.unused:
            _say_once(f"{root}: {name}: not used: {', '.join(columns.unused)}")
    rows.class_names = _agreed([columns.class_names for columns in parsed], rows, "class_names")
    rows.spacing = _agreed([columns.spacing for columns in parsed], rows, "spacing")
    rows.attribute_names = _agreed(
        [columns.attribute_names for columns in parsed], rows, "attribute_names"
    )
    rows.vectors_are_labels = any(columns.vectors_are_labels for columns in parsed)
    rows.says_of_classes = (
        "class" in rows.values
        or rows.vectors_are_labels
        or any(columns.no_classes for columns in parsed)
    )
    return rows


def _parse(
    name: str,
    read: Callable[[str], bytes],
    root: Path,
    images: Container[str],
    group_by: str | None,
) -> tuple[Columns, list[str]]:
    """Columns of a table, and its files as paths below the root."""
    folder = name.rpartition("/")[0]
    try:
        columns = parse_table(
            name.rpartition("/")[2].lower(),
            read(name),
            is_image=lambda file: posixpath.join(folder, file) in images,
            group_by=group_by,
        )
    except (OSError, BadTable) as error:
        raise InputError(f"{root}: {name} {error}; correct it, or give it another name") from error
    below = [posixpath.join(folder, file) for file in columns.files] if folder else columns.files
    return columns, below


def _agreed(given: Sequence[T | None], rows: _Rows, what: str) -> T | None:
    there = [one for one in given if one is not None]
    if any(one != there[0] for one in there):
        raise InputError(f"{rows.root}: {what} differ in {rows.origin}")
    return there[0] if there else None


def _whole_number(value: Any) -> int | None:
    """The value as a whole number, from 3, 3.0, "3" and "3.0"; None for anything else."""
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]+(\.0*)?", value):
            return None
        digits = value.partition(".")[0]
        return int(digits) if len(digits) < 18 else MAX_LABEL + 1
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _is_one_hot(vectors: NDArray[np.float32]) -> bool:
    zeros_and_ones = ((vectors == 0) | (vectors == 1)).all()
    return bool(vectors.shape[1] > 1 and zeros_and_ones and (vectors.sum(1) == 1).all())


def _tell_splits(splits: list[str], root: Path, *, by_folder: bool) -> None:
    counts = Counter(splits)
    what = "its folders are splits, not classes" if by_folder else "its table names splits"
    parts = [f"{counts[split]:,} {split}" for split in ("train", "val", "test") if counts[split]]
    alone = "; test images are not used" if counts["test"] else ""
    _say_once(f"{root}: {what}: {', '.join(parts)} images{alone}")


@functools.cache
def _say_once(line: str) -> None:
    say(line)


@functools.cache
def _warn_once(line: str) -> None:
    warn(line)
