"""Handwritten digits that come with scikit-learn: 1,797 images, 10 classes, no download.

The test part of "Optical Recognition of Handwritten Digits", https://archive.ics.uci.edu/dataset/80; 8x8 pixels with 17
grey levels (counts of set pixels in 4x4 blocks of the scan).
"""

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import check_split
from gan_lab.data.memory import MemoryImages
from gan_lab.data.transform import Crop, ImageSize

_VAL_EVERY = 5


class Digits(MemoryImages):
    """The digits: 1,437 to train on and 360 to validate on, the same ones always and alike in their classes.

    Args:
        split: "train" or "val".
        image_size: as one number, [H, W], or None for 8x8.
        crop: "none" stretches to rectangles; see `ImageTransform`.
        resample: filter of the enlargement.
        channels: 1, or 3 and 4 for networks that want them.
        flip: append the mirror images (which are no digits any more).

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
        # scikit-learn takes a second to import, which no other dataset should cost
        from sklearn.datasets import load_digits

        check_split(split)
        digits = load_digits()
        labels = np.asarray(digits.target, dtype=np.int64)
        chosen = split_indices(labels, split)
        pixels = np.rint(np.asarray(digits.images) * (255 / 16)).astype(np.uint8)[..., None]
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


def split_indices(labels: NDArray[np.int64], split: str) -> NDArray[np.int64]:
    """Every fifth image within each class validates, so that classes and writers are alike in both parts."""
    by_class = np.argsort(labels, kind="stable")
    is_val = np.zeros(len(labels), dtype=bool)
    is_val[by_class[::_VAL_EVERY]] = True
    return np.flatnonzero(is_val if split == "val" else ~is_val)
