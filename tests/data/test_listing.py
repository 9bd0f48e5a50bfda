import os
import zipfile
from pathlib import Path

import pytest

from gan_lab.data.image_folder import ImageFolder, Zip
from gan_lab.data.listing import list_folder, list_zip


def fill(root: Path, write_images) -> None:
    write_images(root, ["a.png", "sub/b.JPEG", "c.png", ".hidden.png", "__MACOSX/d.png"])
    (root / "c.png").rename(root / "c")  # no ending
    (root / "sub" / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    (root / "photo.psd").write_bytes(b"8BPS" + bytes(100))
    (root / "empty").write_bytes(b"")
    for name in ("words.csv", "README", "notes.txt", "sub/info.json", "Thumbs.db"):
        (root / name).write_text("words")


IMAGES = ["a.png", "c", "sub/b.JPEG"]
SIDE_FILES = ["README", "notes.txt", "sub/info.json", "words.csv"]
PASSED_OVER = [(name, "not an image") for name in ("empty", "photo.psd", "sub/film.mp4")]


def test_a_folder_and_its_zip_list_the_same(tmp_path: Path, write_images) -> None:
    root = tmp_path / "images"
    fill(root, write_images)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for listing in (list_folder(root), list_zip(archive)):
            assert listing.images == IMAGES
            assert listing.side_files == SIDE_FILES
            assert listing.passed_over == PASSED_OVER


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_passed_over_is_counted_and_named_once(
    tmp_path: Path, write_images, capsys, packed: bool
) -> None:
    root = tmp_path / "images"
    fill(root, write_images)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root))
    for split in ("train", "train"):
        if packed:
            Zip(split=split, root=tmp_path / "a.zip", classes=False)
        else:
            ImageFolder(split=split, root=root, classes=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "passed over" in line]
    assert "3 files: not an image (empty, photo.psd, sub/film.mp4)" in line
    assert "words.csv" not in line


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, write_images, monkeypatch) -> None:
    write_images(tmp_path, ["a.png", "lost/b.png"])
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("lost/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list_folder(tmp_path).passed_over == [("lost/", "Permission denied")]


def test_links_to_themselves_and_folders_too_deep(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a.png"])
    (tmp_path / "b.png").symlink_to("c.png")
    (tmp_path / "c.png").symlink_to("b.png")
    (tmp_path / "again").symlink_to(tmp_path)
    before = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(17):  # longer than a path may be
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
    finally:
        os.chdir(before)
    listing = list_folder(tmp_path)
    assert listing.images == ["a.png", "b.png", "c.png"], "that two lead nowhere the check says"
    assert [reason for _, reason in listing.passed_over] == ["File name too long"]
