"""Measuring sound: pitch by autocorrelation, and files of sines."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gan_lab.data.audio import Audio
from gan_lab.data.sample import SampleSpec


def pitch(values: NDArray[np.number], rate: int, *, low: float = 190, high: float = 900) -> float:
    """Return the frequency in Hz at the highest autocorrelation, between samples by a parabola."""
    x = values.astype(np.float64) - values.mean()
    spectrum = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(x)]
    first, last = int(rate / high), int(np.ceil(rate / low))
    # a sound that fades correlates less with itself the further it is moved
    correlation = correlation / np.arange(len(x), 0, -1)
    inner = correlation[first : last + 1]
    # of peaks that are as good, the first is the period and others its multiples
    peaks = [
        i
        for i in range(1, len(inner) - 1)
        if inner[i - 1] <= inner[i] >= inner[i + 1] and inner[i] > 0.9 * inner.max()
    ]
    best = first + (peaks[0] if peaks else int(inner.argmax()))
    a, b, c = correlation[best - 1 : best + 2]
    bend = a - 2 * b + c
    return float(rate / (best + (0.5 * (a - c) / bend if bend else 0)))


def write_sines(folder: Path, *, count: int = 4, length: int = 300, rate: int = 8000) -> Path:
    """Write sines of two classes, low and high, into sub-folders."""
    time = torch.arange(length) / rate
    for name, hertz in (("high", 1500.0), ("low", 400.0)):
        for number in range(count):
            wave = torch.sin(2 * torch.pi * (hertz + 20 * number) * time)[None] / 2
            kind = Audio(rate=rate)
            kind.write(kind.to_stored(wave), folder / name / f"{number}.wav")
    return folder


def sound_spec(length: int, *, rate: int = 8000, classes: int = 0) -> SampleSpec:
    """Return the spec of clips of one channel."""
    names = tuple(f"class {i}" for i in range(classes))
    return SampleSpec(
        kind=Audio(rate=rate), shape=(1, length), num_classes=classes, class_names=names
    )
