"""Three digits in one image: which ones, how often, and always the same."""

import numpy as np
import pytest
import torch

from gan_lab.data.builtin import Digits, StackedDigits
from gan_lab.errors import InputError
from tests.helpers.samples import pair


def test_channels_are_digits_of_the_mode() -> None:
    stacked, digits = StackedDigits(split="train", num_images=200), Digits(split="train")
    known = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(*pair(digits.__getitems__(range(len(digits)))), strict=True)
    }
    images, labels = pair(stacked.__getitems__(range(200)))
    assert images.shape == (200, 3, 16, 16) and labels.unique().tolist() == [0]
    for image, mode in zip(images, stacked.modes, strict=True):
        assert [known[channel.numpy().tobytes()] for channel in image] == [
            int(d) for d in f"{mode:03d}"
        ]
    assert torch.equal(stacked.load(7), images[7])


def test_modes_are_uniform() -> None:
    counts = np.bincount(StackedDigits(split="train").modes, minlength=1000)
    assert counts.min() > 0
    # chi-squared with 999 degrees of freedom: mean 999, standard deviation 45
    assert abs(((counts - 128) ** 2 / 128).sum() - 999) < 5 * 45


def test_the_images_are_always_the_same_and_splits_differ() -> None:
    first, again = (StackedDigits(split="train", num_images=50) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first.__getitems__(range(50)).real, again.__getitems__(range(50)).real)
    val = StackedDigits(split="val", num_images=50)
    assert val.fingerprint != first.fingerprint
    held_out = {i.numpy().tobytes() for i in Digits(split="val").__getitems__(range(360)).real}
    assert all(
        c.numpy().tobytes() in held_out for c in val.__getitems__(range(50)).real.flatten(0, 1)
    )


def test_flip_mirrors() -> None:
    flipped = StackedDigits(split="train", num_images=5, flip=True)
    assert len(flipped) == 10
    assert torch.equal(flipped[7].real, flipped[2].real.flip(-1))


def test_bad_number() -> None:
    with pytest.raises(InputError, match="num_images=0"):
        StackedDigits(split="train", num_images=0)
