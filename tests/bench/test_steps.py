from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from gan_lab.bench.steps import EVERYTHING, REST, Cost, MemoryPeak, Rounds, leaving_out, summarize
from gan_lab.config import build
from gan_lab.training.building import describe_samples
from gan_lab.training.module import AdversarialModule
from tests.helpers.samples import images_of


@pytest.fixture
def module(compose: Callable[..., DictConfig]) -> AdversarialModule:
    """Three D steps of 10 images for one of G; R1 each step, R2 every other."""
    config = compose(
        *(
            "model=gan",
            "batch_size=10",
            "d_steps=3",
            "regularizer=[r1,r2]",
            "regularizer.r2.interval=2",
        ),
        *("model.generator.width=2", "model.discriminator.width=2"),
    )
    describe_samples(config, images_of([2, 2], channels=1, classes=0))
    return build(config.model, total_images=100)


def test_costs_are_medians_weighted_by_how_often_they_come(module: AdversarialModule) -> None:
    costs = {"generator": 1.0, "discriminator": 2.0, "r2": 4.0, REST: 0.5}
    timed = [
        {
            EVERYTHING: {n: Cost(s * noise, 2 * s * noise) for n, s in costs.items()},
            "r1": {n: Cost(s * noise - 0.25, s * noise) for n, s in costs.items() if n != "r2"},
        }
        for noise in (1.0, 1.5, 40.0, 0.9, 1.0)  # the median of 5 is 1
    ]
    flops = {n: Cost(flops=int(100 * s)) for n, s in costs.items()}
    less = {n: Cost(flops=int(90 * s)) for n, s in costs.items()}
    rounds = Rounds(timed, {EVERYTHING: flops, "r1": less}, 1.5, "resident")
    summary = summarize(rounds, module)
    assert {n: p["seconds"] for n, p in summary["phases"].items()} == costs | {"r1": 0.25}
    assert summary["phases"]["r1"]["flops"] == 20
    seconds = 1 + 3 * 2 + 3 / 2 * 4 + 0.5
    assert summary["step"] == {
        "seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "flops": 100 * seconds,
    }
    assert summary["img_per_s"] == 30 / seconds
    assert summary["img_per_cpu_s"] == 15 / seconds


def test_what_is_left_out_comes_back_whatever_happens(module: AdversarialModule) -> None:
    with pytest.raises(KeyError), leaving_out(module, "r1"):
        assert list(module.players["discriminator"].regularizers) == ["r2"]
        raise KeyError
    assert list(module.players["discriminator"].regularizers) == ["r1", "r2"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux forgets a peak")
def test_the_peak_is_that_since_the_measurement_began() -> None:
    device = torch.device("cpu")
    before = MemoryPeak(device)
    assert before.kind == "resident"
    start = before.gib()
    np.ones(1 << 28, dtype=np.uint8).sum()
    assert 0.2 < before.gib() - start < 0.4
    MemoryPeak(device)  # the array is gone
    assert before.gib() < start + 0.1
