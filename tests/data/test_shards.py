import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gan_lab.data.builtin import Digits
from gan_lab.data.image_folder import Zip
from gan_lab.data.shards import INDEX, read_index, read_shard, shard_name, shard_rows, write_index
from gan_lab.errors import InputError
from tests.helpers.prepared import packed_digits, prepare


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_digits(tmp_path_factory)


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    """A copy of them, without an index."""
    folder = tmp_path / "digits"
    shutil.copytree(packed, folder)
    (folder / INDEX).unlink()
    return folder


def test_every_row_is_in_one_shard_of_its_split() -> None:
    splits = ["train"] * 103 + ["val"] * 20
    dealt = shard_rows(splits, rows_a_shard=10)
    assert sorted(np.concatenate([rows for _, rows in dealt])) == list(range(123))
    assert [split for split, _ in dealt] == ["train"] * 11 + ["val"] * 2
    assert {len(rows) for _, rows in dealt} <= {9, 10}
    assert all(splits[row] == split for split, rows in dealt for row in rows)
    assert max(np.diff(dealt[0][1])) > 1, "in a random order"
    again = shard_rows(splits, rows_a_shard=10)
    assert all((one == other).all() for (_, one), (_, other) in zip(dealt, again, strict=True))


def test_an_index_has_the_position_of_each_sample(packed: Path) -> None:
    index = read_index(packed / INDEX)
    assert Counter(shard["split"] for shard in index.shards) == {"train": 15, "val": 4}
    assert len(index.positions) == 1797
    row = 0
    for shard in index.shards:
        path = packed / shard["name"]
        data = path.read_bytes()
        assert len(data) == shard["bytes"]
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".png")]
            assert len(members) == shard["count"]
            for member in members:
                start, size, crc = index.positions[row].tolist()
                assert data[start : start + size] == archive.read(member) and crc == member.CRC
                row += 1


def test_each_shard_is_a_zip_of_its_own(packed: Path) -> None:
    data = Zip(split="train", root=packed / shard_name(0))
    assert data.class_names == Digits(split="train").class_names
    index = read_index(packed / INDEX)
    assert data.labels.tolist() == index.labels[: len(data)].tolist()


def test_merging_again_gives_the_same_index(packed: Path, shards: Path) -> None:
    assert write_index(shards).digest == read_index(packed / INDEX).digest
    assert (shards / INDEX).read_bytes() == (packed / INDEX).read_bytes()


def test_what_is_wrong_with_a_folder_of_shards_is_named(shards: Path, tmp_path: Path) -> None:
    victim, kept = shards / shard_name(3), tmp_path / "kept.zip"
    victim.rename(kept)
    with pytest.raises(InputError, match=r"1 of 19 shards are missing: shard-000003.zip"):
        write_index(shards)
    shutil.copy(kept, victim)
    shutil.copy(kept, shards / "shard-000003 (copy).zip")
    with pytest.raises(InputError, match=r"shard-000003 \(copy\).zip.*twice"):
        write_index(shards)
    (shards / "shard-000003 (copy).zip").unlink()
    victim.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"shard-000003.zip is damaged"):
        write_index(shards)
    prepare("data=digits", "split=train", f"out={tmp_path / 'other'}", "shard_mb=0.0256")
    shutil.copy(tmp_path / "other" / shard_name(3), victim)
    with pytest.raises(InputError, match=r"shard-000003.zip of 19 shards are of other data"):
        write_index(shards)
    shutil.copy(kept, victim)
    part = shards / f"{shard_name(7)}.part"
    part.touch()
    with pytest.raises(InputError, match=r"shard-000007.zip.part is not finished"):
        write_index(shards)
    part.unlink()
    write_index(shards)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no shards"):
        write_index(tmp_path / "empty")


def test_no_other_file_is_taken_for_a_shard_or_an_index(packed: Path, tmp_path: Path) -> None:
    data = (packed / INDEX).read_bytes()
    for name, content in {"a": b"", "b": data[:-50], "c": b"PK\3\4" + bytes(99)}.items():
        (tmp_path / name).write_bytes(content)
        assert read_shard(tmp_path / name) is None
        with pytest.raises(InputError, match="is not the index of shards"):
            read_index(tmp_path / name)
