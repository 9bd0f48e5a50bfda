"""Metadata tables: `dataset.json`, `labels.csv`, `.tsv`, `.json`, `.jsonl`."""

import csv
import io
import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

METADATA = "dataset.json"  # of NVIDIA's dataset tools, and of prepare-data
TABLES = (METADATA, "labels.csv", "labels.tsv", "labels.json", "labels.jsonl")

# column -> accepted headers; the first one found counts
_HEADERS = {
    "file": ("file", "file_name", "filename", "image", "path", "name"),
    "class": ("class", "class_name", "label"),
    "attributes": ("attributes",),
    "group": ("group", "patient", "patient_id", "subject", "subject_id"),
    "series": ("series", "series_id"),
    "split": ("split",),
    "caption": ("caption", "text", "prompt"),
}
_KNOWN = {header for headers in _HEADERS.values() for header in headers}
_PAIRS = {"attributes": "attributes", "groups": "group", "series": "series", "captions": "caption"}
MAX_TABLE_BYTES = 1 << 30


class BadTable(ValueError):
    """The table cannot be parsed."""


@dataclass(kw_only=True)
class Columns:
    """The content of a table.

    Attributes:
        files: one per row, relative to the table's folder.
        values: "class", "attributes", "group", "series", "split" or "caption" -> one value a row, None where it is
            missing.
        class_names: by number, where the table has them.
        attribute_names: where the table has them.
        no_classes: whether the table states that there are none.
        vectors_are_labels: whether the labels are attribute vectors.
        unused: unknown headers.
        group_column: the header that "group" comes from.
        spacing: (height, width) of a pixel in mm, where the table has it.
    """

    files: list[str]
    values: dict[str, list[Any]]
    class_names: list[str] | None = None
    attribute_names: list[str] | None = None
    no_classes: bool = False
    vectors_are_labels: bool = False
    unused: list[str] = field(default_factory=list)
    group_column: str = ""
    spacing: tuple[float, float] | None = None


def read_table(file: IO[bytes]) -> bytes:
    """Content of a table.

    Raises:
        BadTable: when it is larger than MAX_TABLE_BYTES.
    """
    data = file.read(MAX_TABLE_BYTES + 1)
    if len(data) > MAX_TABLE_BYTES:
        raise BadTable(f"is larger than {MAX_TABLE_BYTES:,} bytes")
    return data


def parse_table(
    name: str, data: bytes, *, is_image: Callable[[str], bool], group_by: str | None = None
) -> Columns:
    """Parse the content of a table.

    Args:
        name: of the table; its ending decides.
        data: its content.
        is_image: whether a name is an image, to distinguish a header from a first row.
        group_by: header of the column that names groups, where it is not one of the usual.

    Raises:
        BadTable: saying what is wrong with it.
    """
    try:
        text = data.decode("utf-8-sig")
        if name.endswith((".csv", ".tsv")):
            return _from_csv(text, name, is_image, group_by)
        if name.endswith(".jsonl"):
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            return _from_json(rows, group_by)
        return _from_json(json.loads(text), group_by)
    except BadTable:
        raise
    except UnicodeDecodeError as error:
        raise BadTable(f"is no text in UTF-8 ({error.reason}): save it as UTF-8") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise BadTable(f"is damaged ({error})") from error


def _from_json(content: Any, group_by: str | None) -> Columns:
    if isinstance(content, list):
        if content and all(isinstance(row, dict) for row in content):
            return _from_rows(content, group_by)
        return _labeled(_pairs(content))
    if not isinstance(content, dict):
        raise BadTable('must hold an object with "labels", or a list of rows')
    by_name = {"labels", "class_names", "attribute_names", "val", "spacing", *_PAIRS}
    labels = content.get("labels")
    if content and not by_name.intersection(content):
        labels = content  # {name: label}
    columns = (
        Columns(files=[], values={}, no_classes=True)
        if labels is None
        else _labeled(_pairs(labels))
    )
    columns.class_names = _texts(content, "class_names")
    columns.attribute_names = _texts(content, "attribute_names")
    columns.spacing = _spacing(content)
    for key, column in _PAIRS.items():
        if content.get(key) is not None:
            _add(columns, column, _pairs(content[key]))
    val = _texts(content, "val")
    if val is not None:
        _add(columns, "split", dict.fromkeys(map(_slashes, val), "val"))
    return columns


def _pairs(given: Any) -> dict[str, Any]:
    try:
        pairs = (
            given.items() if isinstance(given, dict) else [(name, value) for name, value in given]
        )
        return {_slashes(name): value for name, value in pairs}
    except (TypeError, ValueError, AttributeError) as error:
        raise BadTable(
            "must hold labels as pairs of a name and a number, a name or a vector"
        ) from error


