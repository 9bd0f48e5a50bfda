from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lab.data.base import MissingSplit
from gan_lab.data.celeba import CelebA, read_attribute, read_partition
from gan_lab.errors import InputError
from tests.data.conftest import ATTRIBUTES


def decoded(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_splits_follow_the_partition(celeba: Path) -> None:
    train = CelebA(split="train", root=celeba, image_size=None)
    val = CelebA(split="val", root=celeba, image_size=None)
    assert [train.name(i) for i in range(len(train))] == [f"00000{i}.jpg" for i in (1, 2, 3, 4)]
    assert [val.name(i) for i in range(len(val))] == ["000005.jpg", "000006.jpg"]
    assert train.image_size == (218, 178)
    for data in (train, val):
        for index in range(len(data)):
            expected = decoded(celeba / "img_align_celeba" / data.name(index))
            np.testing.assert_array_equal(data[index].real[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("attribute", ["5_o_Clock_Shadow", "Smiling", "Young"])
def test_an_attribute_is_the_label(celeba: Path, attribute: str) -> None:
    data = CelebA(split="train", root=celeba, attribute=attribute, image_size=16)
    assert data.class_names == [f"not {attribute}", attribute]
    column = ATTRIBUTES.split().index(attribute)
    assert data.labels.tolist() == [int((index + column) % 3 == 0) for index in range(4)]


def test_without_an_attribute_there_is_one_class_and_no_list_is_needed(celeba: Path) -> None:
    (celeba / "list_attr_celeba.txt").unlink()
    assert CelebA(split="train", root=celeba).class_names == ["all"]
    with pytest.raises(InputError, match=r"has no list_attr_celeba.txt; set data.root=PATH to the"):
        CelebA(split="train", root=celeba, attribute="Smiling")


def test_default_cuts_the_middle_square(celeba: Path) -> None:
    data = CelebA(split="train", root=celeba)
    with Image.open(celeba / "img_align_celeba" / "000001.jpg") as image:
        square = image.crop((0, 20, 178, 198)).resize((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(data[0].real[0].permute(1, 2, 0), np.asarray(square))


def test_folders_of_the_published_drive(celeba: Path) -> None:
    for folder, name in [
        ("Img", "img_align_celeba"),
        ("Anno", "list_attr_celeba.txt"),
        ("Eval", "list_eval_partition.txt"),
    ]:
        (celeba / folder).mkdir()
        (celeba / name).rename(celeba / folder / name)
    assert len(CelebA(split="train", root=celeba, attribute="Smiling")) == 4


def test_an_unknown_attribute_gets_the_nearest_one(celeba: Path) -> None:
    with pytest.raises(InputError, match="did you mean Smiling"):
        CelebA(split="train", root=celeba, attribute="smiling")
    with pytest.raises(InputError, match="did you mean Eyeglasses"):
        CelebA(split="train", root=celeba, attribute="Glasses")


@pytest.mark.parametrize("part", ["img_align_celeba", "list_eval_partition.txt"])
def test_missing_parts_are_named(celeba: Path, part: str) -> None:
    (celeba / part).rename(celeba / "elsewhere")
    with pytest.raises(InputError, match=rf"has no {part}; set data.root"):
        CelebA(split="train", root=celeba)


def test_listed_images_that_are_absent_are_named(celeba: Path) -> None:
    (celeba / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 6 images in .* are not in .*000002.jpg; unpack"):
        CelebA(split="train", root=celeba)


def test_lists_cut_short_are_rejected(celeba: Path) -> None:
    attributes = celeba / "list_attr_celeba.txt"
    whole = attributes.read_text()
    lines = whole.splitlines(keepends=True)
    attributes.write_text("".join(lines[:5]))
    with pytest.raises(InputError, match="announces 7 images and lists 3: it is cut short"):
        CelebA(split="train", root=celeba, attribute="Smiling")
    attributes.write_text(whole[:-20])
    with pytest.raises(InputError, match="line 9: expected a name and 40 times 1 or -1"):
        CelebA(split="train", root=celeba, attribute="Smiling")
    attributes.write_text("".join(lines[1:]))
    with pytest.raises(InputError, match="its first line must count the images"):
        CelebA(split="train", root=celeba, attribute="Smiling")
    (celeba / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg")
    with pytest.raises(
        InputError, match=r"line 2: '000002.jpg'; expected an image name and 0, 1 or 2"
    ):
        CelebA(split="train", root=celeba)


def test_a_partition_without_validation(celeba: Path) -> None:
    (celeba / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    with pytest.raises(MissingSplit):
        CelebA(split="val", root=celeba)
    assert len(CelebA(split="train", root=celeba)) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe", b"000001.jpg 3", b"000001.jpg 0 0"])
def test_hostile_lists_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.txt"):
        read_partition(tmp_path / "list.txt")
    with pytest.raises(InputError, match=r"list\.txt"):
        read_attribute(tmp_path / "list.txt", "Smiling")
