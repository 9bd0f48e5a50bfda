"""Images that are decoded on access: files, or values in a container."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.console import in_a_line, say, warn
from gan_lab.data.base import ImageDataset, check_split, digest
from gan_lab.data.cache import Arrays, cached_arrays
from gan_lab.data.decoding import DECODE_ERRORS, open_image
from gan_lab.data.high_bit_depth import (
    HighBitDepthImage,
    WindowName,
    bit_depth,
    find_levels,
    parse_window,
    read_levels,
    window_of,
)
from gan_lab.data.listing import format_names
from gan_lab.data.metadata import MetadataTable
from gan_lab.data.source import Scan, Source, describe_unreadable, readable_files, reason_of, scan
from gan_lab.data.transform import (
    Crop,
    ImageSize,
    ImageTransform,
    check_max_megapixels,
    check_options,
    parse_crop,
    parse_size,
)
from gan_lab.errors import InputError, counted

_THREADS = 8


class UnreadableImage(InputError):
    """An image that passed the scan cannot be decoded."""

    def __init__(self, message: str) -> None:
        # a DataLoader prepends its worker's traceback
        super().__init__(
            message.strip().splitlines()[-1].removeprefix(f"{__name__}.UnreadableImage: ")
        )


class EncodedImages(ImageDataset):
    """Images of a `Source`, all scanned at the start, decoded and transformed on demand.

    Args:
        source: the images of all splits, so that splits agree on size and channels.
        labels: classes int64 [len(source)], or vectors float32 [len(source), K].
        class_names: one for each class.
        members: bool [len(source)], the images of this split.
        table: metadata of the images of `source`.
        attributes: names of the K entries, where labels are vectors.
        split: "train" or "val".
        image_size: as `parse_size` takes it; None for the one size that all images have.
        crop: as `parse_crop` takes it.
        resample: name of a Pillow filter.
        channels: 1, 3, 4, or None for those of most images.
        flip: append the mirror images.
        skip_unreadable: skip files that cannot be read, with a warning instead of an error.
        max_megapixels: larger images count as unreadable.
        bits: 8, 16, 32 (floating point), or None for those that the files have.
        window: levels that networks see as -1 to 1, of images with more than 8 bits; as `parse_window` takes it.

    Raises:
        InputError: naming unreadable images, mixed sizes, or options out of range.
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
        bits: int | None = None,
        window: str | Sequence[float] = "range",
        table: MetadataTable | None = None,
        attributes: Sequence[str] = (),
    ) -> None:
        check_split(split)
        check_options(resample, channels)
        check_max_megapixels(max_megapixels)
        levels = parse_window(window)
        size, crop = parse_size(image_size), parse_crop(crop)
        found = scan(source, max_megapixels=max_megapixels)
        readable = readable_files(source, found.reasons, skip=skip_unreadable, what="image")
        self._bits = _common_bits(source, found, readable, bits)
        self._transform = ImageTransform(
            size=size or _common_size(source, found, readable),
            channels=channels or _common_channels(source, found, readable, self._bits),
            crop=crop,
            resample=resample,
        )
        self.source = source
        self._max_megapixels = max_megapixels
        spacing = self._spacing(table, found.shapes[readable, :2])
        kind = self._deep_kind(levels, np.flatnonzero(readable), found.listing, spacing)
        if kind is not None:
            self.pixel_type = torch.uint16 if kind.bits == 16 else torch.float32
        self._items = np.flatnonzero(members & readable)
        if not len(self._items):
            raise InputError(f"none of the images of split={split} can be read")
        # names and labels are here already, and a long table would be sent to every worker
        if table is not None and table.has_more_than_classes:
            self._table = replace(table.rows(self._items), spacing=spacing)
        super().__init__(
            split=split,
            image_size=self._transform.size,
            channels=self._transform.channels,
            class_names=class_names,
            labels=labels[self._items],
            flip=flip,
            kind=kind,
            representation=None if kind is None else window_of(kind.window, bits=kind.bits),
            attributes=attributes,
            groups=None if self._table is None else self._table.groups,
        )
        self.unreadable = [(source.name(i), why) for i, why in found.reasons.items() if members[i]]
        if self.unreadable:
            warn(f"left out {describe_unreadable(self.unreadable)}")
        self._skip_unreadable = skip_unreadable
        self._warned = False
        self._fingerprint = digest(
            found.listing,
            self._items.tobytes(),
            self.labels.tobytes(),
            self._transform,
            *([self._bits, kind.window] if kind else []),
            split,
            flip,
        )

    def _spacing(
        self, table: MetadataTable | None, sizes: NDArray[np.integer[Any]]
    ) -> tuple[float, float] | None:
        """Return the size of a pixel in mm after the transform, if it is known and all images have one size."""
        sizes = np.unique(sizes, axis=0)
        if table is None or table.spacing is None or len(sizes) != 1:
            return None
        return self._transform.spacing(table.spacing, (int(sizes[0, 0]), int(sizes[0, 1])))

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
        """Decode stored image `index` to [C, H, W].

        Raises:
            UnreadableImage: naming the file.
        """
        try:
            with self.source.open(int(self._items[index])) as file:
                return torch.from_numpy(np.array(self._decode(file), order="C"))
        except DECODE_ERRORS as error:
            raise self._unreadable(self.name(index), error) from error

    @staticmethod
    def _unreadable(name: str, error: BaseException) -> UnreadableImage:
        return UnreadableImage(
            f"{in_a_line(name)} cannot be read ({reason_of(error)}); repair or remove it, or set "
            "data.skip_unreadable=true"
        )

    def _decode(self, file: BinaryIO) -> NDArray[Any]:
        if self._bits == 8 and bit_depth(file) in (None, 16):
            with open_image(file, max_megapixels=self._max_megapixels) as image:
                return self._transform(image)
        return self._transform.levels(read_levels(file), bits=self._bits)

    def _deep_kind(
        self,
        levels: WindowName | tuple[float, float],
        items: NDArray[np.int64],
        listing: str,
        spacing: tuple[float, float] | None,
    ) -> HighBitDepthImage | None:
        """Return the kind of images with more than 8 bits; None for others."""
        if self._bits == 8:
            return None
        if isinstance(levels, str):
            levels = self._find_levels(items, listing, levels)
        return HighBitDepthImage(
            bits=self._bits,
            channels=self._transform.channels,
            window=levels,
            spacing=spacing,
        )

    def _find_levels(
        self, items: NDArray[np.int64], listing: str, window: WindowName
    ) -> tuple[float, float]:
        """Return the window by name, over the images of all splits, so that they agree."""
        if window == "full" and self._bits == 16:
            return 0.0, 65535.0

        def levels(item: int) -> NDArray[Any]:
            try:
                with self.source.open(item) as file:
                    return read_levels(file)
            except DECODE_ERRORS as error:
                raise self._unreadable(self.source.name(item), error) from error

        def find() -> Arrays:
            say(f"looking for the levels of {len(items):,} images (once; the result is cached) ...")
            with ThreadPoolExecutor(_THREADS) as pool:
                return {"levels": np.array(find_levels(pool.map(levels, items.tolist()), window))}

        key = digest(listing, items.tobytes(), window)
        low, high = cached_arrays("levels", key, find)["levels"]
        return float(low), float(high)

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        if not self._skip_unreadable:
            return super()._load_batch(stored)
        images = torch.empty((len(stored), *self.spec.shape), dtype=self.pixel_type)
        shown = stored.copy()
        for row in range(len(stored)):
            images[row], shown[row] = self._load_or_next(int(stored[row]))
        return images, shown

    def _load_or_next(self, index: int) -> tuple[Tensor, int]:
        """Return the image, or the next one that can be read."""
        for offset in range(self.num_stored):
            candidate = (index + offset) % self.num_stored
            try:
                return self.load(candidate), candidate
            except UnreadableImage as error:
                if not self._warned:
                    warn(f"{error}: using the next one instead (reported once)")
                    self._warned = True
        raise InputError("no image can be read any more; check the disk")


