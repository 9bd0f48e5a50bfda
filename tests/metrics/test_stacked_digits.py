"""Modes and their divergence: closed forms, and what a generator that drops modes looks like."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.digits import Digits
from gan_lab.data.stacked_digits import StackedDigits
from gan_lab.errors import InputError
from gan_lab.images import to_float
from gan_lab.metrics.base import Fakes
from gan_lab.metrics.stacked_digits import StackedDigitsMetrics, divergence_from_uniform


def module(dataset: object) -> ImageDataModule:
    return ImageDataModule(
        dataset=dataset,
        batch_size=8,
        d_steps=1,
        total_images=8,
        seed=0,
        num_workers=0,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def metrics() -> StackedDigitsMetrics:
    made = StackedDigitsMetrics(num_images=4000)
    made.prepare(module(StackedDigits))
    return made


def drawn(chosen: Tensor) -> Fakes:
    """A generator that draws the images at these places of the real set."""

    def fakes(count: int) -> Iterator[tuple[Tensor, None]]:
        data = StackedDigits(split="train")
        for part in chosen[torch.arange(count) % len(chosen)].split(1000):
            yield to_float(data.__getitems__(part.tolist())[0]), None

    return fakes


def test_divergence_in_closed_form() -> None:
    assert divergence_from_uniform(torch.full((1000,), 7)) == pytest.approx(0, abs=1e-12)
    one = torch.zeros(1000).long()
    one[3] = 500
    assert divergence_from_uniform(one) == pytest.approx(math.log(1000))
    half = torch.cat([torch.full((500,), 4), torch.zeros(500)])
    assert divergence_from_uniform(half) == pytest.approx(math.log(2))


def test_the_real_images_have_nearly_all_modes(metrics: StackedDigitsMetrics) -> None:
    figures = metrics.compute(drawn(torch.arange(4000)))
    # 4 a mode are expected: about 18 of 1000 are missing by chance, and KL is about 999 / 8000
    assert 950 < figures["modes"] <= 1000
    assert figures["kl_modes"] == pytest.approx(999 / 8000, rel=0.35)


def test_modes_are_named_right(metrics: StackedDigitsMetrics) -> None:
    data = StackedDigits(split="train", num_images=1000)
    found = metrics.modes(data.__getitems__(range(1000))[0])
    assert (found == torch.from_numpy(data.modes)).float().mean() > 0.95


def test_dropped_modes_are_seen(metrics: StackedDigitsMetrics) -> None:
    modes = torch.from_numpy(StackedDigits(split="train").modes)
    few = torch.nonzero(modes < 100)[:, 0]
    figures = metrics.compute(drawn(few))
    assert figures["modes"] < 250
    assert figures["kl_modes"] > 0.8 * math.log(10)


def test_other_data_and_too_few_images() -> None:
    with pytest.raises(InputError, match="the data are Digits"):
        StackedDigitsMetrics().prepare(module(Digits))
    with pytest.raises(InputError, match="num_images=999"):
        StackedDigitsMetrics(num_images=999)
