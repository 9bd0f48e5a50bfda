import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_lab.data.cifar10 import CIFAR10
from gan_lab.errors import InputError
from tests.data.conftest import NAMES
from tests.helpers.samples import pair


def test_the_files_are_as_python_2_wrote_them(published: Any) -> None:
    """The head of the published data_batch_1, and the standard library's reading of all of it."""
    folder, content = published
    data = (folder / "data_batch_1").read_bytes()
    assert data.startswith(
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(K"
    )
    read = pickle.loads(data, encoding="bytes")
    expected = content["data_batch_1"]
    assert list(read) == list(expected)
    assert read[b"labels"] == expected[b"labels"]
    assert read[b"filenames"] == expected[b"filenames"]
    np.testing.assert_array_equal(read[b"data"], expected[b"data"])


def test_reads_pixels_and_labels_back_exactly(published: Any) -> None:
    folder, content = published
    train, val = CIFAR10(split="train", root=folder), CIFAR10(split="val", root=folder.parent)
    assert train.class_names == NAMES
    for data, batches in (
        (train, [content[f"data_batch_{i}"] for i in range(1, 6)]),
        (val, [content["test_batch"]]),
    ):
        images, labels = pair(data.__getitems__(range(len(data))))
        rows = np.concatenate([each[b"data"] for each in batches])
        # 1024 red values row by row, then green, then blue
        np.testing.assert_array_equal(images, rows.reshape(-1, 3, 32, 32))
        assert labels.tolist() == [label for each in batches for label in each[b"labels"]]
    assert train.in_memory


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_copies_that_python_3_wrote(published: Any, protocol: int) -> None:
    folder, content = published
    expected = CIFAR10(split="val", root=folder)
    for keys in (bytes, str):
        for name in ("test_batch", "batches.meta"):
            values = content[name]
            if keys is str:
                values = {key.decode(): value for key, value in values.items()}
            (folder / name).write_bytes(pickle.dumps(values, protocol=protocol))
        assert CIFAR10(split="val", root=folder).fingerprint == expected.fingerprint


def test_resizes(published: Any) -> None:
    data = CIFAR10(split="val", root=published[0], image_size=[16, 32], channels=1)
    assert data.__getitems__([0, 1]).real.shape == (2, 1, 16, 32)


class Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_rejected_and_nothing_is_run(
    published: Any, tmp_path: Path, protocol: int
) -> None:
    folder, _ = published
    mark = tmp_path / "it was run"
    for attack in (
        Hostile(os.system, f"touch '{mark}'"),
        Hostile(eval, f"open({str(mark)!r}, 'w')"),
        Hostile(getattr, "text", "encode"),
    ):
        content = {"label_names": NAMES, "x": attack}
        (folder / "batches.meta").write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(
            InputError, match=r"is rejected: it asks for \w+\.(system|eval|getattr)"
        ):
            CIFAR10(split="train", root=folder)
        assert not mark.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\nload\n.",  # another name of an allowed module
        b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",  # a path through an allowed name
        b"cnumpy.core.multiarray\nscalar\n.",
        b"c_codecs\ndecode\n.",
    ],
)
def test_only_the_names_that_arrays_need_are_known(published: Any, code: bytes) -> None:
    (published[0] / "batches.meta").write_bytes(code)
    with pytest.raises(InputError, match="is rejected: it asks for"):
        CIFAR10(split="train", root=published[0])


def test_other_codecs_and_object_arrays_are_rejected(published: Any) -> None:
    folder, _ = published
    (folder / "batches.meta").write_bytes(b"c_codecs\nencode\n(X\x01\0\0\0xX\x03\0\0\0bz2tR.")
    with pytest.raises(InputError, match="codec 'bz2'"):
        CIFAR10(split="train", root=folder)
    objects = {"label_names": NAMES, "data": np.array([None, {}], dtype=object)}
    (folder / "batches.meta").write_bytes(pickle.dumps(objects, protocol=2))
    with pytest.raises(InputError, match="array of other values than numbers"):
        CIFAR10(split="train", root=folder)


def test_damage_is_named(published: Any) -> None:
    folder, content = published
    path = folder / "data_batch_3"
    whole = path.read_bytes()
    for part in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        with pytest.raises(InputError, match=r"data_batch_3 is damaged: .*copy it again"):
            CIFAR10(split="train", root=folder)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match="holds a list; expected a dictionary"):
        CIFAR10(split="train", root=folder)
    for wrong, message in (
        ({b"labels": [0]}, "has no data and labels"),
        ({**content["data_batch_3"], b"labels": [0]}, r"holds data \(7, 3072\) for 1 labels"),
        ({**content["data_batch_3"], b"labels": [0] * 6 + [10]}, r"labels outside 0..9"),
        (
            {**content["data_batch_3"], b"data": np.zeros((7, 3072), np.uint16)},
            "data of type uint16",
        ),
        (
            {**content["data_batch_3"], b"data": np.zeros((7, 10), np.uint8)},
            r"holds data \(7, 10\)",
        ),
    ):
        path.write_bytes(pickle.dumps(wrong, protocol=2))
        with pytest.raises(InputError, match=message):
            CIFAR10(split="train", root=folder)


def test_missing_files_are_named(published: Any, tmp_path: Path) -> None:
    folder, _ = published
    (folder / "data_batch_4").unlink()
    with pytest.raises(InputError, match=r"data_batch_4 is not there; set data.root=PATH to"):
        CIFAR10(split="train", root=folder)
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(InputError, match=r"is a file; unpack it \(tar xzf\)"):
        CIFAR10(split="train", root=archive)
