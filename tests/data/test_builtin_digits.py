import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from gan_lab.data.builtin import Digits
from gan_lab.errors import InputError
from tests.helpers.samples import pair


def test_splits_are_disjoint_stratified_and_complete() -> None:
    train, val = Digits(split="train", image_size=None), Digits(split="val", image_size=None)
    assert (len(train), len(val)) == (1437, 360)
    together = torch.cat([train.__getitems__(range(1437)).real, val.__getitems__(range(360)).real])
    stored = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(image.numpy().tobytes() for image in together) == sorted(
        image.tobytes() for image in stored
    )
    for ours, theirs in zip(val.class_counts, train.class_counts, strict=True):
        assert abs(ours - (ours + theirs) / 5) < 1


def test_labels_belong_to_their_images() -> None:
    truth = {
        np.rint(image * 255 / 16).astype(np.uint8).tobytes(): label
        for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }
    for image, label in zip(
        *pair(Digits(split="val", image_size=8).__getitems__(range(360))), strict=True
    ):
        assert truth[image.numpy().tobytes()] == int(label)


def test_all_seventeen_levels_span_black_to_white() -> None:
    levels = torch.unique(Digits(split="train", image_size=8).__getitems__(range(1437)).real)
    assert len(levels) == 17
    assert (levels[0], levels[-1]) == (0, 255)


@pytest.mark.parametrize("size", [16, 32, 64, [16, 32]])
def test_resizes_as_pillow_does(size: int | list[int]) -> None:
    small = Digits(split="val", image_size=None)
    large = Digits(split="val", image_size=size, resample="lanczos")
    height, width = (size, size) if isinstance(size, int) else size
    assert large.image_size == (height, width)
    expected = Image.fromarray(small[3].real[0][0].numpy()).resize(
        (width, height), Image.Resampling.LANCZOS
    )
    np.testing.assert_array_equal(large[3].real[0][0].numpy(), np.asarray(expected))


def test_color_repeats_the_gray() -> None:
    gray, color = Digits(split="val"), Digits(split="val", channels=4)
    assert torch.equal(color[0].real[0][:3], gray[0].real[0].expand(3, -1, -1))
    assert (color[0].real[0][3] == 255).all()


def test_flip_doubles_with_mirror_images() -> None:
    plain, flipped = Digits(split="train"), Digits(split="train", flip=True)
    assert len(flipped) == 2 * len(plain)
    assert torch.equal(flipped[5].real[0], plain[5].real[0])
    assert torch.equal(flipped[1437 + 5].real[0], plain[5].real[0].flip(-1))
    assert flipped[1437 + 5].labels == plain[5].labels
    images, labels = pair(flipped.__getitems__([1437, 0, 1438]))
    assert torch.equal(images[0], images[1].flip(-1))
    assert labels.tolist() == [*plain.labels[[0, 0, 1]]]


def test_a_batch_is_a_copy() -> None:
    data = Digits(split="val")
    before = data[0].real[0].clone()
    data.__getitems__([0]).real.zero_()
    assert torch.equal(data[0].real[0], before)


def test_an_item_beyond_the_end_is_an_index_error() -> None:
    data = Digits(split="val")
    with pytest.raises(IndexError):
        data[len(data)]
    assert torch.equal(data[-1].real, data[len(data) - 1].real)


def test_fingerprint_depends_on_the_images() -> None:
    prints = {
        Digits(split=split, image_size=size, flip=flip).fingerprint
        for split in ("train", "val")
        for size in (8, 16)
        for flip in (False, True)
    }
    assert len(prints) == 8
    assert Digits(split="val", image_size=8).fingerprint in prints


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 0}, r"data.image_size=0 .*data.image_size=64"),
        ({"image_size": [8, 8, 8]}, "not an image size"),
        ({"image_size": "big"}, "not an image size"),
        ({"image_size": 8.5}, "not an image size"),
        ({"image_size": True}, "not an image size"),
        ({"crop": "top"}, "data.crop='top'; allowed: center, none"),
        ({"resample": "nearest"}, "data.resample='nearest'; allowed: lanczos, box"),
        ({"channels": 2}, "data.channels=2; allowed: 1"),
        ({"split": "test"}, "split='test'; allowed: train, val"),
    ],
)
def test_refuses_options_out_of_range(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Digits(**{"split": "train", **wrong})
