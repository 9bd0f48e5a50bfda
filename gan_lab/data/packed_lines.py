"""Lines of text in one memory-mapped file: ten million lines of 32 characters take 0.4 GB.

An uncompressed `.npz`: `lines` uint8 (int16) [N, L], `labels` int32 [N], `places` uint32 [N], and `text`, JSON with the
alphabet and further metadata.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gan_lab.config import ClassNames, take
from gan_lab.data.cache import mapped
from gan_lab.data.decoding import DECODE_ERRORS, check_regular
from gan_lab.data.text import Text
from gan_lab.errors import InputError
from gan_lab.run import replacing

CHUNK = 1 << 16  # lines processed at a time

_MEMBERS = ("lines", "labels", "places")
_LARGEST_TEXT = 1 << 24  # bytes of the JSON


@dataclass(frozen=True, kw_only=True)
class PackedLines:
    """Lines of all splits.

    Attributes:
        kind: how they are stored.
        lines: [N, L].
        labels: int32 [N].
        places: uint32 [N], those below a share of 2^32 validate; 0 and 2^32 - 1 where splits are given.
        class_names: of the labels; none without classes.
        has_splits: whether splits are given.
        digest: of lines, labels and places.
    """

    kind: Text
    lines: NDArray[Any]
    labels: NDArray[np.int32]
    places: NDArray[np.uint32]
    class_names: list[str]
    has_splits: bool
    digest: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some lines: [n, L], labels [n] and places [n]."""

    lines: NDArray[Any]
    labels: NDArray[np.int32]
    places: NDArray[np.uint32]


def write_packed(
    path: Path,
    parts: Iterable[Part],
    *,
    count: int,
    kind: Text,
    class_names: list[str],
    has_splits: bool,
) -> None:
    """Write lines as they come, whole or not at all.

    Args:
        path: of the file.
        parts: of the lines, in order.
        count: of all lines.
        kind: how they are stored.
        class_names: of the labels.
        has_splits: whether places say which lines validate.
    """
    shapes = {
        "lines": ((count, kind.length), np.dtype(np.uint8 if len(kind.alphabet) <= 256 else "<i2")),
        "labels": ((count,), np.dtype("<i4")),
        "places": ((count,), np.dtype("<u4")),
    }
    rest: dict[str, list[NDArray[Any]]] = {"labels": [], "places": []}
    found = hashlib.sha256()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with _member(archive, "lines", *shapes["lines"]) as file:
            for part in parts:
                data = np.ascontiguousarray(part.lines, dtype=shapes["lines"][1]).tobytes()
                found.update(data)
                file.write(data)
                rest["labels"].append(part.labels)
                rest["places"].append(part.places)
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
    is_alike = len(counts) == 1 and arrays["labels"].ndim == arrays["places"].ndim == 1
    is_alike = is_alike and arrays["places"].dtype == np.uint32
    if lines.ndim != 2 or lines.shape[1] != kind.length or not len(lines) or not is_alike:
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
        places=arrays["places"],
        class_names=list(class_names),
        has_splits=part("has_splits", bool),
        digest=part("digest", str),
    )
