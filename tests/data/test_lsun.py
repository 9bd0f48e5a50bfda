import hashlib
import os
import pickle
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from gan_lab.data.base import MissingSplit
from gan_lab.data.lsun import LSUN, LmdbSource
from gan_lab.errors import InputError
from tests.data.conftest import write_lmdb


def test_reads_pixels_back_in_the_order_of_the_keys(tmp_path: Path) -> None:
    written = write_lmdb(tmp_path / "tower_train_lmdb", 20, 3)
    data = LSUN(split="train", root=tmp_path, image_size=[24, 32])
    assert [data.name(i) for i in range(20)] == [
        f"tower_train_lmdb/{key}" for key in sorted(written)
    ]
    for index, key in enumerate(sorted(written)):
        left = (written[key].shape[1] - 32) // 2
        expected = written[key][:, left : left + 32]
        np.testing.assert_array_equal(data[index].real[0].permute(1, 2, 0), expected)


def test_categories_are_classes(lsun: Path) -> None:
    data = LSUN(split="train", root=lsun, image_size=16)
    assert data.class_names == ["bedroom", "church_outdoor"]
    assert data.class_counts == [7, 5]
    turned = LSUN(split="train", root=lsun, categories=["church_outdoor", "bedroom"], image_size=16)
    assert turned.class_names == ["church_outdoor", "bedroom"]
    assert turned.labels.tolist() == [0] * 5 + [1] * 7
    assert turned.name(0).startswith("church_outdoor_train_lmdb/")
    val = LSUN(split="val", root=lsun, image_size=16)
    assert val.class_names == data.class_names
    assert val.class_counts == [3, 0]
    with pytest.raises(MissingSplit):
        LSUN(split="val", root=lsun, categories=["church_outdoor"])


def test_root_may_be_one_of_the_folders(lsun: Path) -> None:
    data = LSUN(split="val", root=lsun / "bedroom_train_lmdb", image_size=16)
    assert (data.class_names, len(data)) == (["bedroom"], 3)


def test_two_datasets_read_the_same_lmdb_in_one_process(lsun: Path) -> None:
    one, two = (LSUN(split="train", root=lsun, image_size=16) for _ in range(2))
    for index in range(12):
        assert torch.equal(one[index].real, two[index].real)


def test_a_forked_process_opens_its_own(lsun: Path) -> None:
    data = LSUN(split="train", root=lsun, image_size=16)
    expected = data.__getitems__(range(12)).real.numpy().tobytes()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(
                writer, hashlib.sha256(data.__getitems__(range(12)).real.numpy().tobytes()).digest()
            )
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == hashlib.sha256(expected).digest()
    assert data.__getitems__(range(12)).real.numpy().tobytes() == expected


def test_can_be_sent_to_another_process(lsun: Path) -> None:
    data = LSUN(split="train", root=lsun, image_size=16)
    assert torch.equal(pickle.loads(pickle.dumps(data))[3].real, data[3].real)


def test_keys_are_listed_once(lsun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lsun / "bedroom_train_lmdb"
    first = LmdbSource(folders=[folder])
    monkeypatch.setattr("gan_lab.data.lsun._list_keys", lambda folder: pytest.fail("listed again"))
    second = LmdbSource(folders=[folder])
    assert [first.name(i) for i in range(7)] == [second.name(i) for i in range(7)]


def test_wrong_values_are_named(lsun: Path) -> None:
    write_lmdb(lsun / "tower_train_lmdb", 2, 5)
    environment = lmdb.open(str(lsun / "tower_train_lmdb"), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        transaction.put(b"zzz", b"no image")
    environment.close()
    with pytest.raises(InputError, match=r"1 unreadable file: tower_train_lmdb/zzz \(not an image"):
        LSUN(split="train", root=lsun, categories=["tower"])
    data = LSUN(split="train", root=lsun, categories=["tower"], skip_unreadable=True)
    assert len(data) == 2


def test_refuses_what_is_not_there(lsun: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"\['kitchen'\]: kitchen, but .* has bedroom, church_outdoor"
    ):
        LSUN(split="train", root=lsun, categories=["kitchen"])
    with pytest.raises(InputError, match=r"has no \*_train_lmdb folder; set data.root=PATH"):
        LSUN(split="train", root=tmp_path)


def test_refuses_what_is_not_a_lmdb(tmp_path: Path) -> None:
    folder = tmp_path / "bedroom_train_lmdb"
    folder.mkdir()
    with pytest.raises(InputError, match=r"is not an LMDB folder: it has no data.mdb"):
        LSUN(split="train", root=tmp_path)
    (folder / "data.mdb").write_bytes(b"junk" * 5000)
    with pytest.raises(InputError, match=r"is not an LMDB that can be read: .*; copy it again"):
        LSUN(split="train", root=tmp_path)


def test_an_empty_lmdb_is_rejected(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path / "bedroom_train_lmdb")).close()
    with pytest.raises(InputError, match="is an empty LMDB"):
        LSUN(split="train", root=tmp_path)


def test_names_the_extra_that_is_missing(lsun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(InputError, match=r"pip install 'gan-laboratory\[lmdb\]'"):
        LSUN(split="train", root=lsun)
