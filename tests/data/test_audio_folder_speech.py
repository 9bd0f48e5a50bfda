"""Spoken digits, from a speech synthesizer if installed."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from gan_lab.data.audio_folder import AudioFolder

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = ("en-us", "en-us+f2", "en-gb+m3")


@pytest.mark.speech
def test_spoken_digits_in_several_voices(tmp_path: Path) -> None:
    for word in WORDS:
        (tmp_path / word).mkdir()
        for number, voice in enumerate(VOICES):
            file = tmp_path / word / f"{number}.wav"
            subprocess.run(["espeak-ng", "-v", voice, "-w", file, word], check=True)
    data = AudioFolder(split="train", root=tmp_path, rate=16000, length=16384, crop="fixed")
    assert data.class_names == sorted(WORDS) and data.class_counts == [3] * 10
    clips = data.__getitems__(range(30)).real
    assert clips.shape == (30, 1, 16384)
    levels = clips.double().square().mean((1, 2)).sqrt() / 32767
    assert (levels > 0.01).all() and (levels < 0.7).all()
    # three voices of one word differ
    assert len({clip.numpy().tobytes() for clip in clips}) == 30
    assert np.isfinite(levels.numpy()).all()
