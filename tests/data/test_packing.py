import json
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gan_lab.data import packing
from gan_lab.data.metadata import MetadataTable, join_tables
from gan_lab.data.packing import Damaged, Packer, RestartableZip

ITEMS = [(f"{i:03d}.png", bytes([i]) * (10 + i)) for i in range(20)]


def pack(
    out: Path, plan: str = "plan", *, stop: int | None = None, every: int = 4
) -> RestartableZip:
    """Write ITEMS with some checkpoints; with `stop`, leave the files as a kill would."""
    archive = RestartableZip(out=out, plan=plan)
    for name, data in ITEMS[archive.done :]:
        if archive.done == stop:
            archive._file.flush()
            archive.abandon()
            return archive
        if name == "007.png":
            archive.give_up(name, "seven", "cut short")
        else:
            archive.add(name, data)
        if archive.done % every == 0:
            archive.checkpoint()
    archive.finish("dataset.json", b"{}")
    return archive


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    pack(tmp_path / "whole.zip")
    return (tmp_path / "whole.zip").read_bytes()


def test_holds_every_item_uncompressed(tmp_path: Path, whole: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
        assert archive.testzip() is None
        names = [name for name, _ in ITEMS if name != "007.png"]
        assert archive.namelist() == [*names, "dataset.json"]
        for name, data in ITEMS:
            if name != "007.png":
                assert archive.read(name) == data
                assert archive.getinfo(name).compress_type == zipfile.ZIP_STORED
    assert [path.name for path in tmp_path.glob("whole.zip*")] == ["whole.zip"]


@pytest.mark.parametrize("every", [1, 3, 100])
def test_checkpoints_leave_no_trace(tmp_path: Path, whole: bytes, every: int) -> None:
    pack(tmp_path / "a.zip", every=every)
    assert (tmp_path / "a.zip").read_bytes() == whole


@pytest.mark.parametrize("stop", range(0, 20))
def test_stopped_anywhere_and_started_again_ends_the_same(
    tmp_path: Path, whole: bytes, stop: int
) -> None:
    out = tmp_path / "a.zip"
    pack(out, stop=stop)
    assert not out.exists()
    archive = RestartableZip(out=out, plan="plan")
    assert archive.done == stop // 4 * 4
    archive.abandon()
    finished = pack(out)
    assert finished.failed == [("007.png", "seven", "cut short")]
    assert out.read_bytes() == whole


def test_whatever_follows_the_checkpoint_is_dropped(tmp_path: Path, whole: bytes) -> None:
    out, part = tmp_path / "a.zip", tmp_path / "a.zip.part"
    pack(out, stop=9)
    end = len(part.read_bytes())
    for size in range(end - 200, end + 200, 13):
        kept = part.read_bytes()[:size].ljust(size, b"\xff")
        if size < end - 150:
            continue
        part.write_bytes(kept)
        RestartableZip(out=out, plan="plan").abandon()
    pack(out)
    assert out.read_bytes() == whole


def test_another_plan_starts_again(tmp_path: Path, whole: bytes) -> None:
    pack(tmp_path / "a.zip", plan="other", stop=9)
    assert RestartableZip(out=tmp_path / "a.zip", plan="plan").done == 0
    pack(tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == whole


@pytest.mark.parametrize("damage", ["no part", "short part", "no journal", "cut journal"])
def test_damage_starts_again(tmp_path: Path, whole: bytes, damage: str) -> None:
    out, part, journal = (tmp_path / f"a.zip{end}" for end in ("", ".part", ".journal"))
    pack(out, stop=9)
    if damage == "no part":
        part.unlink()
    elif damage == "short part":
        part.write_bytes(part.read_bytes()[:50])
    elif damage == "no journal":
        journal.unlink()
    else:
        journal.write_bytes(journal.read_bytes()[:20])
    assert RestartableZip(out=out, plan="plan").done == 0
    pack(out)
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    "state", ["{}", "[1]", "5", "[" * 100_000, '{"plan": 1, "end": -1, "done": "x", "failed": 5}']
)
def test_a_journal_of_something_else_starts_anew(tmp_path: Path, state: str) -> None:
    pack(tmp_path / "a.zip", stop=9)
    (tmp_path / "a.zip.journal").write_text(f"{state}\n")
    assert RestartableZip(out=tmp_path / "a.zip", plan="plan").done == 0


TABLE = MetadataTable(
    files=[f"photo {i}" for i in range(30)],
    labels=np.arange(30) % 3,
    class_names=["a", "b", "c"],
    captions=[f"number {i}" for i in range(30)],
    splits=["train"] * 20 + ["val"] * 10,
)


def encode(row: int) -> bytes | Damaged:
    return Damaged(reason="cut short") if row in (4, 25) else bytes([row]) * 9


def pack_samples(out: Path, *, table: MetadataTable = TABLE, stop: int | None = None) -> Packer:
    packer = Packer(out=out, table=table, plan="samples", suffix=".bin")
    for done in packer.pack(encode, num_threads=3):
        if done == stop:
            packer.abandon()
            return packer
    packer.finish()
    return packer


def test_samples_lie_beside_their_rows(tmp_path: Path) -> None:
    packer = pack_samples(tmp_path / "a.zip")
    assert packer.damaged == [("photo 4", "cut short"), ("photo 25", "cut short")]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        table = json.loads(archive.read("dataset.json"))
        labels, captions = dict(table["labels"]), dict(table["captions"])
        assert len(labels) == 28 and set(labels) == set(captions)
        for name, label in labels.items():
            row = archive.read(name)[0]
            assert label == row % 3 and captions[name] == f"number {row}"
            assert name.startswith("train/00000/img" if row < 20 else "val/00000/img")
        assert table["val"] == [name for name in labels if name.startswith("val/")]


@pytest.mark.parametrize("stop", [1, 5, 12, 29])
def test_packing_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(packing, "CHECKPOINT_SAMPLES", 4)
    pack_samples(tmp_path / "whole.zip")
    pack_samples(tmp_path / "a.zip", stop=stop)
    again = Packer(out=tmp_path / "a.zip", table=TABLE, plan="samples", suffix=".bin")
    assert again.done == stop // 4 * 4
    again.abandon()
    pack_samples(tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_another_table_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CHECKPOINT_SAMPLES", 4)
    pack_samples(tmp_path / "a.zip", stop=12)
    other = join_tables([TABLE.rows(range(20)), TABLE.rows(range(29, 19, -1))])
    packer = Packer(out=tmp_path / "a.zip", table=other, plan="samples", suffix=".bin")
    assert packer.done == 0
    packer.abandon()


def test_checkpoints_of_a_large_zip_become_rare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes the whole directory, so that equal intervals would cost the square of the number of samples."""
    monkeypatch.setattr(packing, "CHECKPOINT_SAMPLES", 4)
    table = MetadataTable(files=["a"] * 2000, labels=np.zeros(2000, np.int64), class_names=["a"])
    packer = Packer(out=tmp_path / "a.zip", table=table, plan="many", suffix=".bin")
    saved = [0]
    monkeypatch.setattr(packer, "checkpoint", lambda: saved.append(packer.done))
    for _ in packer.pack(lambda row: b"a", num_threads=1):
        pass
    packer.abandon()
    assert all(b - a == max(4, b // 10) for a, b in pairwise(saved))
    assert len(saved) < 60, "and not 500"
