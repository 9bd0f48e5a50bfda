"""Images that are decoded when they are wanted: files, or values in a container."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.markup import escape
from torch import Tensor

from gan_lab.console import warn
from gan_lab.data.base import ImageDataset, check_split, digest
from gan_lab.data.decoding import open_image
from gan_lab.data.listing import listed
from gan_lab.data.metadata import MetadataTable
from gan_lab.data.scan import DECODE_ERRORS, Scan, reason_of, scan
from gan_lab.data.source import Source
from gan_lab.data.transform import (
    Crop,
    ImageSize,
    ImageTransform,
    check_max_megapixels,
    check_options,
    parse_crop,
    parse_size,
)
from gan_lab.errors import InputError


class UnreadableImage(InputError):
    """One picture passed the check at the start and cannot be decoded all the same."""

    def __init__(self, message: str) -> None:
        # a DataLoader puts its worker's whole traceback before the message
        super().__init__(
            message.strip().splitlines()[-1].removeprefix(f"{__name__}.UnreadableImage: ")
        )


class EncodedImages(ImageDataset):
    """Pictures of a `Source`, all checked at the start, each decoded and transformed when it is asked for.

    Args:
        source: the pictures of all splits, so that splits agree on size and channels.
        labels: classes int64 [len(source)], or vectors float32 [len(source), K].
        class_names: one for each class.
        members: bool [len(source)], the pictures of this split.
        table: what else is known of the pictures of `source`.
        attributes: names of the K entries, where labels are vectors.
        split: "train" or "val".
        image_size: as `parse_size` takes it; None for the one size that all pictures have.
        crop: as `parse_crop` takes it.
        resample: name of a Pillow filter.
        channels: 1, 3, 4, or None for those of most pictures.
        flip: append the mirror images.
        skip_unreadable: leave out what cannot be read, with a warning, where it would be an error.
        max_megapixels: larger pictures count as unreadable.

    Raises:
        InputError: naming unreadable pictures, mixed sizes, or options out of range.
    """

    def __init__(
        self,
        *,
        source: Source,
        labels: NDArray[Any],
        class_names: Sequence[str],
        members: NDArray[np.bool_],
        split: str,
        image_size: ImageSize,
        crop: Crop,
        resample: str,
        channels: int | None,
        flip: bool,
        skip_unreadable: bool,
        max_megapixels: float,
        table: MetadataTable | None = None,
        attributes: Sequence[str] = (),
    ) -> None:
        check_split(split)
        check_options(resample, channels)
        check_max_megapixels(max_megapixels)
        size, crop = parse_size(image_size), parse_crop(crop)
        found = scan(source, max_megapixels=max_megapixels)
        readable = _readable(source, found, skip_unreadable)
        self._transform = ImageTransform(
            size=size or _common_size(source, found, readable),
            channels=channels or _common_channels(found, readable),
            crop=crop,
            resample=resample,
        )
        self._items = np.flatnonzero(members & readable)
        if not len(self._items):
            raise InputError(f"none of the images of split={split} can be read")
        super().__init__(
            split=split,
            image_size=self._transform.size,
            channels=self._transform.channels,
            class_names=class_names,
            labels=labels[self._items],
            flip=flip,
            attributes=attributes,
        )
        self.unreadable = [(source.name(i), why) for i, why in found.reasons.items() if members[i]]
        if self.unreadable:
            warn(escape(f"left out {_named(self.unreadable)}"))
        self.source = source
        # names and labels are here already, and a long table would be sent to every worker
        self._table = table.rows(self._items) if table and table.has_more_than_classes else None
        self._max_megapixels = max_megapixels
        self._skip_unreadable = skip_unreadable
        self._warned = False
        self._fingerprint = digest(
            found.listing,
            self._items.tobytes(),
            self.labels.tobytes(),
            self._transform,
            split,
            flip,
        )

    @property
    def fingerprint(self) -> str:
        """Digest of the files' names, sizes and times, the labels and the transform."""
        return self._fingerprint

    @property
    def metadata(self) -> MetadataTable:
        return super().metadata if self._table is None else self._table

    def name(self, index: int) -> str:
        return self.source.name(int(self._items[index]))

    def stored(self, index: int) -> bytes:
        """Return the file of stored image `index`.

        Raises:
            InputError: naming the file.
        """
        try:
            with self.source.open(int(self._items[index])) as file:
                return file.read()
        except OSError as error:
            raise InputError(f"{self.name(index)} cannot be read ({error})") from error

    def load(self, index: int) -> Tensor:
        """Decode stored image `index` to uint8 [C, H, W].

        Raises:
            UnreadableImage: naming the file.
        """
        try:
            with (
                self.source.open(int(self._items[index])) as file,
                open_image(file, max_megapixels=self._max_megapixels) as image,
            ):
                return torch.from_numpy(np.array(self._transform(image), order="C"))
        except DECODE_ERRORS as error:
            raise UnreadableImage(
                f"{self.name(index)} cannot be read ({reason_of(error)}); "
                f"repair or remove it, or set data.skip_unreadable=true"
            ) from error

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        if not self._skip_unreadable:
            return super()._load_batch(stored)
        images = torch.empty((len(stored), self.channels, *self.image_size), dtype=torch.uint8)
        shown = stored.copy()
        for row in range(len(stored)):
            images[row], shown[row] = self._load_or_next(int(stored[row]))
        return images, shown

    def _load_or_next(self, index: int) -> tuple[Tensor, int]:
        """The image, or the first one after it that can be read."""
        for offset in range(self.num_stored):
            candidate = (index + offset) % self.num_stored
            try:
                return self.load(candidate), candidate
            except UnreadableImage as error:
                if not self._warned:
                    warn(f"{escape(str(error))}: the next one takes its place (said once)")
                    self._warned = True
        raise InputError("none of the images can be read any more; is the disk still there?")


