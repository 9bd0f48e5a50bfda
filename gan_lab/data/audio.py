"""Sound: its kind of sample, and its representation as spectrograms."""

import hashlib
import os
import wave
import zlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.decoding import DECODE_ERRORS, regular_file
from gan_lab.data.sample import Excerpts, Representation, SampleKind, SampleSpec
from gan_lab.errors import InputError, import_extra
from gan_lab.run import write

FULL_SCALE = 32767
Pad = Literal["end", "center"]

_MOST_VALUES = 2**30  # of a file: three hours of stereo at 48 kHz
_RATES = (100, 768_000)  # of files: slower ones would become very long

_SIDE = 128  # pixels of a preview, either way
_FLOOR = -80.0  # decibels below full scale that a preview shows as black
# colors from silence to full scale
_COLORS = torch.tensor([[0, 0, 4], [80, 18, 123], [182, 54, 121], [251, 136, 97], [252, 253, 191]])


class Audio(SampleKind):
    """Sound as int16 [C, T], written as WAV or FLAC.

    Args:
        rate: samples a second.
    """

    name = "audio"
    suffix = ".wav"
    suffixes = (".wav", ".flac")
    axes = ("channels", "time")
    media_type = "audio/wav"

    def __init__(self, *, rate: int) -> None:
        if rate < 1:
            raise InputError(f"rate={rate} must be a positive number of samples a second")
        self.rate = rate

    @property
    def arguments(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def to_float(self, stored: Tensor) -> Tensor:
        return stored.float() / FULL_SCALE

    def to_stored(self, values: Tensor) -> Tensor:
        scaled = (values.float() * FULL_SCALE).round()
        return scaled.clamp(-FULL_SCALE, FULL_SCALE).to(torch.int16)

    def write(self, stored: Tensor, path: Path) -> None:
        # into memory first: soundfile reports a full disk in its own way, several times
        write(path, self._flac(stored) if path.suffix == ".flac" else self.encoded(stored))

    def decoded(self, data: bytes) -> Tensor:
        """Return the sound in a file of this rate; WAV of 16 bits needs no further library."""
        found, rate = _read_wav(data)
        if found is None:
            values, rate = read_sound(BytesIO(data))
            found = stored_levels(values)
        if rate != self.rate:
            raise InputError(f"it has {rate} samples a second, {self.rate} are needed")
        return found

    def media(self, stored: Tensor) -> bytes:
        return self.encoded(stored)

    def encoded(self, stored: Tensor) -> bytes:
        buffer = BytesIO()
        with wave.open(buffer, "wb") as opened:
            opened.setnchannels(stored.shape[0])
            opened.setsampwidth(2)
            opened.setframerate(self.rate)
            opened.writeframes(stored.T.contiguous().cpu().numpy().astype("<i2").tobytes())
        return buffer.getvalue()

    def zip_options(self, shape: Sequence[int]) -> str:
        channels, length = shape
        return f"data=audio data.rate={self.rate} data.length={length} data.channels={channels}"

    def preview(self, stored: Tensor) -> Tensor:
        """Draw spectrograms [N, 3, 128, 128] of the mean of all channels: time to the right, frequency up."""
        values = self.to_float(stored).mean(1)
        return colored(spectrogram(values) / -_FLOOR + 1)

    def _flac(self, stored: Tensor) -> bytes:
        buffer = BytesIO()
        soundfile().write(
            buffer, stored.T.cpu().numpy(), self.rate, format="FLAC", subtype="PCM_16"
        )
        return buffer.getvalue()


def spectrogram(values: Tensor) -> Tensor:
    """Return levels [N, 128, 128] of sound [N, T] in decibels of a sine of full scale, the highest pitch first."""
    window = 2 * _SIDE
    hann = torch.hann_window(window, device=values.device)
    hop = max(1, values.shape[1] // _SIDE)
    found = torch.stft(
        *(values, window, hop),
        window=hann,
        center=True,
        pad_mode="constant",
        return_complex=True,
    ).abs() / (hann.sum() / 2)
    # a very short sound has fewer frames than pixels
    levels = 20 * found[:, 1:, :_SIDE].clamp_min(1e-10).log10()
    missing = _SIDE - levels.shape[2]
    levels = torch.nn.functional.pad(levels, (0, max(missing, 0)), value=_FLOOR)
    return levels.flip(1).clamp(_FLOOR, 0)


def colored(shares: Tensor) -> Tensor:
    """Map shares [N, H, W] in 0 to 1 to colors uint8 [N, 3, H, W] of increasing lightness."""
    positions = shares.clamp(0, 1) * (len(_COLORS) - 1)
    low = positions.long().clamp(max=len(_COLORS) - 2)
    colors = _COLORS.to(shares)
    mixed = torch.lerp(colors[low], colors[low + 1], (positions - low)[..., None])
    return mixed.round().to(torch.uint8).permute(0, 3, 1, 2)


class Crops(Excerpts):
    """Parts of sounds of one length; silence is added to shorter ones.

    Args:
        length: of a part, in samples.
        count: parts of each sound.
        random: whether positions follow from a hash of the sound, the same wherever it is stored; otherwise parts are
            from its start.
        pad: "end" or "center": where silence is added.
    """

    def __init__(self, *, length: int, count: int, random: bool, pad: Pad) -> None:
        self.length, self.count, self.random, self.pad = length, count, random, pad

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "count": self.count,
            "random": self.random,
            "pad": self.pad,
        }

    def take(self, content: Tensor, number: int) -> Tensor:
        """Return part `number` [C, length] of a sound int16 [C, T]."""
        left = content.shape[1] - self.length
        if left > 0:
            start = 0
            if self.random:
                which = zlib.crc32(content.contiguous().numpy().tobytes())
                drawn = hashlib.sha256(f"{which} {number}".encode())
                start = int.from_bytes(drawn.digest()[:8], "big") % (left + 1)
            return content[:, start : start + self.length].contiguous()
        before = -left // 2 if self.pad == "center" else 0
        return torch.nn.functional.pad(content, (before, -left - before))


def stored_levels(values: NDArray[np.float32]) -> Tensor:
    """Return sound from `read_sound` as int16, as it is in files of 16 bits; only -32768 becomes -32767."""
    scaled = torch.from_numpy(values).mul(FULL_SCALE + 1).round()
    return scaled.clamp(-FULL_SCALE, FULL_SCALE).to(torch.int16)


def _read_wav(data: bytes) -> tuple[Tensor | None, int]:
    """Return a WAV of 16 bits as int16 [C, T], and its rate; None for anything else."""
    try:
        with wave.open(BytesIO(data), "rb") as file:
            if file.getsampwidth() != 2:
                return None, 0
            frames, channels, rate = (
                file.readframes(file.getnframes()),
                file.getnchannels(),
                file.getframerate(),
            )
    except (wave.Error, EOFError):
        return None, 0
    whole = len(frames) // (2 * channels) * 2 * channels
    values = np.frombuffer(frames[:whole], dtype="<i2").astype(np.int16).reshape(-1, channels)
    return torch.from_numpy(values.T.copy()), rate


def read_sound(path: Path | IO[bytes]) -> tuple[np.ndarray, int]:
    """Read a file of sound as float32 [C, T] in [-1, 1], and its rate.

    Raises:
        InputError: when it is not sound, and without the extra `audio`.
    """
    library = soundfile()
    try:
        with regular_file(path) if isinstance(path, Path) else nullcontext(path) as opened:
            content = _Content(opened.read())
        with library.SoundFile(content) as file:
            if not _RATES[0] <= file.samplerate <= _RATES[1]:
                raise ValueError(f"it claims {file.samplerate:,} samples a second")
            if file.frames * file.channels > _MOST_VALUES:
                raise ValueError(f"it claims {file.frames:,} frames of {file.channels:,} channels")
            values, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except DECODE_ERRORS as error:
        name = path if isinstance(path, Path) else "the file"
        raise InputError(f"{name} is not sound that can be read ({error})") from error
    return np.ascontiguousarray(values.T), int(rate)


class _Content(BytesIO):
    """A file's content that allows any seek: for damaged headers soundfile would print an error and ignore it."""

    def __repr__(self) -> str:
        return "it"  # in soundfile's errors

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: len(self.getbuffer())}
        return super().seek(max(0, start[whence] + offset))


