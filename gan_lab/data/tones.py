"""Synthetic notes for quick runs: 8,192 clips of half a second, 12 pitch classes, no download.

A note has four to six partials of random amplitude and phase, lies in the two octaves above A3 (220 Hz), up to 30 cents
out of tune, starts in the first tenth of the clip, has a random attack and decay, and noise 20 to 40 dB below.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.audio import FULL_SCALE, Audio
from gan_lab.data.base import SPLITS, SampleDataset, check_split, digest
from gan_lab.data.sample import SampleSpec

RATE, LENGTH = 8000, 4096
COUNTS = {"train": 7168, "val": 1024}
LOWEST = 220.0  # Hz, A3
CLASSES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")

_VERSION = 1  # of the recipe: part of the fingerprint
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
        semitones = random.integers(2 * len(CLASSES), size=COUNTS[split])
        labels = semitones % len(CLASSES)
        super().__init__(
            split=split,
            spec=SampleSpec(
                kind=Audio(rate=RATE),
                shape=(1, LENGTH),
                num_classes=len(CLASSES),
                class_names=CLASSES,
                class_counts=tuple(np.bincount(labels, minlength=len(CLASSES)).tolist()),
            ),
            labels=labels,
            flip=flip,
        )
        self._clips = torch.from_numpy(notes(semitones, random))

    @property
    def fingerprint(self) -> str:
        return digest("tones", _VERSION, self.split)

    def load(self, index: int) -> Tensor:
        return self._clips[index]

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return self._clips[torch.from_numpy(stored)], stored


def notes(semitones: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int16]:
    """Make notes int16 [N, 1, 4096] so many semitones above 220 Hz."""
    made = [
        _make(semitones[start : start + _CHUNK], random)
        for start in range(0, len(semitones), _CHUNK)
    ]
    return np.concatenate(made)[:, None]


def _make(semitones: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int16]:
    count = len(semitones)

    def drawn(low: float, high: float, *shape: int) -> NDArray[np.float64]:
        return random.uniform(low, high, (count, *(shape or (1,))))

    cents = 100 * semitones[:, None] + drawn(-30, 30)
    pitch = LOWEST * 2 ** (cents / 1200)  # Hz, [N, 1]
    numbers = np.arange(1, _MOST_PARTIALS + 1)
    amplitudes = drawn(0.2, 1, _MOST_PARTIALS) / numbers
    amplitudes[:, 0] = 1
    amplitudes[numbers * pitch > _HIGHEST] = 0  # the highest note keeps four
    partials = amplitudes * np.exp(2j * np.pi * drawn(0, 1, _MOST_PARTIALS))
    time = np.arange(LENGTH) / RATE
    turn = np.exp(2j * np.pi * (pitch * time % 1)).astype(np.complex64)  # of the fundamental
    wave = np.zeros((count, LENGTH), np.complex64)
    for number in reversed(range(_MOST_PARTIALS)):  # Horner: the sum over k of c_k z^k
        wave = (wave + partials[:, number, None].astype(np.complex64)) * turn
    since = time - drawn(0, 0.1) * LENGTH / RATE
    attack, decay = np.exp(drawn(np.log(0.005), np.log(0.05))), drawn(0.1, 0.5)
    rise = np.clip(since / attack, 0, 1)
    envelope = rise * np.exp(-np.clip(since - attack, 0, None) / decay)
    envelope[:, -_FADE:] *= np.linspace(1, 0, _FADE)
    tone = wave.real * envelope
    tone *= drawn(0.4, 0.9) / np.abs(tone).max(1, keepdims=True)
    level = np.sqrt(np.square(tone).mean(1, keepdims=True))
    tone += random.standard_normal(tone.shape) * level * 10 ** (-drawn(20, 40) / 20)
    return np.rint(np.clip(tone, -1, 1) * FULL_SCALE).astype(np.int16)
