import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_lab.data.base import MissingSplit
from gan_lab.data.image_folder import Zip
from gan_lab.errors import InputError
from tests.helpers.samples import pair
from tests.helpers.zips import NAMES, write_zip


def test_reads_pixels_and_labels_back_exactly(tmp_path: Path) -> None:
    labels = {name: (7 * i) % 3 for i, name in enumerate(NAMES)}
    pairs = [[name, labels[name]] for name in reversed(NAMES)]
    written = write_zip(tmp_path / "a.zip", {"labels": pairs})
    data = Zip(split="train", root=tmp_path / "a.zip")
    assert (data.image_size, data.channels) == ((6, 8), 3)
    assert data.class_names == ["0", "1", "2"]
    for index in range(10):
        image, label = (part[0] for part in pair(data[index]))
        np.testing.assert_array_equal(image.permute(1, 2, 0), written[data.name(index)])
        assert label == labels[data.name(index)]


@pytest.mark.parametrize("metadata", [None, {"labels": None}, {}])
def test_no_labels_are_one_class(tmp_path: Path, metadata: Any) -> None:
    write_zip(tmp_path / "a.zip", metadata)
    data = Zip(split="train", root=tmp_path / "a.zip")
    assert data.class_names == ["all"]
    assert data.labels.tolist() == [0] * 10
    with pytest.raises(MissingSplit):
        Zip(split="val", root=tmp_path / "a.zip")


def test_class_names_and_validation_images_of_prepare_data(tmp_path: Path) -> None:
    metadata = {
        "labels": [[name, 1] for name in NAMES],
        "class_names": ["cat", "dog", "owl"],
        "val": NAMES[7:],
    }
    write_zip(tmp_path / "a.zip", metadata)
    train, val = (Zip(split=split, root=tmp_path / "a.zip") for split in ("train", "val"))
    assert train.class_names == val.class_names == ["cat", "dog", "owl"]
    assert train.class_counts == [0, 7, 0]
    assert [val.name(i) for i in range(3)] == NAMES[7:]
    with pytest.raises(InputError, match="has its own splits"):
        Zip(split="val", root=tmp_path / "a.zip", val_fraction=0.1)


def test_validation_by_name(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip")
    parts = [Zip(split=s, root=tmp_path / "a.zip", val_fraction=0.4) for s in ("train", "val")]
    names = [data.name(i) for data in parts for i in range(len(data))]
    assert sorted(names) == NAMES


def test_each_process_opens_its_own_file(tmp_path: Path) -> None:
    """Two processes with one file descriptor would move each other's position."""
    write_zip(tmp_path / "a.zip", names=[f"{i:03d}.png" for i in range(200)])
    data = Zip(split="train", root=tmp_path / "a.zip")
    expected = data.__getitems__(range(200)).real
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            same = all(torch.equal(data.__getitems__(range(200)).real, expected) for _ in range(3))
            os._exit(0 if same else 1)
        children.append(child)
    assert torch.equal(data.__getitems__(range(200)).real, expected)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.__getitems__(range(200)).real, expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[name, 0] for name in NAMES[1:]], rf"no label for 1 image: {NAMES[0]}"),
        ([[name, 0] for name in [*NAMES, "x.png"]], r"labels for 1 file that are missing: x.png"),
        ([[name, -1] for name in NAMES], r"whole numbers from 0"),
        ([[name, 0.5] for name in NAMES], r"whole numbers from 0"),
        ([[name, 10**9] for name in NAMES], r"whole numbers from 0 to 999,999"),
        ([3, 4], r"pairs of a name and a number"),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path: Path, labels: Any, message: str) -> None:
    write_zip(tmp_path / "a.zip", {"labels": labels})
    with pytest.raises(InputError, match=message):
        Zip(split="train", root=tmp_path / "a.zip")


def test_too_few_class_names(tmp_path: Path) -> None:
    metadata = {"labels": [[name, 5] for name in NAMES], "class_names": ["a"]}
    write_zip(tmp_path / "a.zip", metadata)
    with pytest.raises(InputError, match="names 1 class and has labels up to 5"):
        Zip(split="train", root=tmp_path / "a.zip")


def test_refuses_what_is_not_a_zip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Zip(split="train", root=tmp_path / "a.zip")
    with pytest.raises(InputError, match=r"for a folder of images use data=image_folder"):
        Zip(split="train", root=tmp_path)
    write_zip(tmp_path / "a.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-100])
    with pytest.raises(InputError, match="is not a complete zip"):
        Zip(split="train", root=tmp_path / "cut.zip")
    write_zip(tmp_path / "none.zip", names=["notes.txt"])
    with pytest.raises(InputError, match=r"holds no images \(but notes.txt\)"):
        Zip(split="train", root=tmp_path / "none.zip")
    with zipfile.ZipFile(tmp_path / "json.zip", "w") as archive:
        archive.writestr("a.png", b"")
        archive.writestr("dataset.json", "{")
    with pytest.raises(InputError, match=r"dataset.json is damaged"):
        Zip(split="train", root=tmp_path / "json.zip")


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        at = archive.getinfo(NAMES[4]).header_offset + 30 + len(NAMES[4]) + 60
    damaged = bytearray((tmp_path / "a.zip").read_bytes())
    damaged[at] ^= 255
    (tmp_path / "a.zip").write_bytes(damaged)
    with pytest.raises(InputError, match=rf"1 unreadable file: {NAMES[4]} \(Bad CRC-32"):
        Zip(split="train", root=tmp_path / "a.zip")
    assert len(Zip(split="train", root=tmp_path / "a.zip", skip_unreadable=True)) == 9


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("éé".encode(), b"\xff\xfe\xfd\xfc"),  # a name that is no UTF-8
        (b"PK\x01\x02\x14\x03\x14\0", b"PK\x01\x02\x14\x03\xff\0"),  # a version to come
    ],
)
def test_zips_that_cannot_be_opened_are_named(tmp_path: Path, old: bytes, new: bytes) -> None:
    write_zip(tmp_path / "a.zip", names=["éé.png"])
    data = (tmp_path / "a.zip").read_bytes()
    assert old in data
    (tmp_path / "b.zip").write_bytes(data.replace(old, new))
    with pytest.raises(InputError, match=r"b\.zip (is not a complete zip|holds no images)"):
        Zip(split="train", root=tmp_path / "b.zip")


def test_a_member_that_claims_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00002/bomb.png", bytes(5_000_000))
    monkeypatch.setattr("gan_lab.data.image_folder._LARGEST_MEMBER", 4_000_000)
    with pytest.raises(InputError, match=r"bomb\.png \(it claims 5,000,000 bytes"):
        Zip(split="train", root=tmp_path / "a.zip")


def test_a_note_of_who_packed_it_may_be_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("by.packed", bytes(5_000_000))
    monkeypatch.setattr("gan_lab.data.tables.MAX_TABLE_BYTES", 4_000_000)
    with pytest.raises(InputError, match=r"a\.zip: by\.packed is larger than 4,000,000 bytes"):
        Zip(split="train", root=tmp_path / "a.zip")
