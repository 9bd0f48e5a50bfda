"""The classifier of notes, and its metrics on real clips and on noise."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from gan_lab.config import build
from gan_lab.data import builtin
from gan_lab.data.builtin import Tones
from gan_lab.errors import InputError
from gan_lab.metrics.features.classifiers import TonesFeatures, load_tones_classifier
from gan_lab.metrics.functional import frechet_distance
from gan_lab.metrics.protocol import Protocol


@pytest.fixture(scope="module", autouse=True)
def notes_once() -> Iterator[None]:
    """Make the notes of each split once; that they are always the same is tested with the data set."""
    make = builtin.notes
    made: dict[int, NDArray[np.int16]] = {}

    def notes(semitones: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int16]:
        count = len(semitones)
        if count not in made:
            made[count] = make(semitones, random)
        return made[count]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin, "notes", notes)
        yield


@pytest.fixture(scope="module")
def val() -> Tones:
    return Tones(split="val")


def test_it_is_accurate_on_held_out_notes(val: Tones) -> None:
    state = torch.get_rng_state()
    classifier, sha256 = load_tones_classifier()
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state is its own"
    assert load_tones_classifier()[1] == sha256
    batch = val.__getitems__(range(len(val)))
    features, logits = classifier.outputs(batch.real)
    assert (logits.argmax(1) == batch.labels).double().mean() > 0.97
    assert features.shape == (1024, 64) and features.std(0).min() > 0


def test_other_shapes_are_rejected() -> None:
    with pytest.raises(InputError, match="4096"):
        TonesFeatures().check((1, 16384), "the clips")
    with pytest.raises(InputError, match="4096"):
        TonesFeatures().check((1, 64, 64), "the images")
    TonesFeatures().check((2, 4096), "the clips")


def test_real_clips_are_near_and_noise_is_far(val: Tones) -> None:
    classifier, _ = load_tones_classifier()
    train = Tones(split="train").__getitems__(range(1024))
    noise = torch.randint(-3000, 3000, train.real.shape, dtype=torch.int16)
    held_out = classifier.outputs(val.__getitems__(range(1024)).real)[0]
    of_real, of_noise = (
        float(frechet_distance(classifier.outputs(clips)[0], held_out))
        for clips in (train.real, noise)
    )
    assert of_real < 1 and of_noise > 20


def test_the_metrics_are_of_these_data_alone(compose: Callable[..., DictConfig]) -> None:
    config = compose("data=tones", "metrics=tones", "model=wavegan")
    protocol = build(config.metrics, Protocol)
    assert protocol.name == "tones" and protocol.best == "fd_tones"
    assert not [key for key in ("fid", "FID") if key in str(config.metrics)]
