"""The embedded notes match their description."""

import numpy as np
import pytest
import torch

from gan_lab.data.builtin import LOWEST_PITCH, PITCHES, TONE_LENGTH, TONE_RATE, Tones
from tests.helpers.sounds import pitch


@pytest.fixture(scope="module")
def val() -> Tones:
    return Tones(split="val")


def test_they_are_always_the_same(val: Tones) -> None:
    again = Tones(split="val")
    some = list(range(0, 1024, 128))
    assert torch.equal(again.__getitems__(some).real, val.__getitems__(some).real)
    assert again.fingerprint == val.fingerprint
    assert val.spec.shape == (1, TONE_LENGTH) and val.num_stored == 1024
    assert val.spec.kind.arguments == {"rate": TONE_RATE}
    assert (np.array(val.class_counts) > 1024 / 12 / 2).all()


def test_pitch_is_that_of_the_class(val: Tones) -> None:
    clips, labels = val.__getitems__(range(0, 1024, 4)).real, val.labels[::4]
    found = np.array([pitch(clip[0].numpy(), TONE_RATE) for clip in clips])
    semitones = 12 * np.log2(found / LOWEST_PITCH)
    off = (semitones - labels + 6) % 12 - 6
    # 30 cents of detuning, and what the estimate itself is off
    assert (np.abs(off) < 0.45).mean() > 0.98
    octaves = np.floor((semitones + 0.5) / 12)
    assert set(octaves.tolist()) == {0, 1}
    assert len(PITCHES) == 12


def test_onset_noise_level_and_ends(val: Tones) -> None:
    clips = val.__getitems__(range(256)).real[:, 0].double() / 32767
    peak = clips.abs().amax(1)
    assert ((peak > 0.38) & (peak < 1)).all()
    assert clips.mean(1).abs().max() < 0.02, "no DC offset"
    loud = clips.abs() > 0.5 * peak[:, None]
    assert (loud.double().argmax(1) < 0.1 * TONE_LENGTH + 0.06 * TONE_RATE).all()
    # the last samples have faded away: what is left is noise, at most 20 dB below the note
    level = clips.square().mean(1).sqrt()
    assert (clips[:, -1].abs() < 5 * level * 10 ** (-20 / 20)).all()


def test_all_are_different(val: Tones) -> None:
    train = Tones(split="train")
    assert train.num_stored == 7168 and train.content_digest() != val.content_digest()
    clips = torch.cat([train.__getitems__(range(64)).real, val.__getitems__(range(64)).real])
    assert len(clips.unique(dim=0)) == 128