def _labeled(labels: dict[str, Any]) -> Columns:
    values = list(labels.values())
    vectors = bool(values) and all(isinstance(value, list) for value in values)
    return Columns(
        files=list(labels),
        values={"attributes" if vectors else "class": values},
        vectors_are_labels=vectors,
    )


def _add(columns: Columns, column: str, by_file: dict[str, Any]) -> None:
    """Add a column, and rows for files that are new."""
    known = set(columns.files)
    columns.files = [*columns.files, *(file for file in by_file if file not in known)]
    for values in columns.values.values():
        values.extend([None] * (len(columns.files) - len(values)))
    columns.values[column] = [by_file.get(file) for file in columns.files]


def _texts(content: dict[str, Any], key: str) -> list[str] | None:
    given = content.get(key)
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(one, str | int) for one in given):
        raise BadTable(f'must hold a list of names as "{key}"')
    return [str(one) for one in given]


def _spacing(content: dict[str, Any]) -> tuple[float, float] | None:
    given = content.get("spacing")
    if given is None:
        return None
    are_numbers = isinstance(given, list) and all(type(mm) in (int, float) for mm in given)
    if not are_numbers or len(given) != 2 or not all(0 < mm < float("inf") for mm in given):
        raise BadTable('must hold two numbers of mm above 0 as "spacing"')
    return float(given[0]), float(given[1])


def _from_csv(
    text: str, name: str, is_image: Callable[[str], bool], group_by: str | None
) -> Columns:
    first = text.partition("\n")[0]
    delimiter = "\t" if name.endswith(".tsv") else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[list[str]] = []
    for row in reader:
        cells = [cell.strip() for cell in row]
        if rows and any(cells) and len(cells) != len(rows[0]):
            raise BadTable(
                f"has {len(cells)} cells in line {reader.line_num} and {len(rows[0])} in its first"
            )
        if any(cells):
            rows.append(cells)
    if not rows:
        raise BadTable("is empty")
    headers = [header.lower() if header.lower() in _KNOWN else header for header in rows[0]]
    if not set(headers).intersection(_HEADERS["file"]):
        if len(headers) < 2 or not is_image(_slashes(rows[0][0])):
            raise BadTable(
                f"needs a header with file and class, split, group, caption or attributes; it begins with "
                f"{', '.join(rows[0])[:80]}"
            )
        headers = (
            ["file", "class"] if len(headers) == 2 else ["file", *map(str, range(len(headers) - 1))]
        )
    else:
        rows = rows[1:]
    return _from_rows(
        [
            {header: cell or None for header, cell in zip(headers, row, strict=True) if header}
            for row in rows
        ],
        group_by,
    )


def _from_rows(rows: list[dict[str, Any]], group_by: str | None) -> Columns:
    headers = list(dict.fromkeys(header for row in rows for header in row))
    header_of = {
        column: next((alias for alias in aliases if alias in headers), None)
        for column, aliases in _HEADERS.items()
    }
    if group_by in headers:
        header_of["group"] = group_by
    file = header_of.pop("file")
    files = [row.get(file) for row in rows] if file else []
    if not files or not all(isinstance(name, str) for name in files):
        raise BadTable("must name the file in every row, as file")
    values = {
        column: [row.get(header) for row in rows]
        for column, header in header_of.items()
        if header is not None
    }
    columns = Columns(
        files=[_slashes(str(name)) for name in files],
        values=values,
        group_column=header_of["group"] or "",
    )
    name, count = Counter(columns.files).most_common(1)[0]
    if count > 1:
        raise BadTable(f"has several rows for {name}")
    others = [header for header in headers if header not in _KNOWN and header != group_by]
    numbers = {header: _numbers(row.get(header) for row in rows) for header in others}
    numeric = [header for header in others if numbers[header] is not None]
    columns.unused = [header for header in others if numbers[header] is None]
    if numeric and "attributes" not in values:
        columns.attribute_names = numeric
        vectors = zip(*(numbers[header] or [] for header in numeric), strict=True)
        values["attributes"] = [list(vector) for vector in vectors]
        columns.vectors_are_labels = "class" not in values
    return columns


def _numbers(values: Iterable[Any]) -> list[float] | None:
    """Convert all to numbers, or return None."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return None


def _slashes(name: Any) -> str:
    if not isinstance(name, str):
        raise BadTable(f"must name files by text, not {name!r}")
    name = name.replace("\\", "/")
    return posixpath.normpath(name) if "./" in name or "//" in name else name
