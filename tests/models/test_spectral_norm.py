"""Spectral norm by configuration, on the discriminator of every architecture."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.equalized import EqualizedConv2d, EqualizedLinear
from gan_lab.layers.networks import DiscriminatorNetwork
from gan_lab.layers.spectral_norm import normalize_discriminator
from gan_lab.models import dcgan, gan, lsgan, r3gan, sngan, stylegan2, wgan_gp
from tests.helpers.resnets import SMALL, small, trained
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
ON = "model.discriminator_spectral_norm=true"
IMAGES = {"image_size": 8, "channels": 1, "num_classes": 3}
NETWORKS: dict[str, Callable[[], DiscriminatorNetwork]] = {
    "gan": lambda: gan.Discriminator(**IMAGES, width=4),
    "dcgan": lambda: dcgan.Discriminator(**IMAGES, width=4),
    "lsgan": lambda: lsgan.Discriminator(**IMAGES, width=4, label_dim=4),
    "wgan_gp": lambda: wgan_gp.Discriminator(**IMAGES, width=4),
    "stylegan2": lambda: stylegan2.Discriminator(**IMAGES, channel_base=64, channel_max=8),
    "r3gan": lambda: r3gan.Discriminator(
        **IMAGES, widths=8, cardinalities=2, blocks=1, label_dim=8
    ),
}


def effective_weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights as they multiply features, [out, ...]."""
    found = {}
    for name, layer in network.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1:
            equalized = isinstance(layer, EqualizedConv2d | EqualizedLinear)
            found[name] = weight.detach() * (layer.weight_gain if equalized else 1)
    return found


@pytest.mark.parametrize("model", list(NETWORKS))
def test_every_weight_at_use_has_norm_one(model: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[model]()
    normalize_discriminator(network)
    for _ in range(300):  # one step of the power method a use
        effective_weights(network)
    weights = effective_weights(network)
    assert len(weights) >= 3
    for name, weight in weights.items():
        norm = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
        assert_close(norm, torch.ones(()), rtol=1e-4, atol=0, msg=name)


@pytest.mark.parametrize("model", list(NETWORKS))
def test_it_trains_copies_and_loads(model: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[model]()
    normalize_discriminator(network)
    images, labels = torch.randn(4, 1, 8, 8, requires_grad=True), torch.tensor([0, 1, 2, 0])
    logits = network(images, labels)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    (logits.sum() + slope.square().sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    copy = deepcopy(network)
    torch.manual_seed(1)
    other = NETWORKS[model]()
    normalize_discriminator(other)
    other.load_state_dict(network.state_dict())
    for same in (copy, other.eval()):
        assert torch.equal(same(images, labels), network(images, labels))


def test_the_slope_is_bounded() -> None:
    """A chain of layers of norm 1 with ReLUs between stretches no difference."""
    torch.manual_seed(0)
    network = gan.Discriminator(image_size=8, channels=1, width=16)
    normalize_discriminator(network)
    for _ in range(100):
        effective_weights(network)
    images = torch.randn(64, 1, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(network.eval()(images).sum(), images)
    assert slope.flatten(1).norm(dim=1).max() <= 1 + 1e-4


@pytest.mark.parametrize("model", list(SMALL))
def test_it_changes_nothing_if_the_architecture_has_it(compose: Compose, model: str) -> None:
    without, with_it = (small(compose, model, *overrides).state_dict() for overrides in ((), (ON,)))
    same = without.keys() == with_it.keys()
    assert same == (model != "r3gan")
    if same:
        assert all(torch.equal(without[name], with_it[name]) for name in without)


def test_the_average_is_of_the_generator_alone_and_untouched(compose: Compose) -> None:
    module = fit(small(compose, "r3gan", ON, classes=10))
    players = {
        name: sum(is_parametrized(layer) for layer in getattr(module, name).modules())
        for name in ("generator", "generator_ema", "discriminator")
    }
    assert players["generator"] == players["generator_ema"] == 0 < players["discriminator"]
    assert all(p.isfinite().all() for p in module.parameters())


def test_zero_weights_are_redrawn(compose: Compose) -> None:
    network = small(compose, "r3gan", ON).discriminator
    last = network.stages[0][0].conv3
    assert_close(
        torch.linalg.matrix_norm(last.weight.detach().flatten(1), 2).item(), 1.0, rtol=0.1, atol=0
    )


def test_a_weight_of_an_unknown_kind_is_rejected() -> None:
    class Odd(sngan.Discriminator):
        def __init__(self) -> None:
            super().__init__(image_size=8, channels=1, width=2)
            self.table = nn.Parameter(torch.randn(3, 3))

    with pytest.raises(InputError, match=r"table \(1 such\) is no weight of"):
        normalize_discriminator(Odd())


def test_a_resumed_run_equals_an_uninterrupted_one(compose: Compose, tmp_path: Path) -> None:
    overrides = ("r3gan", ON, "conditioning=d2d_ce")
    trained(compose, tmp_path, *overrides, name="halted", total_kimg=0.024)
    halted = trained(compose, tmp_path, *overrides, name="halted", total_kimg=0.048)
    straight = trained(compose, tmp_path, *overrides, name="straight", total_kimg=0.048)
    assert any(name.endswith("weight.0.u") for name in straight)
    assert all(torch.equal(halted[name], straight[name]) for name in straight)
