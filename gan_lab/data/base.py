"""What every set of images is to the rest of gan_lab."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gan_lab.data.metadata import MetadataTable
from gan_lab.errors import InputError

SPLITS = ("train", "val")


class MissingSplit(InputError):
    """The images have no such split; the datamodule then goes without validation images."""


class ImageDataset(Dataset[tuple[Tensor, int]], ABC):
    """Labelled uint8 images of one size, mirrored on demand.

    With `flip` the set is twice as long and item i >= n is the mirror image of item i - n, so that the sampler is
    the only place where anything is random.

    Attributes:
        image_size: (height, width) in pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        class_names: at least one; unlabelled images are one class, "all".
        labels: int64 [number of stored images].
        in_memory: whether items cost so little that worker processes would only slow them down.
        unreadable: (name, reason) of every file that was left out.
    """

    in_memory = False

    def __init__(
        self,
        *,
        split: str,
        image_size: tuple[int, int],
        channels: int,
        class_names: Sequence[str],
        labels: NDArray[np.int64],
        flip: bool,
    ) -> None:
        assert class_names and len(labels), "a dataset has at least one class and one image"
        self.split = split
        self.image_size = image_size
        self.channels = channels
        self.class_names = list(class_names)
        self.labels = np.ascontiguousarray(labels, dtype=np.int64)
        self.flip = flip
        self.unreadable: list[tuple[str, str]] = []

    @property
    def num_classes(self) -> int:
        """Number of classes, at least 1."""
        return len(self.class_names)

    @property
    def num_stored(self) -> int:
        """Number of images before mirroring."""
        return len(self.labels)

    @property
    def class_counts(self) -> list[int]:
        """Stored images of each class."""
        return np.bincount(self.labels, minlength=self.num_classes).tolist()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names what the items are (files, transform, split, mirroring): a key for caches of statistics."""

    @abstractmethod
    def load(self, index: int) -> Tensor:
        """Stored image `index` as uint8 [C, H, W], not mirrored.

        Raises:
            InputError: naming the file when it cannot be decoded.
        """

    @property
    def metadata(self) -> MetadataTable:
        """What is known of the stored images besides their pixels."""
        return MetadataTable(
            files=[self.name(index) for index in range(self.num_stored)],
            labels=self.labels,
            class_names=self.class_names,
            splits=[self.split] * self.num_stored,
        )

    def name(self, index: int) -> str:
        """What a user would call stored image `index`: its file name where it has one."""
        return str(index)

    def __len__(self) -> int:
        """Number of items: the stored images, twice with `flip`."""
        return self.num_stored * (2 if self.flip else 1)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Item `index` as (uint8 [C, H, W], label)."""
        images, labels = self.__getitems__([index])
        return images[0], int(labels[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Items as one batch: (uint8 [B, C, H, W], int64 [B]). DataLoader calls this once for each batch."""
        items = np.asarray(indices, dtype=np.int64)
        if items.size and not (-len(self) <= items.min() and items.max() < len(self)):
            raise IndexError(f"item out of range for {len(self)} items")
        items = items % len(self)
        images, stored = self._load_batch(items % self.num_stored)
        mirrored = items >= self.num_stored
        if mirrored.any():
            where = torch.from_numpy(mirrored.nonzero()[0])
            images[where] = images[where].flip(-1)
        return images, torch.from_numpy(self.labels[stored])

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """A fresh tensor [B, C, H, W] and the stored indices that it really shows."""
        images = torch.empty((len(stored), self.channels, *self.image_size), dtype=torch.uint8)
        for row, index in enumerate(stored.tolist()):
            images[row] = self.load(index)
        return images, stored


def digest(*parts: object) -> str:
    """Hex digest of the printed form of `parts`; bytes count as they are."""
    result = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        result.update(len(data).to_bytes(8, "little") + data)
    return result.hexdigest()[:32]


def check_split(split: str) -> None:
    """Raise InputError unless `split` is "train" or "val"."""
    if split not in SPLITS:
        raise InputError(f"split={split!r}; allowed: {', '.join(SPLITS)}")
