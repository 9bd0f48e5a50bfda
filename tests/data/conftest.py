"""Images that the tests write."""

import hashlib
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
WriteImages = Callable[..., dict[str, Pixels]]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path / "cache_of_gan_lab"
    folder.mkdir()
    monkeypatch.setenv("GAN_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def write_images() -> WriteImages:
    """Write PNG files with random pixels; returns relative name -> [H, W, C]."""

    def write(
        root: Path,
        names: list[str],
        *,
        size: tuple[int, int] = (6, 8),
        channels: int = 3,
        **options: Any,
    ) -> dict[str, Pixels]:
        rng = np.random.default_rng(len(names))
        written = {}
        for name in names:
            pixels = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path, **options)
            written[name] = pixels
        return written

    return write


# the header of the published list_attr_celeba.txt, with the blank at its end
ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones "
    "Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline "
    "Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick "
    "Wearing_Necklace Wearing_Necktie Young "
)


PARTS = [0, 0, 0, 0, 1, 1, 2]


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """Seven faces as published: JPEG of 178x218, a count and a header line, values of width two."""
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{i + 1:06d}.jpg" for i in range(7)]
    rows = []
    for index, name in enumerate(names):
        pixels = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "img_align_celeba" / name, quality=95)
        values = [1 if (index + column) % 3 == 0 else -1 for column in range(40)]
        rows.append(f"{name} " + " ".join(f"{value:2d}" for value in values))
    (root / "list_attr_celeba.txt").write_text("\n".join(["7", ATTRIBUTES, *rows]) + "\n")
    partition = [f"{name} {part}" for name, part in zip(names, PARTS, strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    return root


NAMES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


class Python2Pickle:
    """Writes what cPickle of Python 2 wrote at protocol 2, opcode by opcode: its strings are bytes, all memoized."""

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


def write_lmdb(folder: Path, count: int, seed: int) -> dict[str, np.ndarray]:
    """As published: SHA-1 in hex for the key, a WebP file for the value; returns key -> decoded pixels."""
    rng = np.random.default_rng(seed)
    pixels = {}
    environment = lmdb.open(str(folder), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        for _ in range(count):
            file = io.BytesIO()
            image = rng.integers(0, 256, (24, 32 + int(rng.integers(8)), 3), dtype=np.uint8)
            Image.fromarray(image).save(file, format="WEBP", quality=90)
            key = hashlib.sha1(file.getvalue()).hexdigest()
            transaction.put(key.encode(), file.getvalue())
            with Image.open(file) as stored:
                pixels[key] = np.asarray(stored)
    environment.close()
    return pixels


@pytest.fixture
def lsun(tmp_path: Path) -> Path:
    root = tmp_path / "lsun"
    root.mkdir()
    write_lmdb(root / "bedroom_train_lmdb", 7, 0)
    write_lmdb(root / "bedroom_val_lmdb", 3, 1)
    write_lmdb(root / "church_outdoor_train_lmdb", 5, 2)
    return root
