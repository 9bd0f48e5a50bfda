"""R3GAN, BigGAN, SNGAN and SAGAN through gan-lab train: interrupted runs, micro-batches."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.testing import assert_close

from gan_lab.layers.spectral_norm import SpectralNorm
from tests.helpers.resnets import SMALL, small, trained
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
FAST = ("r3gan", "biggan")


@pytest.mark.parametrize(
    "model", [*FAST, *(pytest.param(m, marks=pytest.mark.slow) for m in SMALL if m not in FAST)]
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    compose: Compose, tmp_path: Path, model: str
) -> None:
    """The power method's vectors are state like any other."""

    trained(compose, tmp_path, model, name="halted", total_kimg=0.024)
    halted = trained(compose, tmp_path, model, name="halted", total_kimg=0.048)
    straight = trained(compose, tmp_path, model, name="straight", total_kimg=0.048)
    assert all(torch.equal(halted[name], straight[name]) for name in straight)
    vectors = [name for name in straight if name.endswith("weight.0.u")]
    assert bool(vectors) == (model != "r3gan")


def weights(
    compose: Compose, model: str, parts: int, *overrides: str, held: tuple[type[nn.Module], ...]
) -> list[Tensor]:
    """Train on batches of 64 in so many parts, layers of some kinds in evaluation mode; return all parameters."""
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
    options = (f"micro_batch_size={64 // parts}", "d_steps=1", *plain, *overrides)
    module = small(compose, model, *options, classes=10, batch_size=64, steps=3)
    for layer in module.modules():
        if isinstance(layer, held):
            layer.eval()
    before = module.generator.to_image.weight.detach().clone()
    fit(module)
    assert not torch.equal(before, module.generator.to_image.weight)
    return [p.detach() for p in module.parameters()]


def test_micro_batches_equal_the_whole_batch(compose: Compose) -> None:
    """Without normalization over the batch, eight parts of a batch of 64 are the batch."""
    whole, eight = (
        weights(compose, "r3gan", parts, "~model.schedules", held=()) for parts in (1, 8)
    )
    for ours, theirs in zip(eight, whole, strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_with_batch_norm_micro_batches_differ_only_in_statistics(compose: Compose) -> None:
    """Batch norm sees a part of eight and not the batch of 64; with running statistics the parts are the batch.

    The power method, which takes a step for each part, is held in both cases.
    """
    adam_eps = ("~model.generator_optimizer.eps", "~model.discriminator_optimizer.eps")

    def largest_error(*held: type[nn.Module]) -> float:
        whole, eight = (weights(compose, "biggan", n, *adam_eps, held=held) for n in (1, 8))
        return max(
            float((a - b).abs().max() / b.abs().max().clamp(min=0.1))
            for a, b in zip(eight, whole, strict=True)
        )

    assert largest_error(SpectralNorm, nn.BatchNorm2d) < 1e-5
    assert largest_error(SpectralNorm) > 1e-3


def test_in_training_an_image_depends_on_its_micro_batch(compose: Compose) -> None:
    """By hand, for the first norm: features of a part minus its own mean, over its own deviation."""
    module = small(compose, "biggan", classes=10)
    generator = module.generator
    norm = generator.blocks[0].norm1.norm
    seen: list[tuple[Tensor, Tensor]] = []
    norm.register_forward_hook(lambda layer, given, output: seen.append((given[0], output)))
    z, labels = torch.randn(64, generator.z_dim), torch.arange(64) % 10
    with torch.no_grad():
        whole = generator(z, labels)
        parts = [generator(z[i : i + 8], labels[i : i + 8]) for i in range(0, 64, 8)]
    assert not torch.allclose(torch.cat(parts), whole, atol=0.01)
    assert [len(x) for x, _ in seen] == [64] + [8] * 8
    for x, output in seen:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        by_hand = (x - mean[:, None, None]) / (variance + norm.eps)[:, None, None].sqrt()
        assert_close(output, by_hand, rtol=1e-4, atol=1e-5)
