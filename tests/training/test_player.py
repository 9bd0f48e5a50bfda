"""A player: its parameter groups, the correction for lazy penalties, its optimizer's numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.training.player import ParameterGroups, Player, frozen
from gan_lab.training.regularizers import R1, R2, LatentDiversity, Regularizer, WeightClipping


class Network(GeneratorNetwork):
    """A mapping of two layers, a norm and a layer behind them."""

    z_dim = 2
    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.norm = nn.LayerNorm(2)
        self.last = nn.Linear(2, 1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.last(self.norm(self.mapping(z)))


def adam(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.5, betas=(0.25, 0.81), weight_decay=0.125)


def player(
    *regularizers: Regularizer,
    groups: ParameterGroups | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = adam,
) -> Player:
    """Return a generator with these penalties."""
    by_name = {str(i): regularizer for i, regularizer in enumerate(regularizers)}
    return Player(
        "generator", Network(), make_optimizer=optimizer, groups=groups, regularizers=by_name
    )


def settings(made: Player) -> dict[str, tuple[float, float]]:
    """Return lr and weight_decay of each parameter, by name."""
    assert made.optimizer is not None
    found = {}
    for group in made.optimizer.param_groups:
        for parameter in group["params"]:
            found[id(parameter)] = group["lr"], group["weight_decay"]
    return {name: found[id(p)] for name, p in made.network.named_parameters()}


def test_one_group_by_default() -> None:
    [group] = player().build_optimizer().param_groups
    assert len(group["params"]) == 8
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.25, 0.81), 0.125)


def test_norms_and_biases_do_not_decay() -> None:
    made = player(groups=ParameterGroups(no_decay=["norms", "biases"]))
    made.build_optimizer()
    for name, (lr, decay) in settings(made).items():
        assert lr == 0.5
        assert decay == (0 if name.startswith("norm") or name.endswith("bias") else 0.125), name
    made.set_number("weight_decay", 0.5)
    assert {decay for _, decay in settings(made).values()} == {0, 0.5}


def test_weight_decay_applies_to_its_groups_only() -> None:
    made = player(groups=ParameterGroups(no_decay=["norms", "biases"]))
    optimizer = made.build_optimizer()
    before = {name: p.detach().clone() for name, p in made.network.named_parameters()}
    for parameter in made.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in made.network.named_parameters():
        decays = name.endswith("weight") and not name.startswith("norm")
        # AdamW: w <- w - lr * weight_decay * w
        expected = before[name] * (1 - 0.5 * 0.125 if decays else 1)
        torch.testing.assert_close(parameter.detach(), expected)


def test_rate_multipliers_are_those_of_the_innermost_module() -> None:
    groups = ParameterGroups(rate_multipliers={"mapping": 0.01, "mapping.1": 0.1})
    made = player(groups=groups)
    made.build_optimizer()
    for name, (lr, _) in settings(made).items():
        multiplier = {"mapping.0": 0.01, "mapping.1": 0.1}.get(name[:9], 1.0)
        assert lr == pytest.approx(0.5 * multiplier), name
    made.set_number("lr", 2.0)
    assert settings(made)["mapping.0.weight"][0] == pytest.approx(0.02)
    assert settings(made)["last.weight"][0] == 2.0


def test_a_step_of_a_tenth_of_the_rate_goes_a_tenth_of_the_way() -> None:
    groups = ParameterGroups(rate_multipliers={"last": 0.1})

    def sgd(found: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(found, lr=0.5)

    made = player(groups=groups, optimizer=sgd)
    before = {name: p.detach().clone() for name, p in made.network.named_parameters()}
    optimizer = made.build_optimizer()
    for parameter in made.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in made.network.named_parameters():
        expected = 0.05 if name.startswith("last") else 0.5
        torch.testing.assert_close(parameter.detach(), before[name] - expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"no_decay": ["bias"]}, "no_decay=bias is unknown; there are norms, biases"),
        ({"rate_multipliers": {"maping": 1}}, "rate_multipliers.maping: .* mapping, norm, last"),
        ({"rate_multipliers": {"last": -1}}, "rate_multipliers.last=-1 must not be negative"),
    ],
)
def test_invalid_groups(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        player(groups=ParameterGroups(**settings)).build_optimizer()


def test_the_correction_for_lazy_penalties() -> None:
    def correction(*regularizers: Regularizer) -> float:
        by_name = {str(i): regularizer for i, regularizer in enumerate(regularizers)}
        network: Any = Network()
        made = Player("discriminator", network, make_optimizer=adam, regularizers=by_name)
        return made.lazy_correction

    assert correction() == 1
    assert correction(R1(weight=1), WeightClipping(limit=1)) == 1
    assert correction(LatentDiversity(weight=1, interval=4)) == 1, "the other player's"
    assert correction(R1(weight=1, interval=16)) == pytest.approx(16 / 17)
    two = correction(R1(weight=1, interval=16), R2(weight=1, interval=4))
    assert two == pytest.approx(1 / (1 + 1 / 16 + 1 / 4))


def test_the_correction_is_that_of_every_group_now_and_when_scheduled() -> None:
    groups = ParameterGroups(rate_multipliers={"mapping": 0.5})
    made = player(LatentDiversity(weight=1, interval=4), groups=groups)
    c = 4 / 5
    for values in ((0.5, 0.25, 0.81), (2.0, 0.0625, 0.5)):
        if made.optimizer is None:
            made.build_optimizer()
        else:
            for name, value in zip(("lr", "beta1", "beta2"), values, strict=True):
                made.set_number(name, value)
        assert made.optimizer is not None
        lr, beta1, beta2 = values
        for group in made.optimizer.param_groups:
            assert group["lr"] == pytest.approx(lr * group["rate_multiplier"] * c)
            assert group["betas"] == pytest.approx((beta1**c, beta2**c))


def test_configured_numbers_win_over_loaded_ones() -> None:
    made = player(LatentDiversity(weight=1, interval=4))
    optimizer = made.build_optimizer()
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = 99
    optimizer.load_state_dict(saved)
    made.reset_optimizer()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 4 / 5)


def test_lazy_penalties_due() -> None:
    made = player(LatentDiversity(weight=1), LatentDiversity(weight=1, interval=2))
    assert set(made.penalties()) == {"0"} and set(made.penalties("1")) == {"1"}
    due = []
    for made.steps_taken in range(4):
        due.append(made.lazy_penalties_due())
    assert due == [["1"], [], ["1"], []]


def test_frozen_restores_requires_grad_after_errors() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen(network):
        assert not network.weight.requires_grad
        raise KeyError
    assert network.weight.requires_grad and not network.bias.requires_grad


def test_a_run_resumes_with_or_without_a_scaler() -> None:
    first, second = player(), player()
    first.steps_taken, first.scaler = 7, torch.amp.GradScaler("cpu", init_scale=8.0)
    second.load_state_dict(first.state_dict())
    assert second.steps_taken == 7 and second.scaler is None
    second.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == 8
    second.load_state_dict(player().state_dict())
    assert second.steps_taken == 0 and second.scaler.get_scale() == 8
