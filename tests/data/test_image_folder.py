import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lab.data.base import MissingSplit
from gan_lab.data.image_files import UnreadableImage
from gan_lab.data.image_folder import ImageFolder
from gan_lab.errors import InputError
from tests.helpers.samples import pair


def test_reads_pixels_back_exactly(tmp_path: Path, write_images) -> None:
    written = write_images(tmp_path, ["b.png", "a.png", "deep/er/c.png"])
    data = ImageFolder(split="train", root=tmp_path, classes=False)
    assert (data.image_size, data.channels, data.class_names) == ((6, 8), 3, ["all"])
    assert [data.name(i) for i in range(3)] == ["a.png", "b.png", "deep/er/c.png"]
    for index in range(3):
        image, label = (part[0] for part in pair(data[index]))
        np.testing.assert_array_equal(image.permute(1, 2, 0), written[data.name(index)])
        assert label == 0


def test_sub_folders_are_classes(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["dog/1.png", "cat/1.png", "cat/deep/2.png"])
    data = ImageFolder(split="train", root=str(tmp_path))
    assert data.class_names == ["cat", "dog"]
    assert data.labels.tolist() == [0, 0, 1]
    assert data.class_counts == [2, 1]
    assert data.labels.tolist() == [0, 0, 1]


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a.PNG", ".b.png", "._a.png", ".git/c.png", "__MACOSX/d.png"])
    (tmp_path / "notes.txt").write_text("hello")
    data = ImageFolder(split="train", root=tmp_path)
    assert [data.name(i) for i in range(len(data))] == ["a.PNG"]


