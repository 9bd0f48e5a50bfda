"""Schedules as functions of kimg, and applied to all parts."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.training.augment.ada import ADA
from gan_lab.training.ema import ExponentialMovingAverage
from gan_lab.training.losses import NonSaturating
from gan_lab.training.player import Player
from gan_lab.training.regularizers import R1
from gan_lab.training.schedules import Cosine, Linear, ScheduledParameters, Steps


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


class Network(GeneratorNetwork):
    """With numbers on three levels."""

    z_dim = 1
    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        self.mixing = 0.9
        self.mapping = nn.Sequential(nn.Dropout(0.25), nn.Linear(1, 1))


def parts(optimizer: type[torch.optim.Optimizer] = torch.optim.Adam) -> dict[str, Any]:
    """Return a generator with its moving average, and parts with numbers."""
    r1 = R1(weight=1, interval=4)
    player = Player(
        "generator",
        Network(),
        average=Network(),
        make_optimizer=lambda groups: optimizer(groups, lr=3.0),
        clip_norm=1.0,
        regularizers={},
    )
    ema = ExponentialMovingAverage(half_life_kimg=10)
    ada = ADA(target=None, strengths={"noise": 0.5})
    return {"generator": player, "ema": ema, "loss": NonSaturating(), "r1": r1, "ada": ada}


def test_every_number_can_be_scheduled() -> None:
    line = Linear(start=1, end=0.5, end_kimg=100)
    found = parts()
    network = {"mixing": line, "mapping": {"0": {"p": line}}}
    numbers = ("lr", "beta1", "beta2", "weight_decay", "eps", "clip_norm")
    scheduled = ScheduledParameters(
        {
            "generator": {**dict.fromkeys(numbers, line), "network": network},
            "ema": {"half_life_kimg": line},
            "r1": {"weight": line},
            "ada": {"p": line, "strengths": {"noise": line}},
        },
        found,
    )
    player = found["generator"]
    [group] = player.build_optimizer().param_groups
    scheduled.check_optimizers()
    scheduled.apply(50)
    assert (group["lr"], group["betas"]) == (0.75, (0.75, 0.75))
    assert (group["weight_decay"], group["eps"], player.clip_norm) == (0.75, 0.75, 0.75)
    for one in (player.network, player.average):
        assert one.mixing == one.mapping[0].p == 0.75, "the moving average computes as its network"
    assert found["ema"].half_life_kimg == found["r1"].weight == found["ada"].p == 0.75
    assert found["ada"].strengths["noise"] == 0.75


@pytest.mark.parametrize(
    ("schedules", "hint"),
    [
        ({"generatr": {"lr": 1}}, "schedules.generatr is unknown; did you mean generator?"),
        ({"generator": {"rl": 1}}, "did you mean lr?"),
        ({"r1": {"wieght": 1}}, "schedules.r1.wieght is unknown; did you mean weight?"),
        ({"r1": {"interval": 1}}, "there are weight"),
        ({"r2": {"weight": 1}}, "there are generator, ema, loss, r1, ada"),
        ({"ema": {"half_life": 1}}, "did you mean half_life_kimg?"),
        ({"generator": {"network": {"maping": {"p": 1}}}}, "network.maping is unknown; did you mean mapping?"),
        ({"generator": {"network": {"mapping": {"0": {"q": 1}}}}}, "mapping.0.q is unknown"),
        ({"ada": {"strengths": {"nois": 1}}}, "did you mean noise?"),
        ({"r1": {"weight": 0.5}}, "schedules.r1.weight=0.5 must be a schedule"),
        ({"r1": 1}, "schedules.r1 is unknown"),
    ],
)  # fmt: skip
def test_unknown_paths(schedules: dict[str, Any], hint: str) -> None:
    with pytest.raises(InputError) as caught:
        ScheduledParameters(schedules, parts())
    assert hint in str(caught.value)


def test_values_that_are_no_schedules() -> None:
    assert not ScheduledParameters({"r1": {}}, parts()).schedules
    assert not ScheduledParameters({}, parts()).schedules


def test_numbers_that_an_optimizer_does_not_have() -> None:
    line = Linear(start=1, end=0, end_kimg=1)
    for optimizer, name in ((torch.optim.SGD, "beta2"), (torch.optim.Adam, "momentum")):
        found = parts(optimizer)
        scheduled = ScheduledParameters({"generator": {name: line, "clip_norm": line}}, found)
        found["generator"].build_optimizer()
        with pytest.raises(
            InputError, match=f"generator.{name}: {optimizer.__name__} has no {name}"
        ):
            scheduled.check_optimizers()
