"""Handwritten digits that come with scikit-learn: 1,797 images, 10 classes, no download.

The test part of "Optical Recognition of Handwritten Digits", https://archive.ics.uci.edu/dataset/80; 8x8 pixels with 17
grey levels (counts of set pixels in 4x4 blocks of the scan).
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.base import ImageDataset, check_split, digest
from gan_lab.data.memory import MemoryImages
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError

_VAL_EVERY = 5


class Digits(MemoryImages):
    """The digits: 1,437 for training and 360 for validation, a fixed split stratified by class.

    Args:
        split: "train" or "val".
        image_size: as one number, [H, W], or None for 8x8.
        crop: "none" stretches to rectangles; see `ImageTransform`.
        resample: filter of the enlargement.
        channels: 1, or 3 and 4 for networks that need them.
        flip: append the mirror images (no longer digits).

    Raises:
        InputError: for options out of range.
    """

    def __init__(
        self,
        *,
        split: str,
        image_size: ImageSize = 16,
        crop: Crop = "none",
        resample: str = "bicubic",
        channels: int | None = 1,
        flip: bool = False,
    ) -> None:
        check_split(split)
        pixels, labels = all_digits()
        chosen = split_indices(labels, split)
        super().__init__(
            pixels=pixels[chosen],
            labels=labels[chosen],
            class_names=[str(digit) for digit in range(10)],
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
        )


@cache
def all_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the digits [1797, 8, 8, 1] and their classes [1797]; once, since a command needs them up to four times."""
    # imported here: scikit-learn takes a second
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(np.asarray(digits.images) * (255 / 16)).astype(np.uint8)[..., None]
    return pixels, np.asarray(digits.target, dtype=np.int64)


def split_indices(labels: NDArray[np.int64], split: str) -> NDArray[np.int64]:
    """Take every fifth image of each class for validation, so that classes and writers are balanced."""
    by_class = np.argsort(labels, kind="stable")
    is_val = np.zeros(len(labels), dtype=bool)
    is_val[by_class[::_VAL_EVERY]] = True
    return np.flatnonzero(is_val if split == "val" else ~is_val)


# Stacked digits: three handwritten digits in the red, green and blue channel, 1000 modes to cover.

_SEED = {"train": 0, "val": 1}


class StackedDigits(ImageDataset):
    """Triples of digits, drawn once from a fixed seed; all modes are equally likely.

    The images have no labels: the generator has to find the modes.

    Attributes:
        modes: int64 [number of images], 100 r + 10 g + b of the digits in the three channels.

    Args:
        split: "train" or "val": of the digits that are stacked.
        num_images: number of triples; 128,000 give each mode about 128 images.
        image_size: one number, [H, W], or None for 8x8.
        resample: filter of the enlargement.
        flip: append the mirror images (no longer digits).

    Raises:
        InputError: for options out of range.
    """

    in_memory = True

    def __init__(
        self,
        *,
        split: str,
        num_images: int = 128_000,
        image_size: ImageSize = 16,
        resample: str = "bicubic",
        flip: bool = False,
    ) -> None:
        digits = Digits(split=split, image_size=image_size, resample=resample, channels=1)
        if num_images < 1:
            raise InputError(f"data.num_images={num_images} must be at least 1")
        random = np.random.default_rng(_SEED[split])
        classes = random.integers(10, size=(num_images, 3))
        members = [np.flatnonzero(digits.labels == digit) for digit in range(10)]
        sizes = np.array([len(m) for m in members])
        drawn = (random.random((num_images, 3)) * sizes[classes]).astype(np.int64)
        starts = np.concatenate([[0], sizes.cumsum()[:-1]])
        self._triples = np.concatenate(members)[starts[classes] + drawn]  # [N, 3]
        self.modes: NDArray[np.int64] = classes @ np.array([100, 10, 1])
        self._digits = digits.__getitems__(range(len(digits))).real[:, 0]  # [digits, H, W]
        super().__init__(
            split=split,
            image_size=digits.image_size,
            channels=3,
            class_names=["all"],
            labels=np.zeros(num_images, dtype=np.int64),
            flip=flip,
        )
        self._fingerprint = digest(digits.fingerprint, self._triples.tobytes(), flip)

    @property
    def fingerprint(self) -> str:
        """Digest of the digits and of the triples."""
        return self._fingerprint

    def load(self, index: int) -> Tensor:
        """Stored image `index` as uint8 [3, H, W]."""
        return self._digits[torch.from_numpy(self._triples[index])]

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return self._digits[torch.from_numpy(self._triples[stored])], stored