def test_links_that_lead_back_end(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a/1.png"])
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(ImageFolder(split="train", root=tmp_path)) == 1


def test_images_beside_class_folders_must_be_decided(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["cat/1.png", "dog/1.png", "preview.png"])
    with pytest.raises(InputError, match=r"1 image itself and 2 in sub-folders; set data.classes"):
        ImageFolder(split="train", root=tmp_path)
    assert ImageFolder(split="train", root=tmp_path, classes=True).class_counts == [1, 1]
    assert ImageFolder(split="train", root=tmp_path, classes=False).class_counts == [3]


def test_validation_images_are_chosen_by_name(tmp_path: Path, write_images) -> None:
    names = [f"{i:03d}.png" for i in range(100)]
    write_images(tmp_path, names)
    options = {"root": tmp_path, "val_fraction": 0.2}
    train, val = ImageFolder(split="train", **options), ImageFolder(split="val", **options)
    in_train = {train.name(i) for i in range(len(train))}
    in_val = {val.name(i) for i in range(len(val))}
    assert in_train | in_val == set(names)
    assert not in_train & in_val
    assert 8 <= len(in_val) <= 32  # 20 expected, standard deviation 4
    write_images(tmp_path, ["more.png"])
    again = ImageFolder(split="val", **options)
    assert in_val <= {again.name(i) for i in range(len(again))}


def test_without_a_fraction_there_is_no_validation(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a.png"])
    with pytest.raises(MissingSplit):
        ImageFolder(split="val", root=tmp_path)
    with pytest.raises(InputError, match="leaves none for"):
        ImageFolder(split="val", root=tmp_path, val_fraction=0.1)
    with pytest.raises(InputError, match=r"data.val_fraction=1.0; allowed"):
        ImageFolder(split="val", root=tmp_path, val_fraction=1.0)


def test_mixed_sizes_are_named_with_the_remedy(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a.png", "b.png"], size=(4, 6))
    write_images(tmp_path, ["c.png"], size=(5, 5))
    with pytest.raises(InputError) as caught:
        ImageFolder(split="train", root=tmp_path)
    message = str(caught.value)
    assert "4x6 (2 images), 5x5 (1 image)" in message
    assert "c.png (5x5)" in message
    assert "data.image_size=64" in message
    assert ImageFolder(split="train", root=tmp_path, image_size=[4, 8]).image_size == (4, 8)


def test_channels_are_those_of_most_images(tmp_path: Path, write_images, capsys) -> None:
    write_images(tmp_path, ["a.png"], channels=1)
    write_images(tmp_path, ["b.png", "c.png"], channels=3)
    assert ImageFolder(split="train", root=tmp_path).channels == 3
    assert "2 with 3, 1 with 1" in capsys.readouterr().out
    assert ImageFolder(split="train", root=tmp_path, channels=1)[1].real.shape == (1, 1, 6, 8)


def damaged_folder(root: Path, write_images, count: int = 40) -> str:
    """JPEG files, one of them cut short; returns its name."""
    write_images(root, [f"{i:04d}.jpg" for i in range(count)], size=(32, 32))
    path = root / "0017.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return path.name


def test_a_truncated_jpeg_is_named(tmp_path: Path, write_images) -> None:
    name = damaged_folder(tmp_path, write_images)
    with pytest.raises(InputError) as caught:
        ImageFolder(split="train", root=tmp_path)
    assert f"1 unreadable file: {name} (image file is truncated" in str(caught.value)
    assert "data.skip_unreadable=true" in str(caught.value)


def test_a_truncated_jpeg_is_left_out_on_demand(tmp_path: Path, write_images, capsys) -> None:
    name = damaged_folder(tmp_path, write_images)
    data = ImageFolder(split="train", root=tmp_path, skip_unreadable=True)
    assert data.num_stored == 39
    assert [bad for bad, _ in data.unreadable] == [name]
    assert name in capsys.readouterr().out
    assert name not in {data.name(i) for i in range(39)}
    data.__getitems__(range(39))


def test_a_long_list_of_unreadable_files_is_cut(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["good.png"])
    for i in range(30):
        (tmp_path / f"bad{i:02d}.png").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"30 unreadable files: bad00.png .* and 20 more \(of 31\)"
    ):
        ImageFolder(split="train", root=tmp_path)


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="no image can be read"):
        ImageFolder(split="train", root=tmp_path, skip_unreadable=True)


def test_a_file_that_goes_bad_later_is_named(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    data = ImageFolder(split="train", root=tmp_path)
    (tmp_path / "b.png").write_bytes(b"gone bad")
    with pytest.raises(UnreadableImage, match=r"^b.png cannot be read \(not an image"):
        data.__getitems__([0, 1])


def test_the_next_image_replaces_one_that_becomes_unreadable(
    tmp_path: Path, write_images, capsys
) -> None:
    written = write_images(tmp_path, ["x/a.png", "x/b.png", "y/c.png"])
    data = ImageFolder(split="train", root=tmp_path, skip_unreadable=True)
    (tmp_path / "x" / "b.png").write_bytes(b"gone bad")
    for _ in range(2):
        images, labels = pair(data.__getitems__([1, 0]))
        np.testing.assert_array_equal(images[0].permute(1, 2, 0), written["y/c.png"])
        assert labels.tolist() == [1, 0]  # the label is that of what is shown
    assert capsys.readouterr().out.count("using the next one instead") == 1


def test_orientation_counts_for_the_common_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    Image.new("RGB", (6, 8)).save(tmp_path / "b.png", exif=exif)
    data = ImageFolder(split="train", root=tmp_path)
    assert data.image_size == (6, 8)
    assert data.__getitems__([0, 1]).real.shape == (2, 3, 6, 8)


def test_can_be_sent_to_another_process(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    data = ImageFolder(split="train", root=tmp_path, flip=True)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.__getitems__(range(4)).real, data.__getitems__(range(4)).real)


def test_fingerprint_follows_the_files_and_the_transform(tmp_path: Path, write_images) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    first = ImageFolder(split="train", root=tmp_path).fingerprint
    assert ImageFolder(split="train", root=tmp_path).fingerprint == first
    assert ImageFolder(split="train", root=tmp_path, image_size=4).fingerprint != first
    write_images(tmp_path, ["c.png"])
    assert ImageFolder(split="train", root=tmp_path).fingerprint != first


def test_refuses_a_root_that_is_none(tmp_path: Path, write_images) -> None:
    with pytest.raises(InputError, match=r"data.root is not set; set data.root=PATH"):
        ImageFolder(split="train", root=None)
    missing = tmp_path / "no" / "such" / "folder"
    with pytest.raises(InputError, match=rf"does not exist \({tmp_path / 'no'} is not there\)"):
        ImageFolder(split="train", root=missing)
    with pytest.raises(InputError, match=r"is empty; expected PNG, JPEG"):
        (tmp_path / "empty").mkdir()
        ImageFolder(split="train", root=tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"holds no images \(but notes.txt\)"):
        ImageFolder(split="train", root=tmp_path)
    with pytest.raises(InputError, match="is a file"):
        ImageFolder(split="train", root=tmp_path / "notes.txt")
    write_images(tmp_path, ["a.png"])
    with pytest.raises(InputError, match="has no sub-folders with images"):
        ImageFolder(split="train", root=tmp_path, classes=True)
