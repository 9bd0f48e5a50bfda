"""Schedules are functions of kimg, and settings follow them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_lab.errors import InputError
from gan_lab.training.ema import ExponentialMovingAverage
from gan_lab.training.regularizers.r1 import R1
from gan_lab.training.schedules import Cosine, Linear, Settings, Steps


@given(st.floats(0, 1))
def test_linear_and_cosine_between_their_ends(share: float) -> None:
    kimg = 10 + share * 40
    linear = Linear(start=2, end=-1, start_kimg=10, end_kimg=50)
    cosine = Cosine(start=2, end=-1, start_kimg=10, end_kimg=50)
    assert linear(kimg) == pytest.approx(2 - 3 * share)
    angle = torch.tensor(share, dtype=torch.float64) * torch.pi
    assert cosine(kimg) == pytest.approx(float(0.5 + 1.5 * torch.cos(angle)))


@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_constant_outside(kind: type[Linear]) -> None:
    schedule = kind(start=2, end=-1, start_kimg=10, end_kimg=50)
    assert [schedule(kimg) for kimg in (0, 10, 50, 1e9)] == [2, 2, -1, -1]


def test_steps() -> None:
    schedule = Steps(values=[1, 0.1, 0.01], at_kimg=[5, 8])
    assert [schedule(kimg) for kimg in (0, 4.999, 5, 7, 8, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(start=1, end=0, start_kimg=5, end_kimg=5),
        lambda: Steps(values=[1], at_kimg=[5]),
        lambda: Steps(values=[1, 2, 3], at_kimg=[8, 5]),
    ],
)
def test_impossible_schedules(make: object) -> None:
    with pytest.raises(InputError):
        make()  # type: ignore[operator]


def settings_with(
    schedules: dict[str, dict[str, object]],
) -> tuple[Settings, R1, ExponentialMovingAverage]:
    r1, ema = R1(weight=1), ExponentialMovingAverage(half_life_kimg=10)
    return Settings(schedules, {"ema": ema, "r1": r1}), r1, ema  # type: ignore[arg-type]


def test_everything_that_can_be_scheduled() -> None:
    line = Linear(start=1, end=0.5, end_kimg=100)
    settings, r1, ema = settings_with(
        {
            "generator": {"lr": line, "beta1": line, "beta2": line, "weight_decay": line},
            "ema": {"half_life_kimg": line},
            "r1": {"weight": line},
        }
    )
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=3, betas=(0.25, 0.5))
    settings.attach("generator", optimizer, correction=0.5)
    group = optimizer.param_groups[0]
    assert group["lr"] == 1.5 and group["betas"] == (0.25**0.5, 0.5**0.5)
    settings.apply(50)
    assert group["lr"] == pytest.approx(0.75 * 0.5)
    assert group["betas"] == pytest.approx((0.75**0.5, 0.75**0.5))
    assert (group["weight_decay"], ema.half_life_kimg, r1.weight) == (0.75, 0.75, 0.75)


def test_configured_settings_win_over_loaded_ones() -> None:
    settings, *_ = settings_with({})
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=3)
    settings.attach("generator", optimizer, correction=1)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 99
    optimizer.load_state_dict(saved)
    settings.reset()
    assert optimizer.param_groups[0]["lr"] == 3


@pytest.mark.parametrize(
    ("schedules", "hint"),
    [
        ({"generatr": {"lr": 1}}, "did you mean generator?"),
        ({"generator": {"rl": 1}}, "did you mean lr?"),
        ({"r1": {"wieght": 1}}, "did you mean weight?"),
        ({"r2": {"weight": 1}}, "there are generator, discriminator, ema, r1"),
        ({"ema": {"half_life": 1}}, "did you mean half_life_kimg?"),
    ],
)
def test_unknown_settings(schedules: dict[str, dict[str, object]], hint: str) -> None:
    with pytest.raises(InputError) as caught:
        settings_with(schedules)
    assert hint in str(caught.value)


def test_betas_of_an_optimizer_without_them() -> None:
    settings, *_ = settings_with({"generator": {"beta2": Linear(start=1, end=0, end_kimg=1)}})
    with pytest.raises(InputError, match="SGD has no betas"):
        settings.attach("generator", torch.optim.SGD(nn.Linear(1, 1).parameters()), correction=1)
