"""Base classes of data sets: of any samples, of images, and of images that are given as an array."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from gan_lab.data.images import image_spec
from gan_lab.data.metadata import MetadataTable
from gan_lab.data.sample import Batch, Excerpts, Representation, SampleKind, SampleSpec
from gan_lab.data.transform import (
    Crop,
    ImageSize,
    ImageTransform,
    check_options,
    parse_crop,
    parse_size,
)
from gan_lab.errors import InputError

SPLITS = ("train", "val")

_DIGESTED = 64  # images that the content digest is computed of

_BUDGET_BYTES = 1 << 30  # of transformed images in memory

_LABEL_VECTORS = 64  # rows of the training data, kept with the run to draw labels from


class MissingSplit(InputError):
    """The data set has no such split; the datamodule then has no validation images."""


class SampleDataset(Dataset[Batch], ABC):
    """A data set: stored samples of one shape with labels, and their `SampleSpec`.

    With `flip`, which images have, the set is twice as long and item i >= n is the mirror image of item i - n, so that
    the sampler is the only place where anything is random. Where several excerpts are taken of each stored sample, the
    first n items are the first ones, and so on.

    Attributes:
        spec: what a sample is; with `class_names`, of which there is at least one where labels are classes.
        labels: classes int64 [number of stored samples], or vectors float32 [number of stored samples, K].
        in_memory: whether items are so cheap that worker processes would only slow them down.
        unreadable: (name, reason) of every skipped file.
        origin: where the samples are from, or empty.
        packed_by: `Representation.pack_name` of what is packed beside the samples, or empty.
        excerpts: which samples are taken from what is stored.
    """

    in_memory = False
    origin = ""
    packed_by = ""
    excerpts = Excerpts()
    _fingerprint: str
    _table: MetadataTable | None = None

    def __init__(
        self, *, split: str, spec: SampleSpec, labels: NDArray[Any], flip: bool = False
    ) -> None:
        assert len(labels), "a dataset has at least one sample"
        self.split = split
        if labels.ndim == 2 and not spec.label_vectors:
            some = labels[
                np.linspace(0, len(labels) - 1, min(len(labels), _LABEL_VECTORS)).astype(int)
            ]
            ends = zip(labels.min(0).tolist(), labels.max(0).tolist(), strict=True)
            spec = replace(
                spec,
                attribute_ranges=tuple(ends),
                label_vectors=tuple(map(tuple, some.astype(float).tolist())),
            )
        self.spec = spec
        kind = np.float32 if labels.ndim == 2 else np.int64
        self.labels: NDArray[Any] = np.ascontiguousarray(labels, dtype=kind)
        self.flip = flip
        self.unreadable: list[tuple[str, str]] = []

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; unlabeled samples are one class, "all"."""
        return list(self.spec.class_names) or ["all"]

    @property
    def num_classes(self) -> int:
        """Number of classes, at least 1."""
        return len(self.class_names)

    @property
    def num_stored(self) -> int:
        """Number of samples before mirroring."""
        return len(self.labels)

    @property
    def class_counts(self) -> list[int]:
        """Stored samples of each class."""
        if self.labels.ndim == 2:
            return [self.num_stored]
        return np.bincount(self.labels, minlength=self.num_classes).tolist()

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the order of the items in an epoch of training, int64 [len(self)], each once."""
        return permutation(len(self), seed, epoch)

    @property
    def fingerprint(self) -> str:
        """Digest of files, transform, split and mirroring: a key for caches of statistics.

        Constructors set `_fingerprint`, or a subclass overrides this.
        """
        return self._fingerprint

    def content_digest(self) -> str:
        """Digest of the samples' content: the labels, and the stored content of 64 of them, spread evenly.

        Copied, moved, repacked or mirrored data have the same one.
        """
        chosen = np.linspace(0, self.num_stored - 1, min(self.num_stored, _DIGESTED)).astype(int)
        return digest(self.labels.tobytes(), *(self.stored(i) for i in chosen.tolist()))

    def stored(self, index: int) -> bytes:
        """Return the stored content of sample `index`, by default its values."""
        return self.load(index).numpy().tobytes()

    def pack(self, index: int) -> bytes:
        """Return the content of stored sample `index` as prepare-data writes it: a file of its kind."""
        return self.spec.kind.encoded(self.load_content(index))

    @property
    def groups(self) -> list[str] | None:
        """The group of each stored sample, such as its patient, or None."""
        return self.metadata.groups

    @property
    def metadata(self) -> MetadataTable:
        """The metadata of the stored samples: `_table`, or their labels alone."""
        if self._table is not None:
            return self._table
        vectors = self.labels.ndim == 2
        return MetadataTable(
            files=[self.name(index) for index in range(self.num_stored)],
            labels=np.zeros(self.num_stored, dtype=np.int64) if vectors else self.labels,
            attributes=self.labels if vectors else None,
            class_names=self.class_names,
            splits=[self.split] * self.num_stored,
        )

    @abstractmethod
    def load(self, index: int) -> Tensor:
        """Stored sample `index`, [...] of `spec.shape`, not mirrored; the first excerpt where there are several.

        Raises:
            InputError: naming the file when it cannot be decoded.
        """

    def load_content(self, index: int) -> Tensor:
        """All of stored sample `index`, of which excerpts are taken; for most data the sample itself."""
        return self.load(index)

    def load_packed(self, index: int) -> Tensor:
        """Stored sample `index` as its representation packed it.

        Raises:
            InputError: naming it when it cannot be read.
        """
        raise AssertionError(f"{type(self).__name__} has nothing packed")

    def sources(self, numbers: Sequence[int]) -> Tensor:
        """The stored sources [N, ...] of samples i, j, ... (modulo the number of samples)."""
        return torch.stack([self.load_source(number % self.num_stored) for number in numbers])

    def load_source(self, index: int) -> Tensor:
        """The stored source of sample `index`, where data are paired (`spec.source`)."""
        raise AssertionError(f"{type(self).__name__} has no sources")

    def name(self, index: int) -> str:
        """The name of stored sample `index` for messages: its file name if it has one."""
        return str(index)

    def __len__(self) -> int:
        """Number of items: excerpts of the stored samples, twice with `flip`."""
        return self.num_stored * self.excerpts.count * (2 if self.flip else 1)

    def __getitem__(self, index: int) -> Batch:
        """Item `index` as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Items as one batch, as they are stored. DataLoader calls this once for each batch."""
        items = np.asarray(indices, dtype=np.int64)
        if items.size and not (-len(self) <= items.min() and items.max() < len(self)):
            raise IndexError(f"item out of range for {len(self)} items")
        items = items % len(self)
        if self.excerpts.count > 1:
            return self._excerpts(items)
        samples, stored = self._load_batch(items % self.num_stored)
        source = None
        if self.spec.source is not None:
            source = torch.stack([self.load_source(index) for index in stored.tolist()])
        for row in np.flatnonzero(items >= self.num_stored).tolist():
            samples[row] = samples[row].flip(-1)
            if source is not None:
                source[row] = source[row].flip(-1)
        return Batch(samples, torch.from_numpy(self.labels[stored]), source)

    def _excerpts(self, items: NDArray[np.int64]) -> Batch:
        """Items where several excerpts are taken of each stored sample."""
        numbers, stored = np.divmod(items, self.num_stored)
        pairs = zip(stored.tolist(), numbers.tolist(), strict=True)
        samples = [self.excerpts.take(self.load_content(index), one) for index, one in pairs]
        return Batch(torch.stack(samples), torch.from_numpy(self.labels[stored]))

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """A new tensor [B, ...] and the stored indices of its samples."""
        return torch.stack([self.load(index) for index in stored.tolist()]), stored


class PackedSamples(Dataset[Batch]):
    """The samples of a data set as a representation packed them."""

    in_memory = False

    def __init__(self, samples: SampleDataset) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Batch:
        """Item `index` as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Items as one batch."""
        packed = torch.stack([self.samples.load_packed(index) for index in indices])
        return Batch(packed, torch.from_numpy(self.samples.labels[list(indices)]))


class ImageDataset(SampleDataset):
    """Labeled images of one size, mirrored on demand; uint8 unless `kind` is given.

    Labels are classes, or vectors of `attributes`.

    Attributes:
        image_size: (height, width) in pixels.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA); of more than 8 bits any number.
        pixel_type: of stored images.
    """

    pixel_type = torch.uint8

    def __init__(
        self,
        *,
        split: str,
        image_size: tuple[int, int],
        channels: int,
        class_names: Sequence[str],
        labels: NDArray[Any],
        flip: bool,
        kind: SampleKind | None = None,
        representation: Representation | None = None,
        attributes: Sequence[str] = (),
        groups: Sequence[str] | None = None,
    ) -> None:
        assert class_names or attributes, "unlabeled images are one class"
        self.image_size = image_size
        self.channels = channels
        spec = image_spec(
            channels=channels, image_size=image_size, kind=kind, representation=representation
        )
        if groups is not None:
            spec = replace(spec, num_groups=len(set(groups)))
        if attributes:
            spec = replace(spec, attributes=tuple(attributes))
        else:
            labels = np.ascontiguousarray(labels, dtype=np.int64)
            spec = replace(
                spec,
                num_classes=len(class_names),
                class_names=tuple(class_names),
                class_counts=tuple(np.bincount(labels, minlength=len(class_names)).tolist()),
            )
        super().__init__(split=split, spec=spec, labels=labels, flip=flip)

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        images = torch.empty((len(stored), *self.spec.shape), dtype=self.pixel_type)
        for row, index in enumerate(stored.tolist()):
            images[row] = self.load(index)
        return images, stored


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


def permutation(num_items: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the items in an epoch, int64 [num_items]; every epoch costs the same."""
    return np.random.default_rng((seed, epoch)).permutation(num_items)


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
