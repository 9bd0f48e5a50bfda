"""Packed lines: mapped, not read, and rejected where they are damaged."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gan_lab.data.text import LineChunk, Text, read_packed, write_packed
from gan_lab.errors import InputError

KIND = Text(alphabet="ab·", length=3, padding="·")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    parts = [
        LineChunk(
            lines=random.integers(0, 3, (n, 3)).astype(np.uint8),
            labels=np.arange(n, dtype=np.int32) % 2,
            hashes=random.integers(0, 2**32, n).astype(np.uint32),
        )
        for n in (5, 2)
    ]
    path = tmp_path / "lines.npz"
    write_packed(path, parts, count=7, kind=KIND, class_names=["x", "y"], has_splits=False)
    return path


def test_numpy_reads_the_same(packed: Path) -> None:
    found = read_packed(packed)
    assert isinstance(found.lines, np.memmap) and found.lines.shape == (7, 3)
    with np.load(packed) as arrays:
        for name in ("lines", "labels", "hashes"):
            np.testing.assert_array_equal(arrays[name], getattr(found, name))
    assert found.kind.arguments == KIND.arguments and found.class_names == ["x", "y"]


def changed(path: Path, **replaced: bytes) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = path.with_name("changed.npz")
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            new = replaced.get(name.partition(".")[0], data)
            if new:
                archive.writestr(name, new)
    return out


def test_damage_is_named(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        text = json.loads(archive.read("text.json"))
    cases = {
        "lacks": b"",
        "do not fit": json.dumps({**text, "length": 4}).encode(),
        "labels": json.dumps({**text, "class_names": ["x"]}).encode(),
        "alphabet": json.dumps({**text, "alphabet": 3}).encode(),
    }
    for message, content in cases.items():
        with pytest.raises(InputError, match=message):
            read_packed(changed(packed, text=content))
    other = tmp_path / "images.npz"
    np.savez(other, images=np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="prepare-data"):
        read_packed(other)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(InputError, match="prepare-data"):
        read_packed(cut)
