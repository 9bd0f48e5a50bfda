"""Shards: a folder of zips as prepare-data packs them, and `index.npz`, with the position of each sample.

The index is read, not rebuilt: its arrays are mapped into memory. A shard holds samples of one split, drawn at random
from all of it, and is itself a zip that `data=zip` reads. Its `dataset.json` says which one it is, as `Shard`.
"""

import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for these before Python 3.12

from gan_lab.config import take
from gan_lab.data.base import digest
from gan_lab.data.cache import MEMBER_HEADER, Arrays, mapped
from gan_lab.data.decoding import DECODE_ERRORS, check_regular
from gan_lab.data.listing import PACKED_ENDING, SOURCE_ENDING, format_names
from gan_lab.data.packing import PACKED_BY, name_beside
from gan_lab.data.tables import METADATA
from gan_lab.errors import InputError, counted
from gan_lab.run import replacing

INDEX = "index.npz"
_HEADER = "index.json"  # the member that describes the samples
_LARGEST_HEADER = 1 << 26
_LARGEST_SHARD = 2**32  # bytes, for positions of 32 bits

Count = Annotated[int, Field(ge=0, le=2**40)]


class Shard(TypedDict):
    """The description of a shard, "shard" in its dataset.json.

    plan identifies the samples of all shards and their order; it is the given number of that many shards, of a split,
    and holds `rows` samples, less those that were left out as damaged. spec is as `SampleSpec.as_dict` gives it, and
    excerpts the node of the split's `Excerpts`.
    """

    plan: str
    number: Count
    of: Count
    split: str
    rows: Count
    left_out: Count
    packed_by: str
    spec: dict[str, Any]
    excerpts: dict[str, Any]


_SHARD = TypeAdapter(Shard)


class ShardEntry(TypedDict):
    """A shard in the index: its file, that file's bytes, its split, and how many samples it holds.

    table is the position of its dataset.json: first byte, number of bytes, CRC-32.
    """

    name: str
    bytes: Count
    split: str
    count: Annotated[int, Field(ge=1, le=2**32)]
    table: tuple[Count, Count, Count]


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The positions of the samples of all shards.

    Attributes:
        spec: of a sample, as `SampleSpec.as_dict` gives it.
        packed_by: as `SampleDataset.packed_by`.
        excerpts: nodes of the `Excerpts` of each split.
        shards: in order, grouped by split.
        positions: uint32 [N, 3] of all samples: first byte in the shard, number of bytes, CRC-32.
        packed: the same of what is packed beside them, or None.
        sources: the same of the sources of pairs, or None.
        labels: int32 [N].
        attributes: float32 [N, K], where labels are vectors, or None.
        groups: int32 [N], or None.
        digest: of everything.
    """

    spec: dict[str, Any]
    packed_by: str
    excerpts: dict[str, dict[str, Any]]
    shards: list[ShardEntry]
    positions: NDArray[np.uint32]
    packed: NDArray[np.uint32] | None
    sources: NDArray[np.uint32] | None
    labels: NDArray[np.int32]
    attributes: NDArray[np.float32] | None
    groups: NDArray[np.int32] | None
    digest: str


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:06d}.zip"


def shard_rows(splits: Sequence[str], *, rows_a_shard: int) -> list[tuple[str, NDArray[np.int64]]]:
    """Return (split, rows) of each shard: all rows of a split, in a fixed random order, in equal parts.

    Args:
        splits: of each row.
        rows_a_shard: rows in a shard, at most.
    """
    given = np.array(splits)
    found: list[tuple[str, NDArray[np.int64]]] = []
    for split in dict.fromkeys(splits):
        rows = np.random.default_rng(0).permutation(np.flatnonzero(given == split))
        parts = np.array_split(rows, -(-len(rows) // rows_a_shard))
        found += [(split, part) for part in parts]
    return found


def read_shard(path: Path) -> Shard | None:
    """Return a shard's description; None for another or a damaged zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _SHARD.validate_python(json.loads(archive.read(METADATA))["shard"], strict=True)
    except (*DECODE_ERRORS, ValidationError):
        return None


# Merging


