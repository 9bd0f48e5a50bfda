"""Slices of volumes as a data set, in the scanner's own levels, with patients as groups under pseudonyms.

Names of patients, files and folders are neither stored nor shown: images, messages and tables have "patient 3" and
"file 7". `gan_lab.data.dicom` reads DICOM, `gan_lab.data.nifti` NIfTI.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_lab.console import say
from gan_lab.data.base import ImageDataset, digest
from gan_lab.data.cache import Arrays, cached_arrays
from gan_lab.data.high_bit_depth import HighBitDepthImage, parse_window, window_of
from gan_lab.data.metadata import UNLABELED, MetadataTable
from gan_lab.data.source import existing_folder
from gan_lab.data.splits import members_by_table
from gan_lab.data.transform import Crop, ImageSize, ImageTransform, parse_crop, parse_size
from gan_lab.errors import InputError, counted

_SPACINGS = (1e-4, 1e4)  # plausible mm of a pixel; other headers are damaged
_EMPTY = (
    0.01  # standard deviation of a slice, as a share of its volume's range, below which it is empty
)


@dataclass(frozen=True, kw_only=True)
class Volume(ABC):
    """Slices that belong together: of one series, or one file.

    Attributes:
        patient: identifies the patient; never shown.
        series: identifies the series; never shown.
        label: the first folder below the root.
        where: for messages, such as "file 3".
        shape: (height, width) of a slice.
        spacing: (height, width) of a pixel in mm, or None where the file does not say.
    """

    patient: str
    series: str
    label: str
    where: str
    shape: tuple[int, int]
    spacing: tuple[float, float] | None

    @abstractmethod
    def __len__(self) -> int:
        """Number of slices."""

    @abstractmethod
    def slice(self, number: int) -> NDArray[np.float32]:
        """Return one slice [H, W], in the scanner's levels (such as Hounsfield units).

        Raises:
            InputError: naming the file by its number when it cannot be decoded.
        """


def scan_volumes(volumes: Sequence[Volume]) -> Arrays:
    """Scan volumes: lowest and highest level, percentiles, whether levels are integers; deviation of each slice."""
    say(f"scanning {counted(len(volumes), 'volume')} (once; the result is cached) ...")
    ends, are_integers, spreads = [], [], []
    for volume in volumes:
        low, high, is_integer, some = np.inf, -np.inf, True, []
        for pixels in map(volume.slice, range(len(volume))):
            if not np.isfinite(pixels).all():
                raise InputError(f"{volume.where} holds NaN or infinity; replace them")
            low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
            is_integer = is_integer and low >= 0 and bool((pixels == np.rint(pixels)).all())
            spreads.append(float(pixels.std()))
            flat = pixels.reshape(-1)
            some.append(flat[:: max(1, flat.size // 1024)])
        ends.append([low, high, *np.percentile(np.concatenate(some), (0.5, 99.5))])
        are_integers.append(is_integer and high <= 65535)
    return {
        "ends": np.array(ends, dtype=np.float64),
        "are_integers": np.array(are_integers),
        "spreads": np.array(spreads, dtype=np.float64),
    }


def check_range(number: int, least: int, most: int) -> int:
    """Return a number of a header.

    Raises:
        ValueError: for one out of range.
    """
    if not least <= number <= most:
        raise ValueError(f"{number:,} is out of range")
    return number


def pixel_spacing(height: Any, width: Any) -> tuple[float, float]:
    """Return the size of a pixel in mm.

    Raises:
        ValueError: for one out of range.
    """
    sides = float(height), float(width)
    if not all(_SPACINGS[0] <= side <= _SPACINGS[1] for side in sides):
        raise ValueError(f"pixels of {sides} mm")
    return sides


def choose_slices(
    volumes: Sequence[Volume],
    found: Arrays,
    slices: Sequence[int] | None,
    every: int,
    keep_empty: bool,
) -> list[tuple[int, int]]:
    """Choose slices; return (volume, slice) of each."""
    items, start = [], 0
    for number, volume in enumerate(volumes):
        count = len(volume)
        first, last = (0, count - 1) if slices is None else slices
        first, last = (end + count if end < 0 else end for end in (first, last))
        span = found["ends"][number, 1] - found["ends"][number, 0]
        for k in range(max(first, 0), min(last, count - 1) + 1, every):
            if keep_empty or found["spreads"][start + k] > _EMPTY * span:
                items.append((number, k))
        start += count
    if not items:
        raise InputError(
            f"of {counted(start, 'slice')} none is left; widen data.slices, or set data.keep_empty=true"
        )
    return items


def window_ends(levels: str | tuple[float, float], found: Arrays, bits: int) -> tuple[float, float]:
    """Return the lowest and highest level of a window, as `parse_window` returns it, of scanned volumes.

    Raises:
        InputError: when all levels are the same.
    """
    if not isinstance(levels, str):
        return levels
    if levels == "full" and bits == 16:
        return 0.0, 65535.0
    low, high = (2, 3) if levels == "percentiles" else (0, 1)
    ends = float(found["ends"][:, low].min()), float(found["ends"][:, high].max())
    if not ends[0] < ends[1]:
        raise InputError(
            f"all volumes have the one level {ends[0]:g}, of which nothing can be learned"
        )
    return ends


def resampled_size(
    shape: tuple[int, int], spacing: tuple[float, float] | None, wanted: float | None
) -> tuple[int, int]:
    """Return (height, width) of a slice after resampling to a pixel spacing in mm; None keeps it."""
    if wanted is None or spacing is None:
        return shape
    height, width = (
        max(1, round(side * mm / wanted)) for side, mm in zip(shape, spacing, strict=True)
    )
    return height, width


def resampled(
    plane: NDArray[np.float32], spacing: tuple[float, float], wanted: float
) -> NDArray[np.float32]:
    """Resample a slice [H, W] to a pixel spacing in mm: bilinear, with antialiasing where pixels become larger."""
    height, width = resampled_size((plane.shape[0], plane.shape[1]), spacing, wanted)
    resized = Image.fromarray(np.ascontiguousarray(plane)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def report_skipped(count: int, what: str) -> None:
    """Report how many files have another format."""
    if count:
        say(
            f"data.root: skipped {counted(count, 'file')} that {'is' if count == 1 else 'are'} not {what}"
        )


def matched(group_by: str | None, name: str) -> str | None:
    """Return the match of a regular expression in a path; None without an expression, or without a match.

    Raises:
        InputError: for an invalid expression.
    """
    if group_by is None:
        return None
    try:
        match = re.search(group_by, name)
    except re.error as error:
        raise InputError(f"data.group_by={group_by} is no regular expression ({error})") from error
    if match is None:
        return None
    return str(match[1] if match.re.groups else match[0])


AXES = {
    "sagittal": 0,
    "coronal": 1,
    "axial": 2,
}  # of a volume whose axes go to the right, front and top


class Slices(ImageDataset):
    """Slices of all volumes below a folder.

    Non-negative integer levels are stored in 16 bits, all others, such as Hounsfield units, as float32.

    Args:
        split: "train" or "val".
        root: the folder.
        classes: whether the folders in `root` are classes, whose names are then in the run.
        val_fraction: share of the patients for validation.
        folds: instead of `val_fraction`: number of folds with about equally many patients, one for validation.
        fold: index of the validation fold.
        image_size: one number, [H, W], or None for the one size that all slices have.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        spacing: mm a pixel that all slices are resampled to, or None for the one spacing that all have.
        slices: [first, last] of each volume, counted from 0, negative from its end.
        every: take every n-th of these.
        keep_empty: whether to keep empty slices.
        neighbors: number of slices before and after each that are its further channels (2.5-D).
        window: "range" | "full" | "percentiles" | [center, width], in levels.
        flip: append the mirror images, which exchanges left and right.
        axis: that slices lie across, of NIfTI: "axial" (None), "coronal" or "sagittal".
        group_by: a regular expression whose match in a path names the patient; None for DICOM's patient and for BIDS's
            sub-... in names of NIfTI files; otherwise each file is a patient.

    Raises:
        InputError: for a missing or empty folder, files that cannot be read or do not go together, and options out of
            range.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        classes: bool = False,
        val_fraction: float = 0.0,
        folds: int | None = None,
        fold: int = 0,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "bilinear",
        spacing: float | None = None,
        slices: Sequence[int] | None = None,
        every: int = 1,
        keep_empty: bool = False,
        neighbors: int = 0,
        window: str | Sequence[float] = "range",
        flip: bool = False,
        axis: str | None = None,
        group_by: str | None = None,
    ) -> None:
        levels = parse_window(window)
        _check_options(spacing=spacing, slices=slices, every=every, neighbors=neighbors)
        if axis is not None and axis not in AXES:
            raise InputError(f"data.axis={axis!r}; allowed: {', '.join(AXES)}")
        self._axis, self._group_by = axis, group_by
        folder = existing_folder(root, f"a folder of {self.kind_of_files}")
        self._volumes, listing = self._open(folder, sorted(_files(folder)))
        self._spacing, self._neighbors = spacing, neighbors
        found = self._scanned(listing)
        items = choose_slices(self._volumes, found, slices, every, keep_empty)
        channels = 2 * neighbors + 1
        self._transform = ImageTransform(
            size=parse_size(image_size) or self._common_size(),
            channels=channels,
            crop=parse_crop(crop),
            resample=resample,
        )
        table = _table(self._volumes, items, classes=classes)
        members = members_by_table(
            table, split=split, val_fraction=val_fraction, root=folder, folds=folds, fold=fold
        )
        self._items = [item for item, chosen in zip(items, members, strict=True) if chosen]
        spacing_here = self._pixel_spacing()
        self._table = replace(table.rows(np.flatnonzero(members)), spacing=spacing_here)
        self._bits: Literal[16, 32] = 16 if found["are_integers"].all() else 32
        self.pixel_type = torch.uint16 if self._bits == 16 else torch.float32
        ends = window_ends(levels, found, self._bits)
        super().__init__(
            split=split,
            image_size=self._transform.size,
            channels=channels,
            class_names=table.class_names,
            labels=self._table.labels,
            flip=flip,
            kind=HighBitDepthImage(
                bits=self._bits, channels=channels, window=ends, spacing=spacing_here
            ),
            representation=window_of(ends, bits=self._bits),
            groups=self._table.groups,
        )
        self._fingerprint = digest(
            listing, self._items, self._transform, spacing, neighbors, ends, split, flip
        )

    kind_of_files: str

    def _scanned(self, listing: str) -> Arrays:
        """Return what `scan_volumes` finds, from the cache if it is there."""
        key = digest(type(self).__name__, listing, [volume.where for volume in self._volumes])
        return cached_arrays("volumes", key, lambda: scan_volumes(self._volumes))

    @abstractmethod
    def _open(self, root: Path, files: list[str]) -> tuple[list[Volume], str]:
        """Return the volumes of the files, and a digest of these."""

    def name(self, index: int) -> str:
        """Patient, volume and slice, by their numbers."""
        return self.metadata.files[index]

    def load(self, index: int) -> Tensor:
        """Stored slice `index` [C, H, W], with its neighbors as further channels; at the ends the last one repeats."""
        number, at = self._items[index]
        volume = self._volumes[number]
        around = range(at - self._neighbors, at + self._neighbors + 1)
        planes = [volume.slice(min(max(k, 0), len(volume) - 1)) for k in around]
        if self._spacing is not None and volume.spacing is not None:
            planes = [resampled(plane, volume.spacing, self._spacing) for plane in planes]
        pixels = self._transform.levels(np.stack(planes, axis=-1), bits=self._bits)
        return torch.from_numpy(pixels.copy())

    def _pixel_spacing(self) -> tuple[float, float] | None:
        """Pixel spacing (height, width) of loaded slices in mm; None if it differs or is unknown."""
        found = set()
        for volume in self._volumes:
            if volume.spacing is None:
                return None
            shape = resampled_size(volume.shape, volume.spacing, self._spacing)
            mm = volume.spacing if self._spacing is None else (self._spacing, self._spacing)
            found.add(self._transform.spacing(mm, shape))
        return found.pop() if len(found) == 1 else None

    def _common_size(self) -> tuple[int, int]:
        """Check that volumes have one spacing and size; return the size."""
        if self._spacing is None:
            spacings = Counter(
                tuple(round(mm, 3) for mm in volume.spacing) if volume.spacing else None
                for volume in self._volumes
            ).most_common()
            if len(spacings) > 1:
                odd = next(
                    volume.where
                    for volume in self._volumes
                    if volume.spacing is None
                    or tuple(round(mm, 3) for mm in volume.spacing) != spacings[0][0]
                )
                found = ", ".join(f"{spacing} ({count:,})" for spacing, count in spacings[:4])
                raise InputError(
                    f"pixels have different spacings in mm: {found}, the last of them in {odd}; set data.spacing=1.0 "
                    "(and data.image_size) to resample all to one"
                )
        elif any(volume.spacing is None for volume in self._volumes):
            odd = next(volume.where for volume in self._volumes if volume.spacing is None)
            raise InputError(
                f"data.spacing={self._spacing:g}, but {odd} has no spacing in its header"
            )
        sizes = Counter(
            resampled_size(volume.shape, volume.spacing, self._spacing) for volume in self._volumes
        ).most_common()
        if len(sizes) > 1:
            found = ", ".join(f"{height}x{width} ({n:,})" for (height, width), n in sizes[:4])
            raise InputError(
                f"slices have different sizes: {found}; set data.image_size=256 to crop and resize them all"
            )
        return sizes[0][0]


