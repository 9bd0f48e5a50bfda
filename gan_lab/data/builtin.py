"""Data sets that need no download: digits, phantoms (16 bits), tones (sound), Python's manual (text), noise."""

import platform
import re
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gan_lab.data.audio import FULL_SCALE, Audio
from gan_lab.data.base import SPLITS, ImageDataset, MemoryImages, SampleDataset, check_split, digest
from gan_lab.data.high_bit_depth import HighBitDepthImage, window_of
from gan_lab.data.metadata import MetadataTable
from gan_lab.data.sample import SampleSpec
from gan_lab.data.text import (
    UNKNOWN,
    Lines,
    Text,
    count_characters,
    cut_lines,
    most_frequent,
    numbered,
)
from gan_lab.data.transform import Crop, ImageSize, check_options, parse_size
from gan_lab.errors import InputError
from gan_lab.seeding import derive_seed

# Digits: 1,797 images of scikit-learn, 10 classes; the test part of "Optical Recognition of Handwritten Digits",
# https://archive.ics.uci.edu/dataset/80, 8x8 pixels with 17 gray levels (counts of set pixels in 4x4 blocks of the
# scan).

_VAL_EVERY = 5  # images of a digit, patients


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

    def load(self, index: int) -> Tensor:
        """Stored image `index` as uint8 [3, H, W]."""
        return self._digits[torch.from_numpy(self._triples[index])]

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return self._digits[torch.from_numpy(self._triples[stored])], stored


# Phantoms: slices of 320 made-up patients, 12 bits in 16-bit images, three classes. A body with a bright rim holds an
# organ. The class says what the organ is made of, "smooth", "striped" or "speckled", and how large it is on average;
# the patient says how large and how bright body and organ are, where the organ lies, how it is turned, and how fine its
# texture is. Eight slices go through each patient, and show less of both at their ends.


PHANTOM_CLASSES = ("smooth", "striped", "speckled")
PATIENTS, SLICES = 320, 8
HIGHEST_LEVEL = 4095  # of 12 bits

_PHANTOMS_VERSION = 1  # of the recipe: part of the fingerprint
_ORGAN_SIZES = (0.30, 0.36, 0.42)  # radius of a class's organs, in halves of the image
_ENDS = 0.8  # height of the outermost slices, where 1 is the top of the body
_NOISE = 12.0  # standard deviation of a level, everywhere


