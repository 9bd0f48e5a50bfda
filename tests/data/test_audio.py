"""Sound as it is stored, written, played and drawn."""

import io
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_lab.data.audio import Audio, read_sound
from gan_lab.errors import InputError

RATE = 8000


def sine(hertz: float, *, length: int = 4096, level: float = 0.5) -> torch.Tensor:
    time = torch.arange(length) / RATE
    return Audio(rate=RATE).to_stored(level * torch.sin(2 * torch.pi * hertz * time)[None])


@given(st.lists(st.integers(-32767, 32767), min_size=1, max_size=50))
def test_values_come_back(values: list[int]) -> None:
    stored = torch.tensor([[values]], dtype=torch.int16)
    kind = Audio(rate=RATE)
    assert torch.equal(kind.to_stored(kind.to_float(stored)), stored)


def test_loud_sound_is_clipped_at_both_ends() -> None:
    assert Audio(rate=1).to_stored(torch.tensor([-9.0, 9.0])).tolist() == [-32767, 32767]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_are_read_as_they_were_written(tmp_path: Path, suffix: str, channels: int) -> None:
    stored = torch.randint(-32767, 32768, (channels, 500), dtype=torch.int16)
    kind = Audio(rate=44100)
    path = tmp_path / f"folder/clip{suffix}"
    kind.write(stored, path)
    if suffix == ".wav":
        assert torch.equal(kind.read(path), stored)
    values, rate = read_sound(path)
    assert rate == 44100 and values.shape == (channels, 500)
    # soundfile divides by 32768, the kind by 32767: full scale is 1 here
    assert np.abs(values - stored.numpy() / 32768).max() < 1e-6


def test_media_is_a_wav_that_the_standard_library_reads() -> None:
    stored = sine(440)
    with wave.open(io.BytesIO(Audio(rate=RATE).media(stored))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, RATE, 4096)
        frames = np.frombuffer(file.readframes(4096), "<i2")
    assert np.array_equal(frames, stored[0].numpy())


def test_other_rates_and_what_is_not_a_sound_are_named(tmp_path: Path) -> None:
    Audio(rate=16000).write(sine(440), tmp_path / "clip.wav")
    with pytest.raises(InputError, match=r"16000.*8000"):
        Audio(rate=8000).read(tmp_path / "clip.wav")
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"text\.wav"):
        Audio(rate=8000).read(tmp_path / "text.wav")
    with pytest.raises(InputError, match=r"absent\.wav"):
        Audio(rate=8000).read(tmp_path / "absent.wav")
    with pytest.raises(InputError, match="rate=0"):
        Audio(rate=0)


@pytest.mark.parametrize("hertz", [500, 1000, 3000])
def test_a_sine_is_a_line_at_its_height(hertz: int) -> None:
    image = Audio(rate=RATE).preview(sine(hertz)[None])[0].float().sum(0)  # [H, W]
    assert image.shape == (128, 128)
    row = int(image.mean(1).argmax())
    # rows are 4000 / 128 Hz apart, the highest first
    assert abs((128 - row) * 4000 / 128 - hertz) <= 4000 / 128
    assert image[row].mean() > 2 * image.mean()


def test_louder_is_lighter_and_silence_is_dark() -> None:
    kind = Audio(rate=RATE)
    clips = torch.stack([sine(1000, level=level) for level in (0.0, 0.01, 0.5)])
    silence, quiet, loud = kind.preview(clips).float().amax((1, 2, 3)).tolist()
    assert silence <= 4 < quiet < loud


@pytest.mark.parametrize("length", [1, 32, 300, 70_000])
def test_sounds_of_any_length_are_drawn(length: int) -> None:
    assert Audio(rate=RATE).preview(sine(100, length=length)[None]).shape == (1, 3, 128, 128)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"gan-laboratory\[audio\]"):
        Audio(rate=RATE).write(sine(440), tmp_path / "clip.flac")
    # a WAV needs none
    Audio(rate=RATE).write(sine(440), tmp_path / "clip.wav")
    assert torch.equal(Audio(rate=RATE).read(tmp_path / "clip.wav"), sine(440))