def write_index(folder: Path) -> ShardIndex:
    """Check that a folder holds each shard of one plan exactly once, and write its index.

    Raises:
        InputError: naming shards that are missing, double, of another plan, unfinished or damaged.
    """
    shards = _check_complete(folder)
    entries: list[ShardEntry] = []
    columns: dict[str, list[NDArray[Any]]] = {}
    groups: dict[str, int] = {}
    for name, shard in shards:
        arrays, table = _shard_arrays(folder / name, shard, groups)
        count = len(arrays["positions"])
        if not count:
            continue  # all of it was damaged, and left out
        size = (folder / name).stat().st_size
        entries.append(
            ShardEntry(name=name, bytes=size, split=shard["split"], count=count, table=table)
        )
        for column, values in arrays.items():
            columns.setdefault(column, []).append(values)
    if not entries:
        raise InputError(f"out={folder}: nothing could be read of all samples; repair them")
    first = shards[0][1]
    save_index(
        folder / INDEX,
        entries,
        {column: np.concatenate(parts) for column, parts in columns.items()},
        spec=first["spec"],
        packed_by=first["packed_by"],
        excerpts={shard["split"]: shard["excerpts"] for _, shard in shards},
    )
    return read_index(folder / INDEX)


def save_index(
    path: Path,
    shards: list[ShardEntry],
    arrays: Arrays,
    *,
    spec: dict[str, Any],
    packed_by: str,
    excerpts: dict[str, dict[str, Any]],
) -> None:
    """Write an index; `arrays` are those of `ShardIndex` by name."""
    header = {"spec": spec, "packed_by": packed_by, "excerpts": excerpts, "shards": shards}
    contents = (values.tobytes() for _, values in sorted(arrays.items()))
    header["digest"] = digest(header, *contents)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for column, values in arrays.items():
            info = zipfile.ZipInfo(f"{column}.npy")
            with archive.open(info, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        archive.writestr(zipfile.ZipInfo(_HEADER), json.dumps(header))


def _check_complete(folder: Path) -> list[tuple[str, Shard]]:
    """Return the shards of a folder by name, in order, each checked to be there once."""
    if not folder.is_dir():
        raise InputError(f"out={folder} is not a folder of shards")
    unfinished = sorted(path.name for path in folder.glob("*.zip.part"))
    if unfinished:
        raise InputError(
            f"out={folder}: {format_names(unfinished, limit=5)} is not finished; give its prepare-data again"
        )
    found: list[tuple[str, Shard]] = []
    for path in sorted(folder.glob("*.zip")):
        shard = read_shard(path)
        if shard is None:
            raise InputError(
                f"out={folder}: {path.name} is damaged, or no shard; remove it, and give its prepare-data again"
            )
        found.append((path.name, shard))
    if not found:
        raise InputError(f"out={folder} holds no shards; make them with prepare-data out={folder}")
    plans = Counter(shard["plan"] for _, shard in found)
    usual = plans.most_common(1)[0][0]
    others = [name for name, shard in found if shard["plan"] != usual]
    if others:
        raise InputError(
            f"out={folder}: {format_names(others, limit=5)} of {counted(len(found), 'shard')} are of other data or "
            "settings than the rest; remove them, and give their prepare-data again with the same settings"
        )
    numbers = Counter(shard["number"] for _, shard in found)
    double = [
        name for name, s in found if numbers[s["number"]] > 1 or name != shard_name(s["number"])
    ]
    if double:
        raise InputError(
            f"out={folder}: {format_names(double, limit=5)} are there twice, or under another's name; remove the copies"
        )
    count = found[0][1]["of"]
    missing = [shard_name(number) for number in range(count) if number not in numbers]
    if missing:
        raise InputError(
            f"out={folder}: {len(missing):,} of {counted(count, 'shard')} are missing: "
            f"{format_names(missing, limit=5)}; give the prepare-data of that part again"
        )
    return found


def _shard_arrays(
    path: Path, shard: Shard, groups: dict[str, int]
) -> tuple[Arrays, tuple[int, int, int]]:
    """Return a shard's rows of the index, and its table's position; `groups` numbers the names of all shards.

    Raises:
        InputError: when its members are not those of its table.
    """
    with zipfile.ZipFile(path) as archive:
        table = json.loads(archive.read(METADATA))
        (position,) = _positions([archive.getinfo(METADATA)]).tolist()
        members = [m for m in archive.infolist() if m.filename not in (METADATA, PACKED_BY)]
    if path.stat().st_size >= _LARGEST_SHARD:
        raise InputError(f"{path} has more than 4 GB; pack with a lower shard_mb=")
    samples = [m for m in members if not m.filename.endswith((PACKED_ENDING, SOURCE_ENDING))]
    names = [member.filename for member in samples]
    arrays: Arrays = {"positions": _positions(samples)}
    for column, ending, wanted in (
        ("packed", PACKED_ENDING, shard["packed_by"]),
        ("sources", SOURCE_ENDING, shard["spec"]["source"]),
    ):
        beside = [member for member in members if member.filename.endswith(ending)]
        if [m.filename for m in beside] != [name_beside(n, ending) for n in names if wanted]:
            raise InputError(f"{path} is damaged: its {ending} files are not those of its samples")
        if wanted:
            arrays[column] = _positions(beside)

    def values_of(key: str) -> list[Any]:
        if [name for name, _ in table[key]] != names:
            raise InputError(f"{path} is damaged: {key} of other members than it holds")
        return [value for _, value in table[key]]

    if chosen := shard["spec"]["attributes"]:
        known = table["attribute_names"] or chosen
        vectors = np.array(values_of("attributes"), dtype=np.float32).reshape(-1, len(known))
        arrays["attributes"] = vectors[:, [known.index(name) for name in chosen]]
    labels = values_of("labels") if table["labels"] is not None else [0] * len(names)
    arrays["labels"] = np.array(labels, dtype=np.int32)
    if table.get("groups") is not None:
        numbers = [groups.setdefault(str(one), len(groups)) for one in values_of("groups")]
        arrays["groups"] = np.array(numbers, dtype=np.int32)
    if len(names) + shard["left_out"] != shard["rows"]:
        raise InputError(
            f"{path} is damaged: it holds {len(names):,} of {shard['rows']:,} samples; pack it again"
        )
    return arrays, position


def _positions(members: Sequence[zipfile.ZipInfo]) -> NDArray[np.uint32]:
    """First byte, bytes and CRC-32 of uncompressed members without extra fields, as `RestartableZip` writes them."""
    rows = [
        (m.header_offset + MEMBER_HEADER + len(m.filename.encode()), m.file_size, m.CRC)
        for m in members
    ]
    return np.array(rows, dtype=np.uint32).reshape(-1, 3)


# Reading


def read_index(path: Path) -> ShardIndex:
    """Map an index into memory.

    Raises:
        InputError: when it is damaged, or something else.
    """
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if members[_HEADER].file_size > _LARGEST_HEADER:
                raise ValueError(f"{_HEADER} has {members[_HEADER].file_size:,} bytes")
            header = json.loads(archive.read(_HEADER))
            arrays = {
                name.removesuffix(".npy"): mapped(path, archive, member)
                for name, member in members.items()
                if name != _HEADER
            }
            positions, labels = arrays["positions"], arrays["labels"]
    except DECODE_ERRORS as error:
        raise InputError(
            f"{path} is not the index of shards ({error}); make it with gan-lab prepare-data out={path.parent} "
            "merge=true"
        ) from error
    shards = take(header, "shards", list[ShardEntry], origin=path)
    if any(len(values) != sum(s["count"] for s in shards) for values in arrays.values()):
        raise InputError(f"{path} is damaged: its arrays do not fit; merge the shards again")
    return ShardIndex(
        spec=take(header, "spec", dict[str, Any], origin=path),
        packed_by=take(header, "packed_by", str, origin=path),
        excerpts=take(header, "excerpts", dict[str, dict[str, Any]], origin=path),
        shards=shards,
        positions=positions,
        packed=arrays.get("packed"),
        sources=arrays.get("sources"),
        labels=labels,
        attributes=arrays.get("attributes"),
        groups=arrays.get("groups"),
        digest=take(header, "digest", str, origin=path),
    )