class Phantoms(ImageDataset):
    """The slices: 2,048 of 256 patients to train on and 512 of 64 others to validate on, always the same.

    Args:
        split: "train" or "val".
        image_size: one number, at least 16; patients look the same at all sizes.
        flip: append the mirror images.

    Raises:
        InputError: for options out of range.
    """

    in_memory = True
    pixel_type = torch.uint16

    def __init__(self, *, split: str, image_size: ImageSize = 64, flip: bool = False) -> None:
        check_split(split)
        size = parse_size(image_size)
        if size is None or size[0] != size[1] or size[0] < 16:
            raise InputError(f"data.image_size={image_size}; allowed: one number, at least 16")
        numbers = [n for n in range(PATIENTS) if (n % _VAL_EVERY == 0) == (split == "val")]
        patients = [Patient.numbered(n) for n in numbers]
        self._images = torch.from_numpy(
            np.concatenate([patient.slices(size[0]) for patient in patients])[:, None]
        )
        kind = HighBitDepthImage(bits=16, channels=1, window=(0, HIGHEST_LEVEL))
        names = [f"patient{n:04}" for n in numbers]
        groups = [name for name in names for _ in range(SLICES)]
        super().__init__(
            split=split,
            image_size=size,
            channels=1,
            class_names=PHANTOM_CLASSES,
            labels=np.repeat([patient.label for patient in patients], SLICES),
            flip=flip,
            kind=kind,
            representation=window_of(kind.window, bits=16),
            groups=groups,
        )
        self._table = MetadataTable(
            files=[f"{name}/slice{k:04}.png" for name in names for k in range(SLICES)],
            labels=self.labels,
            class_names=list(PHANTOM_CLASSES),
            groups=groups,
            splits=[split] * self.num_stored,
        )
        self._fingerprint = digest("phantoms", _PHANTOMS_VERSION, size, split, flip)

    def name(self, index: int) -> str:
        return self.metadata.files[index]

    def load(self, index: int) -> Tensor:
        """Stored slice `index` as uint16 [1, H, W]."""
        return self._images[index]

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return self._images[torch.from_numpy(stored)], stored


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What a patient's slices have in common. Lengths are in halves of the image, angles in radians.

    Attributes:
        number: seeds the textures.
        label: of the class.
        body: half axes.
        organ: half axes.
        center: of the organ.
        turn: of the organ.
        levels: of body, organ and rim.
        grain: of the texture: half a stripe, or three speckles.
    """

    number: int
    label: int
    body: tuple[float, float]
    organ: tuple[float, float]
    center: tuple[float, float]
    turn: float
    levels: tuple[float, float, float]
    grain: float

    @classmethod
    def numbered(cls, number: int) -> "Patient":
        """Return patient `number`, always the same."""
        random = np.random.default_rng([_PHANTOMS_VERSION, number])
        label = int(random.integers(len(PHANTOM_CLASSES)))
        width = _ORGAN_SIZES[label] * random.uniform(0.85, 1.15)
        x, y = random.uniform(-0.2, 0.2, 2).tolist()
        return cls(
            number=number,
            label=label,
            body=(random.uniform(0.75, 0.92), random.uniform(0.6, 0.75)),
            organ=(width, width * random.uniform(0.6, 0.8)),
            center=(x, 0.5 * y),
            turn=random.uniform(-0.6, 0.6),
            levels=(
                random.uniform(800, 1100),
                random.uniform(1700, 2500),
                random.uniform(2900, 3500),
            ),
            grain=random.uniform(0.1, 0.14),
        )

    def slices(self, size: int, count: int = SLICES) -> NDArray[np.uint16]:
        """Return `count` slices [count, size, size] from the lower to the upper end."""
        random = np.random.default_rng([_PHANTOMS_VERSION, self.number, 1])
        heights = np.linspace(-_ENDS, _ENDS, count)
        return np.stack([self._slice(size, height, random) for height in heights])

    def _slice(self, size: int, height: float, random: np.random.Generator) -> NDArray[np.uint16]:
        y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
        scale = np.sqrt(1 - height**2)
        edge = 2 / size  # a pixel
        in_body = _inside(x, y, self.body, scale, edge)
        in_rim = in_body - _inside(x, y, self.body, scale - 0.08, edge)
        dx, dy = x - self.center[0] * scale, y - self.center[1] * scale
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        across, along = cos * dx + sin * dy, cos * dy - sin * dx
        in_organ = _inside(across, along, self.organ, scale, edge)
        body, organ, rim = self.levels
        texture = self._texture(across, size, random)
        levels = 30 + in_body * (body - 30)
        levels += in_organ * (organ + 350 * texture - levels)
        levels += in_rim * (rim - levels)
        noise = random.normal(0, _NOISE, levels.shape)
        return np.rint(np.clip(levels + noise, 0, HIGHEST_LEVEL)).astype(np.uint16)

    def _texture(
        self, across: NDArray[np.float64], size: int, random: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return the organ's texture [size, size], about from -1 to 1."""
        phase, speckles = random.uniform(0, 2 * np.pi), random.normal(size=(size, size))
        if PHANTOM_CLASSES[self.label] == "striped":
            return np.sin(np.pi * across / self.grain + phase)
        if PHANTOM_CLASSES[self.label] == "speckled":
            blurred = gaussian_filter(speckles, self.grain / 6 * size / 2)
            return np.clip(blurred / blurred.std() / 2, -1, 1)
        return np.zeros_like(across)


def _inside(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    axes: tuple[float, float],
    scale: float,
    edge: float,
) -> NDArray[np.float64]:
    """Return 1 inside of an ellipse, 0 outside, and what lies between on its edge, about a pixel wide."""
    axes = (axes[0] * scale, axes[1] * scale)
    distance = (np.hypot(x / axes[0], y / axes[1]) - 1) * min(axes)
    return np.clip(0.5 - distance / edge, 0, 1)


# Tones: 8,192 synthetic notes of half a second in 12 pitch classes. A note has four to six partials of random amplitude
# and phase, lies in the two octaves above A3 (220 Hz), up to 30 cents out of tune, starts in the first tenth of the
# clip, has a random attack and decay, and noise 20 to 40 dB below.


TONE_RATE, TONE_LENGTH = 8000, 4096
TONE_COUNTS = {"train": 7168, "val": 1024}
LOWEST_PITCH = 220.0  # Hz, A3
PITCHES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")

_TONES_VERSION = 1  # of the recipe: part of the fingerprint
_MOST_PARTIALS, _HIGHEST = 6, 3900.0  # Hz
_CHUNK = 256  # clips made at a time
_FADE = 80  # samples at the end, so that no clip ends with a click


class Tones(SampleDataset):
    """The notes: 7,168 for training and 1,024 for validation, always the same.

    Args:
        split: "train" or "val".
        flip: only false: a note played backwards is not a note.
    """

    in_memory = True

    def __init__(self, *, split: str, flip: bool = False) -> None:
        check_split(split)
        random = np.random.default_rng(SPLITS.index(split))
        # drawn at random, not evenly: so real clips vary as much as generated ones
        semitones = random.integers(2 * len(PITCHES), size=TONE_COUNTS[split])
        labels = semitones % len(PITCHES)
        super().__init__(
            split=split,
            spec=SampleSpec(
                kind=Audio(rate=TONE_RATE),
                shape=(1, TONE_LENGTH),
                num_classes=len(PITCHES),
                class_names=PITCHES,
                class_counts=tuple(np.bincount(labels, minlength=len(PITCHES)).tolist()),
            ),
            labels=labels,
            flip=flip,
        )
        self._clips = torch.from_numpy(notes(semitones, random))

    @property
    def fingerprint(self) -> str:
        return digest("tones", _TONES_VERSION, self.split)

    def load(self, index: int) -> Tensor:
        return self._clips[index]

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return self._clips[torch.from_numpy(stored)], stored