def soundfile() -> Any:
    """Import soundfile.

    Raises:
        InputError: without the extra `audio`.
    """
    return import_extra("soundfile", extra="audio", what="sound other than WAV of 16 bits")


# SpecGAN's representation of sound: log magnitudes as images, for any image model.
#
# Donahue et al. 2019, https://arxiv.org/abs/1802.04208, section 3.2: magnitudes of the short-time Fourier transform,
# their logarithm, each frequency standardized over the data and clipped at three deviations. Sound comes back by
# estimating phases (Griffin and Lim 1984).


_SILENCE = 1e-6  # added to magnitudes before the logarithm, as in the authors' code


# limits: a run's config is untrusted
_LARGEST_WINDOW = 2**16
_MOST_ITERATIONS = 10_000


class Spectrogram(Representation):
    """Sound [N, C, T] as images [N, C, window / 2, T / hop] in [-1, 1]; the lowest frequency is the first row.

    The highest frequency is left out, so that the sizes are powers of two. 16,384 samples give 128x128.

    Args:
        window: of the transform, in samples; an even number.
        hop: samples from one to the next; at most half of the window, and it divides the length.
        deviations: where standardized log magnitudes are clipped.
        iterations: of Griffin and Lim's algorithm.
        momentum: of its iterations (Perraudin et al. 2013, the fast variant); 0 for the published one.

    Raises:
        InputError: for numbers out of range.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        window: int = 256,
        hop: int = 128,
        deviations: float = 3.0,
        iterations: int = 32,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        if not 4 <= window <= _LARGEST_WINDOW or window % 2 or not 1 <= hop <= window // 2:
            raise InputError(
                f"representation: window={window} must be even and from 4 to {_LARGEST_WINDOW:,}, hop={hop} from 1 to "
                f"{window // 2}"
            )
        if deviations <= 0 or not 1 <= iterations <= _MOST_ITERATIONS or not 0 <= momentum < 1:
            raise InputError(
                f"representation: deviations={deviations} must be positive, iterations={iterations} from 1 to "
                f"{_MOST_ITERATIONS:,} and momentum={momentum} from 0 to below 1"
            )
        self.window, self.hop, self.deviations = window, hop, deviations
        self.iterations, self.momentum = iterations, momentum
        self.register_buffer("mean", torch.zeros(window // 2, 1))
        self.register_buffer("std", torch.ones(window // 2, 1))
        self.register_buffer("hann", torch.hann_window(window), persistent=False)

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "hop": self.hop,
            "deviations": self.deviations,
            "iterations": self.iterations,
            "momentum": self.momentum,
        }

    def check(self, spec: SampleSpec) -> None:
        if len(spec.shape) != 2 or spec.kind.axes[-1] != "time":
            raise InputError(
                f"representation=spectrogram is for sound, but the data are {spec.kind.name}; leave it out"
            )
        if spec.shape[1] % self.hop or spec.shape[1] < self.window:
            raise InputError(
                f"representation: clips have {spec.shape[1]} samples, which must be at least window={self.window} "
                f"and a multiple of hop={self.hop}"
            )

    @torch.no_grad()
    def measure(self, samples: Iterable[Tensor]) -> None:
        """Take the mean and deviation of each frequency's log magnitudes over sounds [N, C, T]."""
        total = torch.zeros(2, self.window // 2, dtype=torch.float64)
        count = 0
        for batch in samples:
            levels = self._levels(batch).double()
            total += torch.stack([x.sum((0, 1, 3)) for x in (levels, levels.square())])
            count += levels.numel() // levels.shape[2]
        mean = total[0] / count
        variance = (total[1] / count - mean.square()).clamp_min(1e-12)
        self.mean.copy_(mean[:, None])
        self.std.copy_(variance.sqrt()[:, None])

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        channels, length = stored
        return channels, self.window // 2, length // self.hop

    def encode(self, samples: Tensor) -> Tensor:
        standardized = (self._levels(samples) - self.on(samples, "mean")) / self.on(samples, "std")
        return (standardized / self.deviations).clamp(-1, 1)

    def decode(self, values: Tensor) -> Tensor:
        """Estimate sounds [N, C, T] of images [N, C, F, T / hop]."""
        values = values.float().clamp(-1, 1)
        levels = values * self.deviations * self.on(values, "std") + self.on(values, "mean")
        magnitudes = (levels.exp() - _SILENCE).clamp_min(0).flatten(0, 1)
        # the omitted frequency, and the last frame, half of which is beyond the end
        magnitudes = torch.nn.functional.pad(magnitudes, (0, 0, 0, 1))
        magnitudes = torch.cat([magnitudes, magnitudes[:, :, -1:] / 2], dim=2)
        sound = self._griffin_lim(magnitudes, length=values.shape[3] * self.hop)
        return sound.unflatten(0, values.shape[:2])

    def _levels(self, samples: Tensor) -> Tensor:
        """Log magnitudes [N, C, F, T / hop] of sounds [N, C, T]."""
        found = self._transform(samples.float().flatten(0, 1))[:, :-1, :-1]
        return (found.abs() + _SILENCE).log().unflatten(0, samples.shape[:2])

    def _transform(self, sound: Tensor) -> Tensor:
        return torch.stft(
            sound,
            self.window,
            self.hop,
            window=self.on(sound, "hann"),
            pad_mode="constant",
            return_complex=True,
        )

    def _griffin_lim(self, magnitudes: Tensor, *, length: int) -> Tensor:
        """Find sounds [N, T] whose transforms have these magnitudes [N, F + 1, T / hop + 1], deterministically."""
        source = torch.Generator().manual_seed(0)
        turns = torch.rand(magnitudes.shape[1:], generator=source).to(magnitudes) * 2 * torch.pi
        phases = torch.polar(torch.ones_like(turns), turns)
        before = torch.zeros_like(phases)
        for _ in range(self.iterations):
            sound = self._inverse(magnitudes * phases, length)
            found = self._transform(sound)
            moved = found - before * (self.momentum / (1 + self.momentum))
            phases = moved / moved.abs().clamp_min(1e-16)
            before = found
        return self._inverse(magnitudes * phases, length)

    def _inverse(self, transform: Tensor, length: int) -> Tensor:
        window = self.on(transform, "hann")
        return torch.istft(transform, self.window, self.hop, window=window, length=length)

    def on(self, values: Tensor, name: str) -> Tensor:
        """Return a buffer on the device of values: a generator may be on another device than the data."""
        return getattr(self, name).to(values.device)
