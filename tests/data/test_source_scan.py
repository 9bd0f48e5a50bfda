from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lab.data import source as source_module
from gan_lab.data.source import FileSource, scan


def photo(path: Path, *, size: tuple[int, int] = (40, 60), **options: object) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def cut(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def reasons(root: Path, *names: str) -> dict[int, str]:
    return scan(FileSource(root=root, names=names)).reasons


def test_reads_sizes_and_channels(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", size=(20, 30))
    photo(tmp_path / "b.png", size=(7, 5))
    Image.new("L", (3, 4)).save(tmp_path / "c.png")
    Image.new("RGBA", (3, 4)).save(tmp_path / "d.webp", lossless=True)
    Image.new("P", (3, 4)).save(tmp_path / "e.gif", transparency=0)
    Image.new("I;16", (3, 4)).save(tmp_path / "f.png")
    found = scan(
        FileSource(root=tmp_path, names=["a.jpg", "b.png", "c.png", "d.webp", "e.gif", "f.png"])
    )
    assert found.reasons == {}
    assert found.shapes.tolist() == [
        [20, 30, 3, 8], [7, 5, 3, 8], [4, 3, 1, 8], [4, 3, 4, 8], [4, 3, 4, 8], [4, 3, 1, 16],
    ]  # fmt: skip


def test_size_is_that_after_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "a.jpg", size=(20, 30), exif=exif)
    assert scan(FileSource(root=tmp_path, names=["a.jpg"])).shapes.tolist() == [[30, 20, 3, 8]]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.99])
def test_finds_truncation(tmp_path: Path, ending: str, part: float) -> None:
    photo(tmp_path / f"whole.{ending}")
    photo(tmp_path / f"cut.{ending}")
    cut(tmp_path / f"cut.{ending}", part)
    assert list(reasons(tmp_path, f"whole.{ending}", f"cut.{ending}")) == [1]


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_found(tmp_path: Path) -> None:
    """An end-of-image mark inside the file does not make it complete."""
    photo(tmp_path / "thumb.jpg", size=(8, 8))
    exif = b"Exif\0\0" + b"MM\0*\0\0\0\x08\0\0\0\0\0\0" + (tmp_path / "thumb.jpg").read_bytes()
    photo(tmp_path / "a.jpg", exif=exif)
    assert reasons(tmp_path, "a.jpg") == {}
    cut(tmp_path / "a.jpg", 0.8)
    assert list(reasons(tmp_path, "a.jpg")) == [0]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_padding_behind_a_whole_image_is_no_truncation(tmp_path: Path, ending: str) -> None:
    photo(tmp_path / f"a.{ending}")
    with (tmp_path / f"a.{ending}").open("ab") as file:
        file.write(bytes(100))
    assert reasons(tmp_path, f"a.{ending}") == {}


def test_text_missing_files_and_unknown_ranges_have_reasons(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)).save(tmp_path / "float.tiff")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    found = reasons(tmp_path, "text.png", "float.tiff", "dangling.png")
    assert found[0] == "not an image, or its beginning is damaged"
    assert "4 of 4 values are NaN" in found[1]
    assert "No such file" in found[2]


def count_inspections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []
    inspect = source_module.inspect
    monkeypatch.setattr(
        source_module,
        "inspect",
        lambda file, **options: (calls.append(file), inspect(file, **options))[1],
    )
    return calls


def test_a_second_start_looks_only_at_what_was_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{i:03d}.png" for i in range(600)]  # more than one chunk
    for name in names:
        photo(tmp_path / name, size=(2, 2))
    cut(tmp_path / names[300], 0.5)
    first = scan(FileSource(root=tmp_path, names=names))
    calls = count_inspections(monkeypatch)
    second = scan(FileSource(root=tmp_path, names=names))
    assert len(calls) == 1
    assert first.reasons == second.reasons
    assert list(first.reasons) == [300]
    np.testing.assert_array_equal(first.shapes, second.shapes)


def test_a_changed_file_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "a.png", size=(2, 2))
    assert reasons(tmp_path, "a.png") == {}
    cut(tmp_path / "a.png", 0.5)
    assert list(reasons(tmp_path, "a.png")) == [0]
    photo(tmp_path / "a.png", size=(3, 3))
    assert scan(FileSource(root=tmp_path, names=["a.png"])).shapes.tolist() == [[3, 3, 3, 8]]


def test_a_repaired_file_of_the_same_time_is_seen(tmp_path: Path) -> None:
    """The reason may have been a permission, which changes neither size nor modification time."""
    photo(tmp_path / "whole.png")
    link = tmp_path / "a.png"
    link.symlink_to(tmp_path / "later.png")
    source = FileSource(root=tmp_path, names=["a.png"])
    listing = source.listing
    assert list(scan(source).reasons) == [0]

    class SameListing(FileSource):
        listing = property(lambda self: listing)  # type: ignore[assignment]

    (tmp_path / "whole.png").rename(tmp_path / "later.png")
    found = scan(SameListing(root=tmp_path, names=["a.png"]))
    assert found.reasons == {}
    assert found.shapes.tolist() == [[40, 60, 3, 8]]


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 cut short"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, empty_cache: Path, damage: bytes) -> None:
    photo(tmp_path / "a.png", size=(2, 3))
    reasons(tmp_path, "a.png")
    (kept,) = empty_cache.rglob("*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    assert scan(FileSource(root=tmp_path, names=["a.png"])).shapes.tolist() == [[2, 3, 3, 8]]
    assert kept.read_bytes() == whole


def test_goes_on_without_a_cache_that_cannot_be_written(
    tmp_path: Path, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "a.png", size=(2, 3))
    empty_cache.rmdir()
    empty_cache.write_text("a file where the folder should be")
    assert scan(FileSource(root=tmp_path, names=["a.png"])).shapes.tolist() == [[2, 3, 3, 8]]
    assert "GAN_LAB_CACHE" in capsys.readouterr().out
