"""The moving average: its half-life is one, counted in images."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_lab.errors import InputError
from gan_lab.training.ema import ExponentialMovingAverage


@given(batch=st.integers(1, 5000), half_life=st.floats(0.5, 100))
def test_after_one_half_life_half_is_left(batch: int, half_life: float) -> None:
    ema = ExponentialMovingAverage(half_life_kimg=half_life, rampup=None)
    steps = half_life * 1000 / batch
    assert ema.decay(images_seen=10**9, images=batch) ** steps == pytest.approx(0.5)


def test_ramp_up_limits_the_half_life_to_a_share_of_what_was_seen() -> None:
    ema = ExponentialMovingAverage(half_life_kimg=10, rampup=0.05)
    assert ema.decay(images_seen=1000, images=50) == pytest.approx(0.5)
    assert ema.decay(images_seen=10**9, images=10_000) == pytest.approx(0.5)


def test_no_half_life_follows_the_weights() -> None:
    assert ExponentialMovingAverage(half_life_kimg=0).decay(images_seen=5, images=1) == 0


def test_parameters_are_averaged_and_buffers_copied() -> None:
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        network.weight.fill_(3)
        network.running_mean.fill_(5)
        network.num_batches_tracked.fill_(7)
    ema = ExponentialMovingAverage(half_life_kimg=1, rampup=None)
    ema.update(average, network, images_seen=1000, images=1000)
    torch.testing.assert_close(average.weight.detach(), torch.full((2,), 2.0))
    torch.testing.assert_close(average.running_mean, torch.full((2,), 5.0))
    assert int(average.num_batches_tracked) == 7


def test_averaged_buffers_move_as_the_weights_do() -> None:
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        network.running_mean.fill_(8)
        network.num_batches_tracked.fill_(7)
    ema = ExponentialMovingAverage(half_life_kimg=1, rampup=None, buffers="average")
    for expected in (4.0, 6.0, 7.0):
        ema.update(average, network, images_seen=1000, images=1000)
        torch.testing.assert_close(average.running_mean, torch.full((2,), expected))
    torch.testing.assert_close(average.running_var, torch.ones(2))
    assert int(average.num_batches_tracked) == 7, "whole numbers are copied"


def test_averaged_statistics_fit_averaged_weights() -> None:
    """Of y = w x with a w that moves: the mean of E[y] over time is that of the averaged w, not of the last one."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1, momentum=1.0))
    kept = {how: deepcopy(network) for how in ("average", "copy")}
    x = torch.randn(256, 1) + 3
    for step in range(200):
        with torch.no_grad():
            network[0].weight.fill_(1 + 0.5 * (-1) ** step)
            network(x)
        for how, average in kept.items():
            ema = ExponentialMovingAverage(half_life_kimg=1, rampup=None, buffers=how)  # type: ignore[arg-type]
            ema.update(average, network, images_seen=1000, images=50)
    for how, average in kept.items():
        error = (average[0](x).mean() - average[1].running_mean).abs()
        assert (error < 0.05) == (how == "average"), (how, error)


@pytest.mark.parametrize(
    "wrong",
    [
        {"half_life_kimg": -1},
        {"half_life_kimg": 1, "rampup": 0},
        {"half_life_kimg": 1, "buffers": "drop"},
    ],
)
def test_impossible_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ExponentialMovingAverage(**wrong)  # type: ignore[arg-type]
