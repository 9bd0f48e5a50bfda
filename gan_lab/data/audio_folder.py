"""Sounds that are decoded on access: files of a folder or a zip, or values in a container."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.console import say, warn
from gan_lab.data.audio import FULL_SCALE, Audio, Crops, Pad, read_sound, soundfile, stored_levels
from gan_lab.data.base import SampleDataset, check_split, digest
from gan_lab.data.cache import Arrays, cached_arrays
from gan_lab.data.image_folder import open_samples
from gan_lab.data.metadata import MetadataTable
from gan_lab.data.sample import SampleSpec
from gan_lab.data.source import Source, describe_unreadable, existing_path, readable_files
from gan_lab.data.splits import members_by_table
from gan_lab.errors import InputError, import_extra

ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au")

_VERSION = 1
_THREADS = 8
_REPORTED_FROM = 1000
_LONGEST = 2**26  # samples: 23 minutes at 48 kHz
_CROPS = 16  # of each clip that is longer than a sample


class EncodedSounds(SampleDataset):
    """Sounds of a `Source`; each is decoded once at the start, and the result is cached.

    A random crop is one of 16 of each clip, at positions derived from its content, so that resuming is exact, and
    packed clips have the same ones: an epoch has 16 items of each clip.

    Args:
        source: the sounds of all splits.
        table: a row for each.
        members: bool [len(source)], those of this split.
        split: "train" or "val"; crops of "val" are fixed.
        rate: samples a second; sounds of other rates are resampled.
        length: of a sample, in samples.
        channels: 1 for the mean of all, or 2.
        crop: "random", or "fixed" from the start, of longer clips.
        pad: "end" or "center": where silence is added to shorter clips: at the end, or on both sides.
        skip_unreadable: skip broken and silent files.

    Raises:
        InputError: for broken or silent files, options out of range, and without the extra `audio`.
    """

    def __init__(
        self,
        *,
        source: Source,
        table: MetadataTable,
        members: NDArray[np.bool_],
        split: str,
        rate: int,
        length: int,
        channels: int,
        crop: str,
        pad: Pad,
        skip_unreadable: bool,
    ) -> None:
        check_split(split)
        _check_options(rate=rate, length=length, channels=channels, crop=crop, pad=pad)
        soundfile()
        found = scan(source)
        usable = readable_files(source, found.reasons, skip=skip_unreadable, what="sound")
        self._items = np.flatnonzero(members & usable)
        if not len(self._items):
            raise InputError(f"no sound of split={split} can be used")
        self.rate, self._channels = rate, channels
        seconds = found.frames / np.maximum(found.rates, 1)
        longer = bool((seconds[self._items] * rate > length).any())
        is_random = crop == "random" and split == "train" and longer
        self.excerpts = Crops(
            length=length, count=_CROPS if is_random else 1, random=is_random, pad=pad
        )
        labels = table.labels[self._items]
        super().__init__(
            split=split,
            spec=SampleSpec(
                kind=Audio(rate=rate),
                shape=(channels, length),
                num_classes=len(table.class_names),
                class_names=tuple(table.class_names),
                class_counts=tuple(np.bincount(labels, minlength=len(table.class_names)).tolist()),
            ),
            labels=labels,
        )
        self.source = source
        self.unreadable = [(source.name(i), why) for i, why in found.reasons.items() if members[i]]
        if self.unreadable:
            warn(f"left out {describe_unreadable(self.unreadable)}")
        self._table = table.rows(self._items) if table.has_more_than_classes else None
        self._fingerprint = digest(
            *(source.listing, self._items.tobytes(), self.labels.tobytes(), split),
            *(rate, length, channels, crop, pad),
        )

    def name(self, index: int) -> str:
        return self.source.name(int(self._items[index]))

    def load(self, index: int) -> Tensor:
        return self.excerpts.take(self.load_content(index), 0)

    def load_content(self, index: int) -> Tensor:
        """A clip at this rate, int16 [C, T].

        Raises:
            InputError: naming the file.
        """
        try:
            with self.source.open(int(self._items[index])) as file:
                values, rate = read_sound(file)
        except (OSError, InputError) as error:
            raise InputError(f"{self.name(index)} cannot be read ({error})") from error
        return stored_levels(resampled(mixed(values, self._channels), rate, self.rate))


class AudioFolder(EncodedSounds):
    """All sounds in a folder or zip; the other arguments are those of `EncodedSounds`.

    Args:
        split: "train" or "val".
        root: the folder or zip.
        classes: as `ImageFolder` takes it.
        val_fraction: share of the files for validation, chosen by a hash of their names, if there are no splits.

    Raises:
        InputError: also for a missing or empty folder.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        rate: int = 16000,
        length: int = 16384,
        channels: int = 1,
        crop: str = "random",
        pad: Pad = "end",
        classes: bool | None = None,
        val_fraction: float = 0.0,
        skip_unreadable: bool = False,
    ) -> None:
        path = existing_path(root, "a folder of sounds, or a zip of them")
        table, source = open_samples(path, "sounds", endings=ENDINGS, classes=classes)
        super().__init__(
            source=source,
            table=table,
            members=members_by_table(table, split=split, val_fraction=val_fraction, root=path),
            split=split,
            rate=rate,
            length=length,
            channels=channels,
            crop=crop,
            pad=pad,
            skip_unreadable=skip_unreadable,
        )


