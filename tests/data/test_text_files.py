"""data=text: files and folders of lines, classes, splits, alphabets and errors."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_lab.data.base import MissingSplit
from gan_lab.data.text_files import TextFiles, line_hashes, pack_lines
from gan_lab.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    root.mkdir()
    (root / "a.txt").write_text("one line\nanother\n\n  \na much longer line than that\n")
    (root / "b.txt").write_text("zwölf Zeilen\r\nno more", newline="")
    return root


def opened(root: Path, **options: Any) -> TextFiles:
    return TextFiles(split="train", **{"root": root, "length": 10, **options})


def texts(data: TextFiles) -> list[str]:
    return [data.text.text(line) for line in data.__getitems__(range(len(data))).real]


def test_lines_of_a_folder(folder: Path) -> None:
    data = opened(folder)
    assert texts(data) == ["one line", "another", "a much lon", "zwölf Zeil", "no more"]
    assert data.in_memory and data.spec.num_classes == 0 and data.spec.shape == (10,)
    assert texts(opened(folder / "b.txt")) == ["zwölf Zeil", "no more"]
    wrapped = opened(folder, long="wrap", min_length=4)
    assert texts(wrapped)[2:5] == ["a much lon", "ger line t", "han that"]
    assert texts(opened(folder, max_lines=2)) == ["one line", "another"]


def test_the_alphabet(folder: Path) -> None:
    data = opened(folder)
    letters = set("".join(texts(data)))
    assert set(data.text.alphabet) == letters | {"␀", "�"}
    count = "".join(texts(data)).count
    assert count(data.text.alphabet[0]) == max(map(count, letters))
    small = opened(folder, alphabet_size=6)
    assert len(small.text.alphabet) == 6 and "�" in texts(small)[0]
    given = opened(folder, alphabet="abcdefghijklmnopqrstuvwxyz ", unknown="-")
    assert texts(given)[3] == "zw-lf -eil" and given.text.alphabet.endswith(" ␀-")
    with pytest.raises(InputError, match=r"b\.txt.*Zö"):
        opened(folder, alphabet="abcdefghijklmnopqrstuvwxyz ", unknown=None)


def test_encodings(folder: Path) -> None:
    (folder / "b.txt").write_bytes("\u00fcber".encode("latin-1"))
    with pytest.raises(InputError, match=r"b\.txt.*utf-8"):
        opened(folder)
    assert texts(opened(folder / "b.txt", encoding="latin-1")) == ["über"]
    (folder / "b.txt").write_bytes("\ufeffüber".encode())
    assert texts(opened(folder / "b.txt")) == ["über"]
    with pytest.raises(InputError, match=r"data\.encoding=klingon"):
        opened(folder, encoding="klingon")


def test_classes_by_file_folder_and_table(folder: Path) -> None:
    by_file = opened(folder, classes="file")
    assert by_file.class_names == ["a", "b"] and by_file.labels.tolist() == [0, 0, 0, 1, 1]
    (folder / "labels.csv").write_text("file,class\na.txt,prose\nb.txt,german\n")
    by_table = opened(folder)
    assert by_table.class_names == ["german", "prose"] and by_table.class_counts == [2, 3]
    assert opened(folder, classes=False).spec.num_classes == 0
    (folder / "labels.csv").unlink()
    for name in ("x", "y"):
        (folder / name).mkdir()
        (folder / f"{name}.txt").write_text(name * 3)
        (folder / f"{name}.txt").rename(folder / name / "t.txt")
    by_folder = opened(folder, classes=True)
    assert by_folder.class_names == ["x", "y"] and texts(by_folder) == ["xxx", "yyy"]


def test_splits_by_hash_and_by_table(folder: Path) -> None:
    (folder / "many.txt").write_text("\n".join(f"line {i % 400}" for i in range(800)))
    parts = {
        split: set(texts(TextFiles(split=split, root=folder, length=10, val_fraction=0.2)))
        for split in ("train", "val")
    }
    assert not parts["train"] & parts["val"] and 40 < len(parts["val"]) < 130
    with pytest.raises(MissingSplit):
        TextFiles(split="val", root=folder, length=10)
    (folder / "labels.csv").write_text("file,split\na.txt,train\nb.txt,val\nmany.txt,test\n")
    assert texts(TextFiles(split="val", root=folder, length=10)) == ["zwölf Zeil", "no more"]
    assert len(opened(folder)) == 3
    with pytest.raises(InputError, match=r"data\.val_fraction=0\.5"):
        opened(folder, val_fraction=0.5)


def test_hashes_are_even() -> None:
    rows = np.random.default_rng(0).integers(97, 99, (4000, 16)).astype(np.uint32)
    hashes = line_hashes(np.unique(rows, axis=0)) / 2**32
    counts = np.histogram(hashes, 10, (0, 1))[0]
    expected = len(hashes) / 10
    assert (np.abs(counts - expected) < 6 * expected**0.5).all()


def test_what_it_is_follows_from_files_and_options(folder: Path) -> None:
    data = opened(folder)
    assert data.fingerprint == opened(folder).fingerprint
    assert data.fingerprint != opened(folder, length=11).fingerprint
    content = data.content_digest()
    copy = folder.parent / "copy"
    copy.mkdir()
    for name in ("a.txt", "b.txt"):
        (copy / name).write_bytes((folder / name).read_bytes())
    assert opened(copy).content_digest() == content
    (copy / "a.txt").write_text("something else\n")
    assert opened(copy).content_digest() != content


def test_packed_lines_are_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / "many.txt").write_text("\n".join(f"line {i}" for i in range(400)))
    options = {"root": folder, "length": 10, "val_fraction": 0.2, "classes": "file"}
    both = [TextFiles(split=split, **options) for split in ("train", "val")]
    out = tmp_path / "lines.npz"
    assert pack_lines(list(both), both[0].text, out) == 405
    for data in both:
        packed = TextFiles(split=data.split, root=out)
        assert texts(packed) == texts(data) and packed.labels.tolist() == data.labels.tolist()
        assert packed.class_names == data.class_names
        assert packed.content_digest() == data.content_digest()
    one = tmp_path / "one.npz"
    data = TextFiles(split="train", root=folder, length=10)
    pack_lines([data], data.text, one)
    again = TextFiles(split="val", root=one, val_fraction=0.2)
    assert texts(again) == texts(TextFiles(split="val", root=folder, length=10, val_fraction=0.2))


def test_what_is_rejected_by_name(folder: Path) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text(" \n\n")
    with pytest.raises(InputError, match=r"blank\.txt.*empty\.txt"):
        opened(folder)
    for name in ("empty.txt", "blank.txt"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"b\.txt"):
        opened(folder / "b.txt", min_length=15, length=20)
    (folder / "c.txt").write_bytes(b"GIF89a\0\0")
    with pytest.raises(InputError, match=r"c\.txt is binary"):
        opened(folder)
    (folder / "c.txt").unlink()
    with pytest.raises(InputError, match=r"\*\.md"):
        opened(folder, pattern="*.md")
    with pytest.raises(InputError, match=r"data\.root"):
        opened(folder / "none.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, r"data\.length=0"),
        ({"min_length": 11}, r"data\.min_length=11"),
        ({"long": "drop"}, r"data\.long='drop'"),
        ({"alphabet_size": 2}, r"data\.alphabet_size=2"),
        ({"max_lines": 0}, r"data\.max_lines=0"),
        ({"padding": None}, r"data\.padding=null"),
        ({"padding": "ab"}, r"data\.padding='ab'"),
        ({"classes": "files"}, r"data\.classes='files'"),
        ({"val_fraction": 1.0}, r"data\.val_fraction=1\.0"),
        ({"length": 10**9}, r"data\.length=1000000000"),
        ({"alphabet": ""}, r"data\.alphabet=''"),
        ({"encoding": "utf-9"}, r"data\.encoding=utf-9"),
        ({"encoding": "zlib"}, r"data\.encoding=zlib"),
        ({"encoding": "rot13"}, r"data\.encoding=rot13"),
        ({"encoding": "undefined"}, r"data\.encoding=undefined"),
        ({"encoding": ""}, r"data\.encoding="),
    ],
)
def test_options_out_of_range(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(folder, **options)


def repacked(folder: Path, out: Path, **changed: bytes) -> Path:
    """Pack lines, with some members of the file replaced."""
    data = TextFiles(split="train", root=folder, length=10)
    pack_lines([data], data.text, out)
    with zipfile.ZipFile(out) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, changed.get(name.partition(".")[0], content))
    return out


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.mark.parametrize(
    "changed",
    [
        {"text": b"[" * 100_000},
        {"text": b"5"},
        {"text": b"\xff"},
        {"lines": array(np.full((4, 10), 255, dtype=np.uint8))},
        {"lines": array(np.full((4, 10), -1, dtype=np.int16))},
        {"lines": array(np.uint8(1))},
        {"labels": array(np.full(4, 7, dtype=np.int32))},
        {"hashes": array(np.zeros(3, dtype=np.uint32))},
        {"hashes": array(np.zeros(4))},
        {"hashes": array(np.full(4, -1))},
        {"labels": array(np.zeros((4, 2), dtype=np.int32))},
    ],
)
def test_hostile_packed_lines_are_named(
    folder: Path, tmp_path: Path, changed: dict[str, bytes]
) -> None:
    path = repacked(folder, tmp_path / "packed.npz", **changed)
    with pytest.raises(InputError, match=r"packed\.npz"):
        opened(path)
