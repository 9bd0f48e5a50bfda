"""Volumes: slices that belong together, of a DICOM series or a NIfTI file, and what is the same for all of them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_lab.console import say
from gan_lab.data.cache import Arrays
from gan_lab.errors import InputError, counted

_SPACINGS = (1e-4, 1e4)  # mm of a pixel, from microscopes to what is damaged
_EMPTY = 0.01  # standard deviation of a slice, as a share of its volume's range, below which nothing is on it


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


def look_at(volumes: Sequence[Volume]) -> Arrays:
    """Lowest, highest level, percentiles, and whether levels are whole, of each volume; the spread of each slice."""
    say(f"looking at {counted(len(volumes), 'volume')} (once; the result is kept) ...")
    ends, whole, spreads = [], [], []
    for volume in volumes:
        low, high, is_whole, some = np.inf, -np.inf, True, []
        for pixels in map(volume.slice, range(len(volume))):
            if not np.isfinite(pixels).all():
                raise InputError(f"{volume.where} holds NaN or infinity; replace them")
            low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
            is_whole = is_whole and low >= 0 and bool((pixels == np.rint(pixels)).all())
            spreads.append(float(pixels.std()))
            flat = pixels.reshape(-1)
            some.append(flat[:: max(1, flat.size // 1024)])
        ends.append([low, high, *np.percentile(np.concatenate(some), (0.5, 99.5))])
        whole.append(is_whole and high <= 65535)
    return {
        "ends": np.array(ends, dtype=np.float64),
        "whole": np.array(whole),
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
    """Volume and slice of all that are wanted."""
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
    """Return the lowest and highest level of a window, as `parse_window` returns it, of volumes that were looked at.

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
    """(height, width) of a slice that is resampled to so many mm a pixel; None leaves it."""
    if wanted is None or spacing is None:
        return shape
    height, width = (
        max(1, round(side * mm / wanted)) for side, mm in zip(shape, spacing, strict=True)
    )
    return height, width


def resampled(
    plane: NDArray[np.float32], spacing: tuple[float, float], wanted: float
) -> NDArray[np.float32]:
    """Resample a slice [H, W] to so many mm a pixel: bilinear, with antialiasing where pixels become larger."""
    height, width = resampled_size((plane.shape[0], plane.shape[1]), spacing, wanted)
    resized = Image.fromarray(np.ascontiguousarray(plane)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def tell_others(root: Path, count: int, what: str) -> None:
    """Say how many files are of another format."""
    if count:
        say(
            f"data.root: passed over {counted(count, 'file')} that {'is' if count == 1 else 'are'} no {what}"
        )


def need_package(module: str, what: str) -> None:
    """Check that a package of the extra `medical` is installed.

    Raises:
        InputError: with the remedy.
    """
    try:
        __import__(module)
    except ImportError as error:
        raise InputError(
            f"{what} needs the extra medical: pip install 'gan-laboratory[medical]' ({error})"
        ) from error


def matched(group_by: str | None, name: str) -> str | None:
    """Return what a regular expression finds in a path; None without one, and where it finds nothing.

    Raises:
        InputError: for what is none.
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