@dataclass(frozen=True, kw_only=True)
class AudioScan:
    """The result of a scan.

    Attributes:
        frames: int64 [N], 0 where unreadable.
        rates: int64 [N].
        reasons: why a file cannot be used, by its index.
    """

    frames: NDArray[np.int64]
    rates: NDArray[np.int64]
    reasons: dict[int, str]


def scan(source: Source) -> AudioScan:
    """Decode all files of `source`, or load the cached result if they are unchanged."""
    key = digest("audio", _VERSION, source.listing)
    arrays = cached_arrays("scans", key, lambda: _scan_all(source))
    reasons: dict[str, str] = json.loads(arrays["reasons"].tobytes())
    numbered = {int(number): reason for number, reason in reasons.items()}
    return AudioScan(frames=arrays["frames"], rates=arrays["rates"], reasons=numbered)


def _scan_all(source: Source) -> Arrays:
    if len(source) >= _REPORTED_FROM:
        say(f"listening to {len(source):,} files (once; the result is cached) ...")
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda index: _inspect(source, index), range(len(source))))
    reasons = {str(index): reason for index, (_, _, reason) in enumerate(found) if reason}
    return {
        "frames": np.array([frames for frames, _, _ in found], dtype=np.int64),
        "rates": np.array([rate for _, rate, _ in found], dtype=np.int64),
        "reasons": np.frombuffer(json.dumps(reasons).encode(), dtype=np.uint8),
    }


def _inspect(source: Source, index: int) -> tuple[int, int, str]:
    """Return frames, rate, and why a file cannot be used ("" if it can)."""
    try:
        with source.open(index) as file:
            values, rate = read_sound(file)
    except (OSError, InputError) as error:
        return 0, 0, f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not values.size:
        return 0, rate, "is empty"
    if not np.isfinite(values).all():
        return values.shape[1], rate, "holds values that are not finite"
    if np.abs(values).max() * FULL_SCALE < 1:
        return values.shape[1], rate, "is silent"
    return values.shape[1], rate, ""


def mixed(values: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Return [C, T] with 1 channel, the mean of all, or 2: stereo unchanged, else the mean twice."""
    if channels == 2 and values.shape[0] == 2:
        return values
    return np.repeat(values.mean(0, keepdims=True), channels, axis=0)


def resampled(values: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Return sound [C, T] at another rate.

    Raises:
        InputError: without the extra `audio`.
    """
    if rate == wanted:
        return values
    soxr = import_extra("soxr", extra="audio", what="sound of another rate")
    return np.ascontiguousarray(soxr.resample(values.T, rate, wanted).T)


def _check_options(*, rate: int, length: int, channels: int, crop: str, pad: str) -> None:
    if not 1 <= rate <= 768_000 or not 1 <= length <= _LONGEST:
        raise InputError(
            f"data.rate={rate} must be 1 to 768000 samples a second, and data.length={length} from 1 to {_LONGEST:,}"
        )
    if channels not in (1, 2):
        raise InputError(f"data.channels={channels} must be 1, the mean of all, or 2")
    if crop not in ("random", "fixed") or pad not in ("end", "center"):
        raise InputError(f"data.crop={crop} must be random or fixed, data.pad={pad} end or center")