def notes(semitones: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int16]:
    """Make notes int16 [N, 1, 4096] at given semitones above 220 Hz."""
    made = [
        _make_notes(semitones[start : start + _CHUNK], random)
        for start in range(0, len(semitones), _CHUNK)
    ]
    return np.concatenate(made)[:, None]


def _make_notes(semitones: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int16]:
    count = len(semitones)

    def drawn(low: float, high: float, *shape: int) -> NDArray[np.float64]:
        return random.uniform(low, high, (count, *(shape or (1,))))

    cents = 100 * semitones[:, None] + drawn(-30, 30)
    pitch = LOWEST_PITCH * 2 ** (cents / 1200)  # Hz, [N, 1]
    numbers = np.arange(1, _MOST_PARTIALS + 1)
    amplitudes = drawn(0.2, 1, _MOST_PARTIALS) / numbers
    amplitudes[:, 0] = 1
    amplitudes[numbers * pitch > _HIGHEST] = 0  # the highest note keeps four
    partials = amplitudes * np.exp(2j * np.pi * drawn(0, 1, _MOST_PARTIALS))
    time = np.arange(TONE_LENGTH) / TONE_RATE
    turn = np.exp(2j * np.pi * (pitch * time % 1)).astype(np.complex64)  # of the fundamental
    wave = np.zeros((count, TONE_LENGTH), np.complex64)
    for number in reversed(range(_MOST_PARTIALS)):  # Horner: the sum over k of c_k z^k
        wave = (wave + partials[:, number, None].astype(np.complex64)) * turn
    since = time - drawn(0, 0.1) * TONE_LENGTH / TONE_RATE
    attack, decay = np.exp(drawn(np.log(0.005), np.log(0.05))), drawn(0.1, 0.5)
    rise = np.clip(since / attack, 0, 1)
    envelope = rise * np.exp(-np.clip(since - attack, 0, None) / decay)
    envelope[:, -_FADE:] *= np.linspace(1, 0, _FADE)
    tone = wave.real * envelope
    tone *= drawn(0.4, 0.9) / np.abs(tone).max(1, keepdims=True)
    level = np.sqrt(np.square(tone).mean(1, keepdims=True))
    tone += random.standard_normal(tone.shape) * level * 10 ** (-drawn(20, 40) / 20)
    return np.rint(np.clip(tone, -1, 1) * FULL_SCALE).astype(np.int16)


# Text that comes with CPython: the reference manual's topics, as `help("topics")` shows them.


HELD_OUT_LINES = 1280  # lines, chosen once and always the same


class PythonDocs(Lines):
    """The topics of `pydoc_data`, cut into lines of `length` characters, with one space for any white space.

    The text differs between versions of Python. 1,280 lines are for validation.

    Args:
        split: "train" or "val".
        length: of a line.
        alphabet_size: characters at most, the most frequent ones; one of them replaces all others.

    Raises:
        InputError: for options out of range, and where this Python lacks the topics.
    """

    def __init__(self, *, split: str, length: int = 32, alphabet_size: int = 256) -> None:
        check_split(split)
        text = topics_text()
        rows = cut_lines(text, length=length, wrap=True, least=length)
        if len(rows) < 2 * HELD_OUT_LINES:
            raise InputError(
                f"data.length={length} leaves {len(rows):,} lines, and {HELD_OUT_LINES:,} are held out; lower it"
            )
        counts = count_characters(rows)
        alphabet = most_frequent(counts, alphabet_size - 1)
        complete = len(alphabet) == (counts > 0).sum()
        kind = Text(
            alphabet=alphabet if complete else alphabet + UNKNOWN,
            length=length,
            unknown=None if complete else UNKNOWN,
        )
        lines = numbered(rows, kind)
        order = np.random.default_rng(0).permutation(len(lines))
        chosen = np.sort(order[:HELD_OUT_LINES] if split == "val" else order[HELD_OUT_LINES:])
        version = platform.python_version()
        self.origin = f"pydoc_data of Python {version}"
        super().__init__(
            split=split,
            kind=kind,
            lines=lines[chosen],
            labels=np.zeros(len(chosen), dtype=np.int64),
            fingerprint=digest("python_docs", version, lines.tobytes(), split),
        )


def topics_text() -> str:
    """Return all topics concatenated by name, with white space collapsed.

    Raises:
        InputError: where this Python lacks them.
    """
    try:
        from pydoc_data.topics import topics  # a separate package on some systems
    except ImportError as error:
        raise InputError(
            "data=python_docs: this Python lacks pydoc_data; install it completely, or use data=text"
        ) from error
    return " ".join(re.sub(r"\s+", " ", topics[name]).strip() for name in sorted(topics))


# Images of noise, for benchmarks.


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
