"""Sound as a kind of sample: int16 [C, T] at a rate, played as WAV, seen as a spectrogram."""

import os
import wave
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from gan_lab.data.decoding import DECODE_ERRORS, regular_file
from gan_lab.data.sample import SampleKind
from gan_lab.errors import InputError
from gan_lab.run import write

FULL_SCALE = 32767

_MOST_VALUES = 2**30  # of a file: three hours of stereo at 48 kHz
_RATES = (100, 768_000)  # of files: slower ones would become very long

_SIDE = 128  # pixels of a preview, either way
_FLOOR = -80.0  # decibels below full scale that a preview shows as black
# from silence to full scale
_COLOURS = torch.tensor([[0, 0, 4], [80, 18, 123], [182, 54, 121], [251, 136, 97], [252, 253, 191]])


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
        # into memory first: what writes sound reports a full disk in its own way, and more than once
        write(path, self._flac(stored) if path.suffix == ".flac" else self.media(stored))

    def read(self, path: Path) -> Tensor:
        """Read a file of this rate as it is.

        Raises:
            InputError: for what is no sound, and another rate.
        """
        if path.suffix.lower() == ".wav":
            found, rate = read_wav(path)
        else:
            found, rate = None, 0
        if found is None:
            values, rate = read_sound(path)
            found = self.to_stored(torch.from_numpy(values))
        if rate != self.rate:
            raise InputError(f"{path} has {rate} samples a second, {self.rate} are needed")
        return found

    def media(self, stored: Tensor) -> bytes:
        buffer = BytesIO()
        with wave.open(buffer, "wb") as opened:
            opened.setnchannels(stored.shape[0])
            opened.setsampwidth(2)
            opened.setframerate(self.rate)
            opened.writeframes(stored.T.contiguous().cpu().numpy().astype("<i2").tobytes())
        return buffer.getvalue()

    def preview(self, stored: Tensor) -> Tensor:
        """Draw spectrograms [N, 3, 128, 128] of the mean of all channels: time to the right, frequency up."""
        values = self.to_float(stored).mean(1)
        return coloured(spectrogram(values) / -_FLOOR + 1)

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


def coloured(shares: Tensor) -> Tensor:
    """Return colours uint8 [N, 3, H, W] of shares [N, H, W] from 0 to 1, by their lightness also without colours."""
    places = shares.clamp(0, 1) * (len(_COLOURS) - 1)
    low = places.long().clamp(max=len(_COLOURS) - 2)
    colours = _COLOURS.to(shares)
    mixed = torch.lerp(colours[low], colours[low + 1], (places - low)[..., None])
    return mixed.round().to(torch.uint8).permute(0, 3, 1, 2)


def read_wav(path: Path) -> tuple[Tensor | None, int]:
    """Read a WAV of 16 bits as int16 [C, T], and its rate; None for WAVs of other forms.

    Raises:
        InputError: when it cannot be opened.
    """
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                return None, 0
            frames, channels, rate = (
                file.readframes(file.getnframes()),
                file.getnchannels(),
                file.getframerate(),
            )
    except (wave.Error, EOFError):
        return None, 0
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    whole = len(frames) // (2 * channels) * 2 * channels
    values = np.frombuffer(frames[:whole], dtype="<i2").astype(np.int16).reshape(-1, channels)
    return torch.from_numpy(values.T.copy()), rate


def read_sound(path: Path | IO[bytes]) -> tuple[np.ndarray, int]:
    """Read a file of sound as float32 [C, T] in [-1, 1], and its rate.

    Raises:
        InputError: for what is no sound, and without the extra `audio`.
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
        raise InputError(f"{name} is no sound that can be read ({error})") from error
    return np.ascontiguousarray(values.T), int(rate)


class _Content(BytesIO):
    """A file's content, in which a damaged header may look anywhere: an error would be printed, and passed over."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: len(self.getbuffer())}
        return super().seek(max(0, start[whence] + offset))


def soundfile() -> Any:
    """Return the library that reads files of sound.

    Raises:
        InputError: without the extra `audio`.
    """
    try:
        import soundfile
    except (ModuleNotFoundError, OSError) as error:
        raise InputError(
            f"soundfile cannot be used ({error}); files other than WAV of 16 bits need pip install 'gan_lab[audio]'"
        ) from error
    return soundfile