def _common_size(source: Source, found: Scan, readable: NDArray[np.bool_]) -> tuple[int, int]:
    sizes = found.shapes[:, :2]
    first = sizes[int(np.flatnonzero(readable)[0])]
    different = np.flatnonzero(readable & (sizes != first).any(axis=1))
    if len(different):
        counts = Counter(map(tuple, sizes[readable].tolist())).most_common()
        shown = format_names(
            [f"{height}x{width} ({counted(count, 'image')})" for (height, width), count in counts],
            limit=5,
        )
        odd = int(different[0])
        height, width = sizes[odd]
        raise InputError(
            f"the images have {len(counts)} different sizes (height x width): {shown}; the first that differs from "
            f"the one before it is {source.name(odd)} ({height}x{width}); set data.image_size=64, or "
            f"data.image_size=[HEIGHT,WIDTH], to crop and resize them all"
        )
    return int(first[0]), int(first[1])


def _common_bits(
    source: Source, found: Scan, readable: NDArray[np.bool_], bits: int | None
) -> Literal[8, 16, 32]:
    if bits not in (None, 8, 16, 32):
        raise InputError(
            f"data.bits={bits!r}; allowed: 8, 16, 32 (floating point), or null for those of the files"
        )
    present = found.shapes[:, 3]
    counts = Counter(present[readable].tolist()).most_common()
    if bits is None and len(counts) > 1:
        modes = ", ".join(f"{count:,} with {number}" for number, count in counts)
        odd = int(np.flatnonzero(readable & (present != counts[0][0]))[0])
        raise InputError(
            f"the images have different bits ({modes}, among them {source.name(odd)}), so their levels differ; "
            f"remove some, or set data.bits={min(present[readable])} to use the high bits of all"
            if max(present[readable]) == 16
            else f"some images hold floating-point values and others do not ({modes} bits, among them "
            f"{source.name(odd)}); remove some"
        )
    wanted = int(counts[0][0]) if bits is None else bits
    lacking = np.flatnonzero(readable & (present < wanted))
    if len(lacking):
        raise InputError(
            f"data.bits={bits}, but {len(lacking):,} of {int(readable.sum()):,} images have fewer, the first is "
            f"{source.name(int(lacking[0]))} ({present[lacking[0]]}); set data.bits=null"
        )
    floating = np.flatnonzero(readable & (present == 32))
    if wanted < 32 and len(floating):
        raise InputError(
            f"data.bits={bits}, but {source.name(int(floating[0]))} holds floating-point values, whose range is "
            "unknown; set data.bits=32"
        )
    return wanted  # type: ignore[return-value]


def _common_channels(source: Source, found: Scan, readable: NDArray[np.bool_], bits: int) -> int:
    counts = Counter(found.shapes[readable, 2].tolist()).most_common()
    channels = int(counts[0][0])
    if len(counts) > 1 and bits != 8:
        odd = int(np.flatnonzero(readable & (found.shapes[:, 2] != channels))[0])
        raise InputError(
            f"most images have {channels} channels and {source.name(odd)} has {found.shapes[odd, 2]}; remove "
            "those, since levels of more than 8 bits are not converted to colors"
        )
    if len(counts) > 1:
        modes = ", ".join(f"{count:,} with {number}" for number, count in counts)
        warn(
            f"the images have different channels ({modes}); all become {channels}: set data.channels= to choose"
        )
    return channels
