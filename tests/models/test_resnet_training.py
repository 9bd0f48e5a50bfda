"""R3GAN, BigGAN, SNGAN and SAGAN through gan-lab train: interrupted runs, micro-batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch.testing import assert_close

from tests.models.conftest import fit
from tests.models.resnets import SMALL, small, trained

Compose = Callable[..., DictConfig]
FAST = ("r3gan", "biggan")


@pytest.mark.parametrize(
    "model", [*FAST, *(pytest.param(m, marks=pytest.mark.slow) for m in SMALL if m not in FAST)]
)
def test_a_resumed_run_is_the_straight_one(compose: Compose, tmp_path: Path, model: str) -> None:
    """The power method's vectors are state like any other."""

    trained(compose, tmp_path, model, name="halted", total_kimg=0.024)
    halted = trained(compose, tmp_path, model, name="halted", total_kimg=0.048)
    straight = trained(compose, tmp_path, model, name="straight", total_kimg=0.048)
    assert all(torch.equal(halted[name], straight[name]) for name in straight)
    vectors = [name for name in straight if name.endswith("weight.0.u")]
    assert bool(vectors) == (model != "r3gan")


def test_micro_batches_give_the_whole_batchs_weights(compose: Compose) -> None:
    """Without normalisation over the batch, eight parts of a batch of 64 are the batch."""

    def weights(parts: int) -> list[torch.Tensor]:
        # steps in proportion to the gradient: Adam's first ones are its sign
        plain = [
            override
            for player in ("generator_optimizer", "discriminator_optimizer")
            for override in (
                f"model.{player}._target_=torch.optim.SGD",
                f"model.{player}.lr=0.1",
                f"~model.{player}.betas",
                f"~model.{player}.fused",
            )
        ]
        module = small(
            compose,
            "r3gan",
            f"micro_batch_size={64 // parts}",
            "~model.schedules",
            *plain,
            classes=10,
            batch_size=64,
            steps=3,
        )
        before = module.generator.to_image.weight.detach().clone()
        fit(module)
        assert not torch.equal(before, module.generator.to_image.weight)
        return [p.detach() for p in module.parameters()]

    for whole, parts in zip(weights(1), weights(8), strict=True):
        assert_close(parts, whole, rtol=1e-5, atol=1e-6)
