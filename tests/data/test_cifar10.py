import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_lab.data.cifar10 import CIFAR10
from gan_lab.errors import InputError
from tests.helpers.samples import pair

NAMES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


class Python2Pickle:
    """Writes what cPickle of Python 2 wrote at protocol 2, opcode by opcode: its strings are bytes, all memoised."""

    def __init__(self) -> None:
        self.out = b"\x80\x02"
        self._memo = 0

    def put(self) -> None:
        self._memo += 1
        self.out += (
            b"q" + bytes([self._memo]) if self._memo < 256 else b"r" + struct.pack("<I", self._memo)
        )

    def string(self, text: bytes) -> None:
        head = b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))
        self.out += head + text
        self.put()

    def integer(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += b"K" + bytes([value])
        elif 0 <= value < 65536:
            self.out += b"M" + struct.pack("<H", value)
        else:
            self.out += b"J" + struct.pack("<i", value)

    def sequence(self, values: list) -> None:
        self.out += b"]"
        self.put()
        self.out += b"("
        for value in values:
            self.integer(value) if isinstance(value, int) else self.string(value)
        self.out += b"e"

    def array(self, array: np.ndarray) -> None:
        self.out += b"cnumpy.core.multiarray\n_reconstruct\n"
        self.put()
        self.out += b"cnumpy\nndarray\n"
        self.put()
        self.out += b"K\x00\x85"
        self.put()
        self.string(b"b")
        self.out += b"\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"(K\x01"
        for side in array.shape:
            self.integer(side)
        self.out += b"\x86"
        self.put()
        self.out += b"cnumpy\ndtype\n"
        self.put()
        self.string(b"u1")
        self.out += b"K\x00K\x01\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"(K\x03"
        self.string(b"|")
        self.out += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
        self.put()
        self.out += b"b\x89"
        self.string(array.tobytes())
        self.out += b"t"
        self.put()
        self.out += b"b"

    def dictionary(self, content: dict[bytes, Any]) -> bytes:
        self.out += b"}"
        self.put()
        self.out += b"("
        for key, value in content.items():
            self.string(key)
            if isinstance(value, np.ndarray):
                self.array(value)
            elif isinstance(value, list):
                self.sequence(value)
            elif isinstance(value, int):
                self.integer(value)
            else:
                self.string(value)
        return self.out + b"u."


def batch(name: bytes, count: int, seed: int) -> dict[bytes, Any]:
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": name,
        b"labels": rng.integers(0, 10, count).tolist(),
        b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"filenames": [b"picture_s_%06d.png" % i for i in range(count)],
    }


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, dict[str, dict[bytes, Any]]]:
    """The seven files with a few images each, and what is in them."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    content = {
        f"data_batch_{i}": batch(b"training batch %d of 5" % i, 4 + i, i) for i in range(1, 6)
    }
    content["test_batch"] = batch(b"testing batch 1 of 1", 6, 99)
    content["batches.meta"] = {
        b"num_cases_per_batch": 10000,
        b"label_names": [name.encode() for name in NAMES],
        b"num_vis": 3072,
    }
    for name, values in content.items():
        (folder / name).write_bytes(Python2Pickle().dictionary(values))
    return folder, content


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
def test_a_hostile_pickle_is_refused_and_nothing_is_run(
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
        with pytest.raises(InputError, match=r"is refused: it asks for \w+\.(system|eval|getattr)"):
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
    with pytest.raises(InputError, match="is refused: it asks for"):
        CIFAR10(split="train", root=published[0])


def test_other_codecs_and_object_arrays_are_refused(published: Any) -> None:
    folder, _ = published
    (folder / "batches.meta").write_bytes(b"c_codecs\nencode\n(X\x01\0\0\0xX\x03\0\0\0bz2tR.")
    with pytest.raises(InputError, match="codec 'bz2'"):
        CIFAR10(split="train", root=folder)
    objects = {"label_names": NAMES, "data": np.array([None, {}], dtype=object)}
    (folder / "batches.meta").write_bytes(pickle.dumps(objects, protocol=2))
    with pytest.raises(InputError, match="array of something else than numbers"):
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
