"""Penalties of logits, consistency and top-k together, on architectures of every kind."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from gan_lab.training.module import AdversarialModule
from tests.helpers.growing import tiny
from tests.helpers.resnets import small
from tests.models.conftest import Make, fit, make

__all__ = ["make"]

NAMES = ("lecam", "consistency", "latent_consistency", "latent_diversity", "top_k")
TOGETHER = (f"regularizer=[{','.join(NAMES)}]", "regularizer.lecam.start=1")


def check(module: AdversarialModule) -> None:
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    module.ema.half_life_kimg = 0.001
    fit(module)
    found = module.stats.take()
    assert {name for name in found if name.startswith("reg/")} == {
        f"reg/{name}" for name in NAMES if name != "top_k"
    }
    assert (
        found["reg/lecam"] > 0
    )  # D's second step measures the distance to what its first one gave
    assert found["reg/latent_consistency"] > 0 > found["reg/latent_diversity"]
    after = dict(module.named_parameters())
    assert all(torch.isfinite(p).all() for p in after.values())
    for player in ("generator.", "discriminator."):
        moved = [not torch.equal(before[n], after[n]) for n in before if n.startswith(player)]
        assert any(moved)


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("model", ["gan", "dcgan", "wgan_gp"])
def test_plain_ones(make: Make, model: str, classes: int) -> None:
    check(
        make(
            model, *TOGETHER, "d_steps=1", "model.schedules.top_k.share.start=0.5", classes=classes
        )
    )


@pytest.mark.parametrize("model", ["biggan", "sngan"])
def test_residual_ones(compose: Callable[..., DictConfig], model: str) -> None:
    check(small(compose, model, *TOGETHER, classes=10))


@pytest.mark.parametrize("model", ["progan", "stylegan"])
def test_growing_ones(compose: Callable[..., DictConfig], model: str) -> None:
    check(tiny(compose, model, *TOGETHER))
