"""Text: lines of characters, stored as indices into an alphabet, one-hot for networks."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import one_hot

from gan_lab.config import ClassNames, take
from gan_lab.data.base import SampleDataset
from gan_lab.data.cache import mapped
from gan_lab.data.decoding import DECODE_ERRORS, check_regular
from gan_lab.data.sample import Representation, SampleKind, SampleSpec
from gan_lab.errors import InputError
from gan_lab.run import replacing

MAX_ALPHABET = 32_767  # indices are int16 at most
PADDING = "␀"
UNKNOWN = "�"

_GLYPH = (11, 19)  # width and height of a character, in pixels
_COLUMNS = 64  # characters in a row of an image


class Text(SampleKind):
    """Lines of `length` characters, stored as indices into an alphabet: uint8 [L], int16 for over 256 characters.

    Args:
        alphabet: every character once.
        length: of a line.
        padding: character that fills shorter lines, removed at a line's end; None if no line is
            shorter.
        unknown: character that replaces those that the alphabet lacks; None makes them an error.

    Raises:
        InputError: for an invalid alphabet.
    """

    name = "text"
    suffix = ".txt"
    axes = ("length",)
    media_type = "text/plain"

    def __init__(
        self,
        *,
        alphabet: str,
        length: int,
        padding: str | None = None,
        unknown: str | None = None,
    ) -> None:
        check_alphabet(alphabet, padding=padding, unknown=unknown)
        self.alphabet = alphabet
        self.length = length
        self.padding = padding
        self.unknown = unknown
        self.dtype = torch.uint8 if len(alphabet) <= 256 else torch.int16
        self._numbers = {character: number for number, character in enumerate(alphabet)}

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "alphabet": self.alphabet,
            "length": self.length,
            "padding": self.padding,
            "unknown": self.unknown,
        }

    def to_float(self, stored: Tensor) -> Tensor:
        """Return the indices as float32; `OneHot` encodes them."""
        return stored.float()

    def to_stored(self, values: Tensor) -> Tensor:
        return values.round().clamp(0, len(self.alphabet) - 1).to(self.dtype)

    def encode(self, text: str) -> Tensor:
        """Return the stored sample [L] of a line.

        Raises:
            InputError: for a line that is too long, too short without padding, or has characters that the
                alphabet lacks.
        """
        if len(text) > self.length or (len(text) < self.length and self.padding is None):
            allowed = f"up to {self.length}" if self.padding else str(self.length)
            raise InputError(f"{text[:40]!r} has {len(text)} characters; allowed: {allowed}")
        line = text if self.padding is None else text.ljust(self.length, self.padding)
        unknown = None if self.unknown is None else self._numbers[self.unknown]
        numbers = [self._numbers.get(character, unknown) for character in line]
        if None in numbers:
            raise InputError(
                f"{text[:40]!r} has the character {line[numbers.index(None)]!r}; the alphabet is {self.alphabet}"
            )
        return torch.tensor(numbers).to(self.dtype)

    def text(self, stored: Tensor) -> str:
        """Return the line of one stored sample [L], without the padding at its end."""
        line = "".join(self.alphabet[number] for number in stored.tolist())
        return line.rstrip(self.padding) if self.padding else line

    def encoded(self, stored: Tensor) -> bytes:
        """Return one line in UTF-8, with a line feed."""
        return f"{self.text(stored)}\n".encode()

    def decoded(self, data: bytes) -> Tensor:
        try:
            line = data.decode().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"it is not text in UTF-8 ({error.reason})") from error
        return self.encode(line if "\r" in self.alphabet else line.removesuffix("\r"))

    def preview(self, stored: Tensor) -> Tensor:
        """Draw lines, black on white, every character in its cell, uint8 [N, 1, H, W].

        Pillow's font has boxes for most characters outside of Latin.
        """
        count, length = stored.shape
        columns = min(length, _COLUMNS)
        rows = -(-length // columns)
        width, height = _GLYPH
        blank = self._glyphs.new_full((count, rows * columns, height, width), 255)
        blank[:, :length] = self._glyphs[stored.cpu().long()]
        cells = blank.view(count, rows, columns, height, width).transpose(2, 3)
        return cells.reshape(count, 1, rows * height, columns * width)

    def media(self, stored: Tensor) -> bytes:
        return self.encoded(stored)

    @cached_property
    def _glyphs(self) -> Tensor:
        """Images of the characters, uint8 [V, H, W]; padding is a gray cell."""
        width, height = _GLYPH
        font = ImageFont.load_default(15)
        glyphs = np.full((len(self.alphabet), height, width), 255, dtype=np.uint8)
        for number, character in enumerate(self.alphabet):
            glyph = Image.new("L", _GLYPH, 224 if character == self.padding else 255)
            if character != self.padding:
                position = (width / 2, height - 5)
                ImageDraw.Draw(glyph).text(position, character, font=font, fill=0, anchor="ms")
            glyphs[number] = np.asarray(glyph)
        return torch.from_numpy(glyphs)


class OneHot(Representation):
    """Lines [N, L] as networks see them: one-hot, or a generator's probabilities, [N, V, L].

    Args:
        characters: V, in the alphabet.
    """

    def __init__(self, *, characters: int) -> None:
        super().__init__()
        self.characters = characters

    @property
    def arguments(self) -> dict[str, Any]:
        return {"characters": self.characters}

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        return (self.characters, *stored)

    def encode(self, samples: Tensor) -> Tensor:
        return one_hot(samples.long(), self.characters).transpose(1, 2).float()

    def decode(self, values: Tensor) -> Tensor:
        """Return the index of the most likely character at each position."""
        return values.argmax(1).float()


def check_alphabet(alphabet: str, *, padding: str | None, unknown: str | None) -> None:
    """Check that an alphabet has each character once, padding and unknown included.

    Raises:
        InputError: saying what is wrong.
    """
    if not 2 <= len(alphabet) <= MAX_ALPHABET:
        raise InputError(
            f"an alphabet of {len(alphabet)} characters; allowed: 2 to {MAX_ALPHABET:,}"
        )
    twice = next((one for one in alphabet if alphabet.count(one) > 1), None)
    if twice is not None:
        raise InputError(f"the alphabet has {twice!r} twice; give every character once")
    if "\n" in alphabet:
        raise InputError("the alphabet has a line feed, at which lines end; leave it out")
    for what, one in (("padding", padding), ("unknown", unknown)):
        if one is not None and (len(one) != 1 or one not in alphabet):
            raise InputError(f"{what}={one!r} must be one character of the alphabet")
    if padding is not None and padding == unknown:
        raise InputError(f"padding and unknown are both {padding!r}; give two characters")


class Lines(SampleDataset):
    """Lines of text in one array, in memory or memory-mapped.

    Args:
        split: "train" or "val"; only recorded.
        kind: how they are stored.
        lines: [N, L], numbers in the kind's alphabet.
        rows: int64 [M], which of them are in the split; None for all.
        labels: int64 [M].
        class_names: one for each label; none without classes.
        fingerprint: names what the lines are.
    """

    in_memory = True

    def __init__(
        self,
        *,
        split: str,
        kind: Text,
        lines: NDArray[Any],
        rows: NDArray[np.int64] | None = None,
        labels: NDArray[np.int64],
        class_names: Sequence[str] = (),
        fingerprint: str,
    ) -> None:
        counts = np.bincount(labels, minlength=len(class_names)).tolist() if class_names else ()
        super().__init__(
            split=split,
            spec=SampleSpec(
                kind=kind,
                shape=(kind.length,),
                representation=OneHot(characters=len(kind.alphabet)),
                num_classes=len(class_names),
                class_names=tuple(class_names),
                class_counts=tuple(counts),
            ),
            labels=labels,
        )
        self.text = kind
        self._lines = lines
        self._rows = rows
        self._fingerprint = fingerprint

    def load(self, index: int) -> Tensor:
        """Stored line `index`, [L]."""
        return torch.from_numpy(np.array(self._lines[self._place(index)]))

    def stored(self, index: int) -> bytes:
        """Return line `index` as text, which does not depend on the alphabet."""
        return self.text.media(self.load(index))

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return torch.from_numpy(np.array(self._lines[self._place(stored)])), stored

    def _place(self, stored: Any) -> Any:
        return stored if self._rows is None else self._rows[stored]


# From text to lines: code points, one line a row, padded with 0.


def cut_lines(text: str, *, length: int, wrap: bool, least: int) -> NDArray[np.uint32]:
    """Cut text into lines, code points [N, length]; blank lines are left out.

    Args:
        text: with a newline between lines.
        length: of a row.
        wrap: whether longer lines continue in the next row; otherwise they are cut.
        least: minimum number of characters of a row.
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    if not len(points):
        return np.empty((0, length), dtype=np.uint32)
    breaks = np.flatnonzero(points == ord("\n"))
    starts = np.concatenate([[0], breaks + 1])
    stops = np.concatenate([breaks, [len(points)]])
    if wrap:
        parts = -(-(stops - starts) // length)
        first = np.repeat(parts.cumsum() - parts, parts)
        starts = np.repeat(starts, parts) + (np.arange(parts.sum()) - first) * length
        stops = np.repeat(stops, parts)
    sizes = np.minimum(stops - starts, length)
    kept = sizes >= max(least, 1)
    starts, sizes = starts[kept], sizes[kept]
    positions = np.arange(length)
    rows = points[np.minimum(starts[:, None] + positions, len(points) - 1)]
    rows = np.where(positions < sizes[:, None], rows, 0).astype(np.uint32)
    blank = np.isin(rows, [0, *map(ord, " \t")]).all(1)
    return rows[~blank]


def count_characters(rows: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the frequency of each code point in lines, int64 [0x110000]; the filler 0 is not counted."""
    counts = np.bincount(rows.reshape(-1), minlength=0x110000)
    counts[0] = 0
    return counts


def most_frequent(counts: NDArray[np.int64], most: int) -> str:
    """Return the most frequent characters, at most `most`, in order; ties by code point."""
    order = np.argsort(-counts, kind="stable")[: min(most, int((counts > 0).sum()))]
    return "".join(map(chr, order.tolist()))


def numbered(rows: NDArray[np.uint32], kind: Text) -> NDArray[Any]:
    """Convert code points [N, L] to stored lines.

    Raises:
        InputError: for characters that the alphabet lacks without `unknown`, and shorter lines without
            `padding`.
    """
    none = len(kind.alphabet)
    table = np.full(0x110000, none, dtype=np.int32)
    table[[ord(character) for character in kind.alphabet]] = np.arange(none)
    if kind.unknown is not None:
        table[table == none] = kind.alphabet.index(kind.unknown)
    table[0] = none if kind.padding is None else kind.alphabet.index(kind.padding)
    numbers = table[rows]
    if (numbers == none).any():
        missing = sorted({chr(point) for point in np.unique(rows[numbers == none]).tolist()})
        if missing[0] == "\0":
            raise InputError(
                f"lines are shorter than {kind.length} characters, and padding is null; give a padding character"
            )
        raise InputError(
            f"the alphabet lacks {''.join(missing[:20])!r}; add them, or give an unknown character"
        )
    return numbers.astype(np.uint8 if none <= 256 else np.int16)


# Lines packed into one memory-mapped file: ten million lines of 32 characters take 0.4 GB. It is an uncompressed
# `.npz`: `lines` uint8 (int16) [N, L], `labels` int32 [N], `hashes` uint32 [N], and `text`, JSON with the alphabet and
# further metadata.

CHUNK = 1 << 16  # lines processed at a time

_MEMBERS = ("lines", "labels", "hashes")
_LARGEST_TEXT = 1 << 24  # bytes of the JSON


@dataclass(frozen=True, kw_only=True)
class PackedLines:
    """Lines of all splits.

    Attributes:
        kind: how they are stored.
        lines: [N, L].
        labels: int32 [N].
        hashes: uint32 [N]; lines below val_fraction * 2^32 validate; with given splits, 0 (validation) and 2^32 - 1.
        class_names: of the labels; none without classes.
        has_splits: whether splits are given.
        digest: of lines, labels and hashes.
    """

    kind: Text
    lines: NDArray[Any]
    labels: NDArray[np.int32]
    hashes: NDArray[np.uint32]
    class_names: list[str]
    has_splits: bool
    digest: str


@dataclass(frozen=True, kw_only=True)
class LineChunk:
    """Some lines: [n, L], labels [n] and hashes [n]."""

    lines: NDArray[Any]
    labels: NDArray[np.int32]
    hashes: NDArray[np.uint32]


def write_packed(
    path: Path,
    parts: Iterable[LineChunk],
    *,
    count: int,
    kind: Text,
    class_names: list[str],
    has_splits: bool,
) -> None:
    """Write lines, atomically.

    Args:
        path: of the file.
        parts: of the lines, in order.
        count: of all lines.
        kind: how they are stored.
        class_names: of the labels.
        has_splits: whether hashes encode given splits.
    """
    shapes = {
        "lines": ((count, kind.length), np.dtype(np.uint8 if len(kind.alphabet) <= 256 else "<i2")),
        "labels": ((count,), np.dtype("<i4")),
        "hashes": ((count,), np.dtype("<u4")),
    }
    rest: dict[str, list[NDArray[Any]]] = {"labels": [], "hashes": []}
    found = hashlib.sha256()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with _member(archive, "lines", *shapes["lines"]) as file:
            for part in parts:
                data = np.ascontiguousarray(part.lines, dtype=shapes["lines"][1]).tobytes()
                found.update(data)
                file.write(data)
                rest["labels"].append(part.labels)
                rest["hashes"].append(part.hashes)
        for name, pieces in rest.items():
            values = np.concatenate(pieces).astype(shapes[name][1])
            found.update(values.tobytes())
            with _member(archive, name, *shapes[name]) as file:
                file.write(values.tobytes())
        text = {
            **kind.arguments,
            "class_names": class_names,
            "has_splits": has_splits,
            "digest": found.hexdigest()[:32],
        }
        archive.writestr(zipfile.ZipInfo("text.json"), json.dumps(text).encode())


def _member(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> IO[bytes]:
    file = archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def read_packed(path: Path) -> PackedLines:
    """Map the lines of a file into memory.

    Raises:
        InputError: for a file that holds no such lines, or is damaged.
    """
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            missing = [
                n for n in (*(f"{m}.npy" for m in _MEMBERS), "text.json") if n not in members
            ]
            if missing or members["text.json"].file_size > _LARGEST_TEXT:
                raise ValueError(f"it lacks {', '.join(missing) or 'a text.json of usual size'}")
            node = json.loads(archive.read("text.json"))
            arrays = {name: mapped(path, archive, members[f"{name}.npy"]) for name in _MEMBERS}
    except DECODE_ERRORS as error:
        raise InputError(
            f"data.root={path} holds no packed lines ({error}); make it with gan-lab prepare-data data=text"
        ) from error

    def part(key: str, kind: Any) -> Any:
        return take(node, key, kind, origin=path)

    kind = Text(
        alphabet=part("alphabet", str),
        length=part("length", int),
        padding=part("padding", str | None),
        unknown=part("unknown", str | None),
    )
    lines, class_names = arrays["lines"], part("class_names", ClassNames)
    counts = {len(array) for array in arrays.values()}
    is_consistent = len(counts) == 1 and arrays["labels"].ndim == arrays["hashes"].ndim == 1
    is_consistent = is_consistent and arrays["hashes"].dtype == np.uint32
    if lines.ndim != 2 or lines.shape[1] != kind.length or not len(lines) or not is_consistent:
        raise InputError(f"data.root={path} is damaged: its arrays do not fit; make it again")
    if lines.min() < 0 or lines.max() >= len(kind.alphabet):
        raise InputError(
            f"data.root={path} is damaged: it holds characters that its alphabet lacks; make it again"
        )
    labels = arrays["labels"]
    if labels.min() < 0 or labels.max() >= max(len(class_names), 1):
        raise InputError(f"data.root={path} is damaged: labels without a class; make it again")
    return PackedLines(
        kind=kind,
        lines=lines,
        labels=labels,
        hashes=arrays["hashes"],
        class_names=list(class_names),
        has_splits=part("has_splits", bool),
        digest=part("digest", str),
    )
