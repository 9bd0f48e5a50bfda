"""Images held in memory as one array, and random images for benchmarks."""

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_lab.data.base import SPLITS, ImageDataset, check_split, digest
from gan_lab.data.transform import (
    Crop,
    ImageSize,
    ImageTransform,
    check_options,
    parse_crop,
    parse_size,
)
from gan_lab.errors import InputError
from gan_lab.seeding import derive_seed

_BUDGET_BYTES = 1 << 30


class MemoryImages(ImageDataset):
    """Images given as an array; transformed once when the result is below 1 GiB, else one by one.

    Args:
        pixels: uint8 [N, H, W, C], as stored.
        labels: int64 [N].
        class_names: one for each label.
        split: "train" or "val"; only recorded.
        image_size: as `parse_size` takes it; None for the size of `pixels`.
        crop: as `parse_crop` takes it.
        resample: name of a Pillow filter.
        channels: 1, 3, 4, or None for those of `pixels`.
        flip: append the mirror images.

    Raises:
        InputError: for options out of range.
    """

    def __init__(
        self,
        *,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        class_names: Sequence[str],
        split: str,
        image_size: ImageSize,
        crop: Crop,
        resample: str,
        channels: int | None,
        flip: bool,
    ) -> None:
        check_split(split)
        check_options(resample, channels)
        self._transform = ImageTransform(
            size=parse_size(image_size) or (pixels.shape[1], pixels.shape[2]),
            channels=channels or pixels.shape[3],
            crop=parse_crop(crop),
            resample=resample,
        )
        super().__init__(
            split=split,
            image_size=self._transform.size,
            channels=self._transform.channels,
            class_names=class_names,
            labels=labels,
            flip=flip,
        )
        self._pixels = pixels
        self._images: Tensor | None = None
        if len(pixels) * self.channels * self.image_size[0] * self.image_size[1] <= _BUDGET_BYTES:
            self._images = self._transform_all()
            self.in_memory = True
        self._fingerprint = digest(
            pixels.tobytes(), self.labels.tobytes(), self._transform, split, flip
        )

    @property
    def fingerprint(self) -> str:
        """Digest of the pixels, the labels and the transform."""
        return self._fingerprint

    def stored(self, index: int) -> bytes:
        """Return the pixels of stored image `index`, before any transform."""
        return self._pixels[index].tobytes()

    def load(self, index: int) -> Tensor:
        """Stored image `index` as uint8 [C, H, W]."""
        if self._images is not None:
            return self._images[index]
        pixels = self._pixels[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return torch.from_numpy(np.array(self._transform(image)))

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        if self._images is None:
            return super()._load_batch(stored)
        return self._images.index_select(0, torch.from_numpy(stored)), stored

    def _transform_all(self) -> Tensor:
        if self._pixels.shape[1:] == (*self.image_size, self.channels):
            return torch.from_numpy(np.ascontiguousarray(self._pixels.transpose(0, 3, 1, 2)))
        images = torch.empty((self.num_stored, self.channels, *self.image_size), dtype=torch.uint8)
        for index in range(self.num_stored):
            images[index] = self.load(index)
        return images


class RandomImages(ImageDataset):
    """Images of independent uniform noise, each drawn from its index on demand; nothing is kept.

    Args:
        split: "train" or "val", which differ.
        image_size: as one number or [H, W].
        channels: 1, 3 or 4.
        num_classes: labels cycle; 1 for images without classes.
        num_images: of each split.
        flip: append the mirror images.

    Raises:
        InputError: for options out of range.
    """

    in_memory = True  # making an image is cheaper than sending it from another process

    def __init__(
        self,
        *,
        split: str,
        image_size: ImageSize = 64,
        channels: int | None = 3,
        num_classes: int = 1,
        num_images: int = 10000,
        flip: bool = False,
    ) -> None:
        check_split(split)
        check_options("box", channels)
        size = parse_size(image_size)
        if size is None or channels is None:
            raise InputError(
                f"data.image_size={image_size}, data.channels={channels}: noise has no shape of its own; give both, "
                "such as 64 and 3"
            )
        if not 1 <= num_classes <= num_images:
            raise InputError(
                f"data.num_classes={num_classes}, data.num_images={num_images}: there must be one class or more and "
                "an image of each"
            )
        super().__init__(
            split=split,
            image_size=size,
            channels=channels,
            class_names=[str(i) for i in range(num_classes)] if num_classes > 1 else ["all"],
            labels=(torch.arange(num_images) % num_classes).numpy(),
            flip=flip,
        )

    @property
    def fingerprint(self) -> str:
        """Digest of all arguments."""
        return digest(self.split, self.image_size, self.channels, self.num_classes, len(self))

    def load(self, index: int) -> Tensor:
        """Stored image `index` as uint8 [C, H, W]."""
        shape = (self.channels, *self.image_size)
        drawn = torch.Generator().manual_seed(derive_seed(SPLITS.index(self.split), index))
        # eight bytes of one draw are eight pixels
        words = torch.empty(-(-prod(shape) // 8), dtype=torch.int64)
        words.random_(-(2**63), None, generator=drawn)
        return words.view(torch.uint8)[: prod(shape)].view(shape)
