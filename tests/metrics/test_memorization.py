"""protocol=memorization on generators that copy training images, and on others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lab.commands.launch import launch
from gan_lab.config import build
from gan_lab.data.builtin import Digits, Phantoms
from gan_lab.errors import InputError
from gan_lab.metrics.cache import MemoryChunks
from gan_lab.metrics.feature_metrics import MetricValue
from gan_lab.metrics.features import NoFeatures
from gan_lab.metrics.memorization import TrainingCopies
from gan_lab.metrics.plots import nearest_pairs
from gan_lab.metrics.protocol import Protocol
from gan_lab.metrics.sources import DatasetImages
from gan_lab.run import read_results
from tests.helpers.sources import FixedImages

TRAINING, HELD_OUT = (DatasetImages(Digits(split=split)) for split in ("train", "val"))
REAL = TRAINING.read(0, TRAINING.count or 0)
APART = HELD_OUT.read(0, HELD_OUT.count or 0)


def measured(
    compose: Callable[..., Any], images: Tensor, *, features: str = "digits", **options: Any
) -> dict[str, MetricValue]:
    overrides = [f"protocol.{key}={value}" for key, value in options.items()]
    config = compose("protocol=memorization", f"features={features}", *overrides, root="evaluate")
    node = config.protocol
    protocol: Protocol = build(node, Protocol, features=build(config.features))
    fake = FixedImages(images)
    protocol.check(real=TRAINING, fake=fake, reference=HELD_OUT)
    protocol.load(torch.device("cpu"))
    protocol.measure_real(TRAINING, reference=HELD_OUT)
    return {metric.key: metric for metric in protocol.measure(fake, MemoryChunks())}


def noisy(images: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def shifted(images: Tensor) -> Tensor:
    """Mirrored, and one pixel to the right."""
    return torch.nn.functional.pad(images.flip(3), (1, 0))[..., :16]


SOME = REAL[torch.randperm(len(REAL), generator=torch.Generator().manual_seed(1))[:400]]
HALF = torch.stack([SOME[:180], APART[::2]], 1).flatten(0, 1)


@pytest.mark.parametrize(
    ("images", "answer", "shares"),
    [
        (SOME, "yes", {"pixels": 1.0, "shifted": 1.0, "features": 1.0}),
        (noisy(SOME, 8), "yes", {"pixels": 1.0, "shifted": 1.0, "features": 0.98}),
        (APART, "no", {"pixels": 0.0, "shifted": 0.0, "features": 0.0}),
        (HALF, "yes", {"pixels": 0.5, "shifted": 0.5, "features": 0.5}),
        (shifted(SOME), "yes", {"shifted": 1.0}),
    ],
    ids=["training", "noisy", "held-out", "half", "mirrored and shifted"],
)  # fmt: skip
def test_generators_that_are_known(
    compose: Callable[..., Any], images: Tensor, answer: str, shares: dict[str, float]
) -> None:
    found = measured(compose, images, num_fake=360)
    verdict = found["memorization_360"].detail
    assert verdict["verdict"] == answer, verdict["text"]
    for name, share in shares.items():
        assert found[f"copies_{name}_360"].value == pytest.approx(share, abs=0.03), name
    assert "membership_discriminator" not in found, "these images have none"


def test_pairs_are_of_each_other(compose: Callable[..., Any]) -> None:
    found = measured(
        compose, SOME, num_fake=360, features="none", **{"metrics.copies.output": "null"}
    )
    assert not any("features" in key for key in found)
    pairs = found["copies_pixels_360"].detail["nearest"]
    assert all(torch.equal(SOME[pair["generated"]], REAL[pair["real"]]) for pair in pairs)
    sheet = nearest_pairs(pairs, FixedImages(SOME), TRAINING)
    assert sheet.shape[1] > 2 * 64 and sheet.shape[2] > 16 * 64


def test_membership_by_distance(compose: Callable[..., Any]) -> None:
    found = measured(compose, REAL, num_fake=len(REAL))
    assert found[f"membership_pixels_{len(REAL)}"].value == 1
    assert found[f"membership_pixels_{len(REAL)}"].detail["interval"] == [1, 1]


def protocol(**options: Any) -> Protocol:
    return Protocol(
        **{
            "name": "memorization",
            "features": NoFeatures(),
            "metrics": {"copies": TrainingCopies(output=None)},
            "num_fake": 10,
            "num_real_features": None,
            "reference_split": "val",
            **options,
        }
    )


def test_what_it_needs() -> None:
    fake = FixedImages(SOME)
    with pytest.raises(InputError, match="held_out"):
        protocol().check(real=TRAINING, fake=fake)
    with pytest.raises(InputError, match="real="):
        protocol().check(real=None, fake=fake, reference=HELD_OUT)
    with pytest.raises(InputError, match="num_real=null"):
        protocol(num_real=100).check(
            real=DatasetImages(Digits(split="train"), num=100), fake=fake, reference=HELD_OUT
        )
    with pytest.raises(InputError, match="one shape"):
        protocol().check(real=TRAINING, fake=FixedImages(SOME[..., :8]), reference=HELD_OUT)


def test_16_bits_and_patients() -> None:
    training, held_out = (DatasetImages(Phantoms(split=split)) for split in ("train", "val"))
    chosen = protocol(num_fake=64)
    fake = FixedImages(training.read(0, 64))
    chosen.check(real=training, fake=fake, reference=held_out)
    chosen.load(torch.device("cpu"))
    chosen.measure_real(training, reference=held_out)
    found = {metric.key: metric for metric in chosen.measure(fake, MemoryChunks())}
    assert found["copies_pixels_64"].value == 1
    assert found["memorization_64"].detail["verdict"] == "yes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["total_kimg=40"], "no"),
        (["total_kimg=40", "metrics=none", "data._target_=tests.helpers.few.FewDigits"], "yes"),
    ],
    ids=["all digits", "50 digits"],
)
def test_trained_digits(tmp_path: Path, overrides: list[str], answer: str) -> None:
    train = ["experiment=digits/lsgan", "trainer=cpu", f"runs_dir={tmp_path}", "name=run"]
    assert launch("train", [*train, *overrides]) == 0
    run = f"run={tmp_path / 'run'}"
    overrides = ["protocol=memorization", "features=digits", "device=cpu", "trust=[tests]"]
    assert launch("evaluate", [run, *overrides, "checkpoint=last"]) == 0
    metrics = {
        one["key"]: one for one in read_results(tmp_path / "run" / "evaluation.json")[-1]["metrics"]
    }
    assert metrics["memorization_1k"]["detail"]["verdict"] == answer
    assert (tmp_path / "run" / "copies_pixels_1k_nearest.png").is_file()
    assert 0 <= metrics["membership_discriminator"]["value"] <= 1
