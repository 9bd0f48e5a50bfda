"""The classifier of phantoms, and protocol=phantoms on real slices."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from gan_lab.config import build
from gan_lab.data.builtin import Phantoms
from gan_lab.metrics.cache import MemoryChunks
from gan_lab.metrics.features.classifiers import (
    PhantomsFeatures,
    all_samples,
    load_phantoms_classifier,
)
from gan_lab.metrics.protocol import Protocol
from gan_lab.metrics.sources import DatasetImages


def test_a_short_training_is_better_than_chance() -> None:
    classifier, sha256 = load_phantoms_classifier(steps=100, lowest_accuracy=0.5)
    assert load_phantoms_classifier(steps=100, lowest_accuracy=0.5)[1] == sha256
    features = PhantomsFeatures()
    features.classifier = classifier
    stored, _ = all_samples(Phantoms(split="val"))
    made = features._forward(stored[:2], frozenset(features.outputs))
    assert {name: list(one.shape) for name, one in made.items()} == {
        "features": [2, 64],
        "logits": [2, 3],
    }


@pytest.mark.slow
def test_real_slices(compose: Callable[..., DictConfig]) -> None:
    training, held_out = (DatasetImages(Phantoms(split=split)) for split in ("train", "val"))
    protocol: Protocol = build(
        compose("protocol=phantoms", "protocol.num_fake=512", root="evaluate").protocol
    )
    protocol.load(torch.device("cpu"))
    protocol.measure_real(held_out, reference=training)
    found = {metric.key: metric.value for metric in protocol.measure(held_out, MemoryChunks())}
    assert found["fd_phantoms"] == pytest.approx(0, abs=1e-3) and found["ks_gray"] == 0
    assert found["accuracy_phantoms"] > 0.93
    assert 0 < found["fd_phantoms_real"] < 5 and 0 < found["ks_gray_real"] < 0.02
