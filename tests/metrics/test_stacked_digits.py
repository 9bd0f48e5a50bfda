"""Modes and their divergence on real triples, and what a generator that drops modes looks like."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from gan_lab.config import build, conf_dir
from gan_lab.data.builtin import Digits, StackedDigits
from gan_lab.data.datamodule import DataModule
from gan_lab.errors import InputError
from gan_lab.metrics.features.classifiers import StackedDigitsFeatures
from gan_lab.metrics.protocol import Protocol
from tests.helpers.sources import FixedImages


def module(dataset: object) -> DataModule:
    return DataModule(
        dataset=dataset,  # type: ignore[arg-type]
        batch_size=8,
        d_steps=1,
        total_images=8,
        seed=0,
        num_workers=0,
    )


def measure_of(num_fake: int) -> Protocol:
    with initialize_config_dir(version_base=None, config_dir=str(conf_dir())):
        node = compose(overrides=["+metrics=stacked_digits"]).metrics
    made: Protocol = build(OmegaConf.merge(node, {"num_fake": num_fake}))
    return made


@pytest.fixture(scope="module")
def metrics() -> Protocol:
    made = measure_of(4000)
    made.prepare(module(StackedDigits))
    return made


def drawn(chosen: Tensor) -> FixedImages:
    """A generator that draws the images at these positions of the real set."""
    return FixedImages(StackedDigits(split="train").__getitems__(chosen.tolist()).real)


def test_the_real_images_have_nearly_all_modes(metrics: Protocol) -> None:
    computed = metrics.compute(drawn(torch.arange(4000)))
    # 4 a mode are expected: about 18 of 1000 are missing by chance, and KL is about 999 / 8000
    assert 950 < computed["modes"] <= 1000
    assert computed["kl_modes"] == pytest.approx(999 / 8000, rel=0.35)


def test_modes_are_named_right() -> None:
    extractor = StackedDigitsFeatures()
    extractor.load(torch.device("cpu"))
    data = StackedDigits(split="train", num_images=1000)
    found = extractor(data.__getitems__(range(1000)).real, ["modes"])["modes"][:, 0]
    assert (found == torch.from_numpy(data.modes)).float().mean() > 0.95


def test_dropped_modes_are_seen(metrics: Protocol) -> None:
    modes = torch.from_numpy(StackedDigits(split="train").modes)
    few = torch.nonzero(modes < 100)[:4000, 0]
    computed = metrics.compute(drawn(few))
    assert computed["modes"] < 250
    assert computed["kl_modes"] > 0.8 * math.log(10)


def test_other_data_and_too_few_images() -> None:
    with pytest.raises(InputError, match="the data are Digits"):
        measure_of(26_000).prepare(module(Digits))
    with pytest.raises(InputError, match="num_fake=999"):
        measure_of(999).prepare(module(StackedDigits))
