"""Your own text: a file, a folder of files, or a file packed by prepare-data."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from gan_lab.config import cache_dir
from gan_lab.console import say
from gan_lab.data.base import MissingSplit, SampleDataset, check_split, digest
from gan_lab.data.decoding import regular_file
from gan_lab.data.listing import format_names, list_matching
from gan_lab.data.metadata import UNLABELED, MetadataTable, as_unicode, read_metadata
from gan_lab.data.source import FileSource, existing_path
from gan_lab.data.tables import read_table
from gan_lab.data.text import (
    CHUNK,
    MAX_ALPHABET,
    PADDING,
    UNKNOWN,
    LineChunk,
    Lines,
    PackedLines,
    Text,
    count_characters,
    cut_lines,
    most_frequent,
    numbered,
    read_packed,
    write_packed,
)
from gan_lab.errors import InputError, counted

Long = Literal["cut", "wrap"]
Classes = bool | Literal["file"] | None

_VERSION = 1
_LONGEST = 1 << 20  # characters of a line
_READ = 1 << 22  # characters that are read at a time
_NUM_HASHES = 1 << 32


class SplitLines(Lines):
    """The lines of one split of packed lines; arguments and errors as of `rows_of_split`."""

    def __init__(
        self, packed: PackedLines, *, split: str, val_fraction: float, origin: str
    ) -> None:
        rows = rows_of_split(packed, split=split, val_fraction=val_fraction, origin=origin)
        super().__init__(
            split=split,
            kind=packed.kind,
            lines=packed.lines,
            rows=rows,
            labels=packed.labels[rows].astype(np.int64),
            class_names=packed.class_names,
            fingerprint=digest(packed.digest, packed.kind.arguments, split, val_fraction),
        )


class TextFiles(SplitLines):
    """Lines of text files, packed once into the cache and memory-mapped from there.

    Args:
        split: "train" or "val".
        root: a text file, a folder of them, or an `.npz` of `gan-lab prepare-data`, which settles all but
            `val_fraction`.
        length: characters of a line.
        long: "cut" drops the rest of longer lines, "wrap" makes further lines of it.
        min_length: shorter lines are skipped, and blank ones always.
        pattern: names of the files in a folder.
        encoding: of the files.
        alphabet: its characters; None takes the most frequent ones. Padding and unknown are added.
        alphabet_size: characters at most, with these two, where `alphabet` is None.
        padding: fills shorter lines; None if there are none.
        unknown: replaces characters that the alphabet lacks; None makes them an error.
        classes: "file" makes each file a class, True each sub-folder; False none; None as a metadata table in the
        folder
            says (`labels.csv` and the like), else sub-folders.
        val_fraction: share of the lines for validation, by a hash of each, so that equal lines are in one split.
        max_lines: use only the first ones; None for all.

    Raises:
        InputError: naming files that are empty, too short, or no text; for options out of range.
        MissingSplit: for split="val" without validation data.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        length: int = 32,
        long: Long = "cut",
        min_length: int = 1,
        pattern: str = "*.txt",
        encoding: str = "utf-8",
        alphabet: str | None = None,
        alphabet_size: int = 256,
        padding: str | None = PADDING,
        unknown: str | None = UNKNOWN,
        classes: Classes = None,
        val_fraction: float = 0.0,
        max_lines: int | None = None,
    ) -> None:
        check_split(split)
        path = existing_path(root, "a text file, a folder of them, or an .npz of prepare-data")
        if path.suffix == ".npz":
            packed = read_packed(path)
        else:
            reading = Reading(
                length=length,
                long=long,
                min_length=min_length,
                encoding=encoding,
                alphabet=alphabet,
                alphabet_size=alphabet_size,
                padding=padding,
                unknown=unknown,
                max_lines=max_lines,
            )
            packed = packed_files(path, reading, pattern=pattern, classes=classes)
        super().__init__(packed, split=split, val_fraction=val_fraction, origin=str(path))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options for reading files: arguments of `TextFiles`.

    Raises:
        InputError: for options out of range.
    """

    length: int
    long: Long
    min_length: int
    encoding: str
    alphabet: str | None
    alphabet_size: int
    padding: str | None
    unknown: str | None
    max_lines: int | None

    def __post_init__(self) -> None:
        if self.long not in ("cut", "wrap"):
            raise InputError(f"data.long={self.long!r}; allowed: cut, wrap")
        if not 1 <= self.min_length <= self.length <= _LONGEST:
            raise InputError(
                f"data.length={self.length}, data.min_length={self.min_length}; a line has 1 to length characters, at "
                f"most {_LONGEST:,}"
            )
        if self.alphabet == "":
            raise InputError(
                "data.alphabet='' has no characters; give some, or null to have them found"
            )
        if self.padding is None and self.min_length < self.length:
            raise InputError(
                f"data.padding=null takes lines of {self.length} characters alone: set data.min_length={self.length}"
            )
        if not 4 <= self.alphabet_size <= MAX_ALPHABET:
            raise InputError(
                f"data.alphabet_size={self.alphabet_size}; allowed: 4 to {MAX_ALPHABET:,}"
            )
        if self.max_lines is not None and self.max_lines < 1:
            raise InputError(f"data.max_lines={self.max_lines} must be at least 1, or null")
        for what, one in (("padding", self.padding), ("unknown", self.unknown)):
            if one is not None and (len(one) != 1 or one == "\n"):
                raise InputError(f"data.{what}={one!r} must be one character, or null")
        try:
            "".encode(self.encoding)  # tells encodings of text from zip and base64
        except (LookupError, ValueError) as error:
            raise InputError(
                f"data.encoding={self.encoding} is not an encoding of text; give one such as utf-8 or latin-1"
            ) from error

    def rows(self, file: Path) -> Iterator[NDArray[np.uint32]]:
        """Read a file's lines in chunks, as code points [n, length] padded with 0.

        Raises:
            InputError: naming the file when it is not text.
        """
        with _opened(file) as binary:
            opened = io.TextIOWrapper(binary, encoding=self.encoding)
            first = True
            while text := self._read(opened, file):
                yield self.lines(text.removeprefix("\ufeff") if first else text)
                first = False

    def lines(self, text: str) -> NDArray[np.uint32]:
        """Cut text into lines, as code points [n, length] padded with 0."""
        return cut_lines(text, length=self.length, wrap=self.long == "wrap", least=self.min_length)

    def _read(self, opened: io.TextIOWrapper, file: Path) -> str:
        """Lines of a file, in chunks that end with a line."""
        try:
            text = opened.read(_READ)
            text += opened.readline() if text else ""
        except (UnicodeError, OSError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise InputError(
                f"{file} is not text in {self.encoding} ({reason}); set data.encoding=, or remove it"
            ) from error
        if "\0" in text:
            raise InputError(f"{file} is binary: it has a character 0; remove it, or convert it")
        return text

    @property
    def no_line(self) -> str:
        """Describe the missing lines, for messages."""
        return f"no line of at least {counted(self.min_length, 'character')}"

    def kind(self, counts: NDArray[np.int64]) -> Text:
        """Return the kind of sample for these frequencies of characters.

        Raises:
            InputError: for an invalid alphabet.
        """
        special = [one for one in (self.padding, self.unknown) if one is not None]
        known = self.alphabet
        if known is None:
            rest = counts.copy()
            rest[[ord(one) for one in special]] = 0
            known = most_frequent(rest, self.alphabet_size - len(special))
        return Text(
            alphabet=known + "".join(one for one in special if one not in known),
            length=self.length,
            padding=self.padding,
            unknown=self.unknown,
        )


@dataclass(frozen=True, kw_only=True)
class Read:
    """A chunk of lines.

    Attributes:
        rows: code points [n, L], padded with 0.
        label: their class.
        validates: whether they are given as validation lines.
        name: of their file, for messages.
    """

    rows: NDArray[np.uint32]
    label: int
    validates: bool
    name: str


def _opened(file: Path) -> BinaryIO:
    try:
        return regular_file(file)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error


def packed_files(path: Path, reading: Reading, *, pattern: str, classes: Classes) -> PackedLines:
    """Return the lines of a file or folder from the cache; the first process packs them.

    Raises:
        InputError: naming files that are empty, too short, or no text; when the cache cannot be written.
    """
    folder, table = _table(path, pattern, classes)
    source = FileSource(root=folder, names=table.files)
    has_splits = table.splits is not None and "val" in table.splits

    def texts() -> Iterator[Read]:
        empty: list[str] = []
        for number, name in enumerate(table.files):
            lines = 0
            validates = table.splits is not None and table.splits[number] == "val"
            for rows in reading.rows(folder / name):
                lines += len(rows)
                yield Read(
                    rows=rows,
                    label=int(table.labels[number]),
                    validates=validates,
                    name=str(folder / name),
                )
            if not lines:
                empty.append(str(folder / name))
        if empty:
            raise InputError(
                f"{reading.no_line} in {format_names(empty)}; remove empty files, or set data.min_length="
            )

    return packed_texts(
        texts,
        reading,
        key=digest(source.listing, table.content()),
        class_names=[] if table.class_names == UNLABELED else table.class_names,
        has_splits=has_splits,
    )


def packed_texts(
    texts: Callable[[], Iterator[Read]],
    reading: Reading,
    *,
    key: str,
    class_names: list[str],
    has_splits: bool,
) -> PackedLines:
    """Return lines from the cache, where the first process that wants them packs them.

    Args:
        texts: reads them all from the first on; called twice.
        reading: how text becomes lines.
        key: names the content of the text.
        class_names: of the classes; none without classes.
        has_splits: whether it is given which lines validate.

    Raises:
        InputError: without any line; when the cache cannot be written.
    """
    kept = cache_dir() / "texts" / f"{digest(_VERSION, key, reading)}.npz"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                say("packing the lines of the text (once; the result is cached) ...")
                _pack(texts, reading, kept, class_names=class_names, has_splits=has_splits)
    except OSError as error:
        raise InputError(
            f"{kept} could not be written ({error.strerror}); the environment variable GAN_LAB_CACHE names another "
            "folder"
        ) from error
    return read_packed(kept)


def _table(path: Path, pattern: str, classes: Classes) -> tuple[Path, MetadataTable]:
    """The folder of the files, and a row for each of them."""
    if classes not in (None, True, False, "file"):
        raise InputError(f"data.classes={classes!r}; allowed: file, true, false, null")
    if path.is_file():
        labels = np.zeros(1, dtype=np.int64)
        return path.parent, MetadataTable(
            files=[path.name], labels=labels, class_names=list(UNLABELED)
        )
    listing = list_matching(path, lambda name: fnmatch(name.rpartition("/")[2], pattern))
    if not listing.images:
        others = [*listing.side_files, *(name for name, _ in listing.passed_over)]
        what = f"holds no {pattern} (but {format_names(others, limit=3)})" if others else "is empty"
        raise InputError(f"data.root={path} {what}; data.pattern= chooses the files")
    listing.report(path)

    def read(name: str) -> bytes:
        with regular_file(str(path / name)) as file:
            return read_table(file)

    by_file = classes == "file"
    table = read_metadata(listing, read, root=path, classes=False if by_file else classes)  # type: ignore[arg-type]
    if by_file:
        names = [as_unicode(name.rpartition(".")[0] or name) for name in table.files]
        table.labels[:] = np.arange(len(names))
        table.class_names[:] = names
    return path, table


def _pack(
    texts: Callable[[], Iterator[Read]],
    reading: Reading,
    out: Path,
    *,
    class_names: list[str],
    has_splits: bool,
) -> None:
    """Read everything twice: to count characters and lines, and to number them."""
    counts = np.zeros(0x110000, dtype=np.int64)
    lines = 0
    for some in texts():
        counts += count_characters(some.rows)
        lines += len(some.rows)
    if not lines:
        raise InputError(f"{reading.no_line} in the text; set data.min_length=")
    kind = reading.kind(counts)
    total = min(lines, reading.max_lines or lines)

    def parts() -> Iterator[LineChunk]:
        left = total
        for some in texts():
            rows = some.rows[:left]
            left -= len(rows)
            hashes = line_hashes(rows)
            if has_splits:
                hashes[:] = 0 if some.validates else _NUM_HASHES - 1
            labels = np.full(len(rows), some.label, dtype=np.int32)
            try:
                yield LineChunk(lines=numbered(rows, kind), labels=labels, hashes=hashes)
            except InputError as error:
                raise InputError(f"{some.name}: {error}") from error

    write_packed(
        out, parts(), count=total, kind=kind, class_names=class_names, has_splits=has_splits
    )


def line_hashes(rows: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return a uniform hash of each line, 0 to 2^32 - 1, given code points [N, L]."""
    random = np.random.default_rng(0)
    factors = random.integers(1, 2**63, rows.shape[1], dtype=np.uint64) | np.uint64(1)
    sums = (rows.astype(np.uint64) * factors).sum(1, dtype=np.uint64)
    # the finalizer of SplitMix64 (Steele et al. 2014), which spreads every bit over all others
    sums = (sums ^ (sums >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    sums = (sums ^ (sums >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (sums >> np.uint64(32)).astype(np.uint32)


def rows_of_split(
    packed: PackedLines, *, split: str, val_fraction: float, origin: str
) -> NDArray[np.int64]:
    """Return which lines belong to a split, in order.

    Raises:
        MissingSplit: for split="val" without validation data.
        InputError: for a fraction out of range, with given splits, or one that leaves a split empty.
    """
    if not 0 <= val_fraction < 1:
        raise InputError(f"data.val_fraction={val_fraction}; allowed: 0 (no validation) to below 1")
    if packed.has_splits and val_fraction:
        raise InputError(
            f"data.val_fraction={val_fraction}, but {origin} has its own splits; set data.val_fraction=0"
        )
    share = 0.5 if packed.has_splits else val_fraction
    if split == "val" and share == 0:
        raise MissingSplit(
            "there are no validation lines; set data.val_fraction=0.1 to hold some out"
        )
    is_val = packed.hashes < share * _NUM_HASHES
    if share and (is_val.all() or not is_val.any()):
        empty = "training" if is_val.all() else "validation"
        raise InputError(
            f"data.val_fraction={val_fraction} of {len(is_val):,} lines leaves none for {empty}; set another fraction"
        )
    return np.flatnonzero(is_val if split == "val" else ~is_val)


def pack_lines(datasets: list[SampleDataset], kind: Text, out: Path) -> int:
    """Write the lines of one or both splits to one file; return their number."""
    has_splits = len(datasets) > 1

    def parts() -> Iterator[LineChunk]:
        points = np.array(
            [0 if one == kind.padding else ord(one) for one in kind.alphabet], dtype=np.uint32
        )
        for data in datasets:
            for start in range(0, data.num_stored, CHUNK):
                stop = min(start + CHUNK, data.num_stored)
                some = data.__getitems__(range(start, stop)).real.numpy()
                hashes = line_hashes(points[some])
                if has_splits:
                    hashes[:] = 0 if data.split == "val" else _NUM_HASHES - 1
                labels = data.labels[start:stop].astype(np.int32)
                yield LineChunk(lines=some, labels=labels, hashes=hashes)

    count = sum(data.num_stored for data in datasets)
    write_packed(
        out,
        parts(),
        count=count,
        kind=kind,
        class_names=list(datasets[0].spec.class_names),
        has_splits=has_splits,
    )
    return count