def _readable(source: Source, found: Scan, skip_unreadable: bool) -> NDArray[np.bool_]:
    """Mask [N] of the pictures to use; InputError for unreadable ones unless they are to be skipped."""
    readable = np.ones(len(source), dtype=bool)
    readable[list(found.reasons)] = False
    bad = [(source.name(index), reason) for index, reason in found.reasons.items()]
    if bad and not readable.any():
        raise InputError(f"no image can be read: {_named(bad)}")
    if bad and not skip_unreadable:
        raise InputError(
            f"{_named(bad)} (of {len(source):,}); repair or remove them, or set data.skip_unreadable=true to go on "
            f"without them"
        )
    return readable


def _named(bad: Sequence[tuple[str, str]]) -> str:
    files = "1 unreadable file" if len(bad) == 1 else f"{len(bad):,} unreadable files"
    return f"{files}: {listed(f'{name} ({reason})' for name, reason in bad)}"


def _common_size(source: Source, found: Scan, readable: NDArray[np.bool_]) -> tuple[int, int]:
    sizes = found.shapes[:, :2]
    first = sizes[int(np.flatnonzero(readable)[0])]
    different = np.flatnonzero(readable & (sizes != first).any(axis=1))
    if len(different):
        counts = Counter(map(tuple, sizes[readable].tolist())).most_common()
        shown = listed(
            [f"{height}x{width} ({count:,} images)" for (height, width), count in counts], limit=5
        )
        odd = int(different[0])
        height, width = sizes[odd]
        raise InputError(
            f"the images have {len(counts)} different sizes (height x width): {shown}; the first that differs from "
            f"the one before it is {source.name(odd)} ({height}x{width}); set data.image_size=64, or "
            f"data.image_size=[HEIGHT,WIDTH], to crop and resize them all"
        )
    return int(first[0]), int(first[1])


def _common_channels(found: Scan, readable: NDArray[np.bool_]) -> int:
    counts = Counter(found.shapes[readable, 2].tolist()).most_common()
    channels = int(counts[0][0])
    if len(counts) > 1:
        modes = ", ".join(f"{count:,} with {number}" for number, count in counts)
        warn(
            f"the images have different channels ({modes}); all become {channels}: set data.channels= to choose"
        )
    return channels