def _files(folder: Path) -> list[str]:
    """Regular files below a folder, as paths from it; hidden ones are skipped."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in found]
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def _table(
    volumes: Sequence[Volume], items: Sequence[tuple[int, int]], *, classes: bool
) -> MetadataTable:
    """Return the metadata of slices, given as (volume, slice): patients and series by their pseudonyms."""
    names = sorted({volume.label for volume in volumes}) if classes else list(UNLABELED)
    patients = _pseudonyms("patient", [volume.patient for volume in volumes])
    series = _pseudonyms("series", [volume.series for volume in volumes])
    return MetadataTable(
        files=[f"{patients[v]}/volume{v + 1:04}/slice{k:04}" for v, k in items],
        labels=np.array([names.index(volumes[v].label) if classes else 0 for v, _ in items]),
        class_names=names,
        groups=[patients[v] for v, _ in items],
        series=[series[v] for v, _ in items],
    )


def _pseudonyms(what: str, identifiers: Sequence[str]) -> list[str]:
    """Names such as "patient0001", numbered in an order unrelated to the real names."""
    ordered = sorted(set(identifiers), key=lambda one: hashlib.sha256(one.encode()).digest())
    number = {one: i for i, one in enumerate(ordered, start=1)}
    return [f"{what}{number[one]:04}" for one in identifiers]


def _check_options(
    *, spacing: float | None, slices: Sequence[int] | None, every: int, neighbors: int
) -> None:
    if spacing is not None and not 0 < spacing < float("inf"):
        raise InputError(f"data.spacing={spacing}; allowed: mm a pixel above 0, or null")
    if slices is not None and (len(slices) != 2 or not all(type(end) is int for end in slices)):
        raise InputError(f"data.slices={slices}; allowed: [first,last], such as [10,-10], or null")
    if every < 1 or neighbors < 0:
        raise InputError(
            f"data.every={every}, data.neighbors={neighbors}; allowed: at least 1, and at least 0"
        )
