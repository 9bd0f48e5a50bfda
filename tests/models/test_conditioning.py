"""Every conditioning on every architecture that supports it, in training."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.errors import MissingConfigException
from omegaconf import DictConfig
from torch import Tensor

from gan_lab.commands.launch import launch
from gan_lab.config import conf_dir
from gan_lab.data.sample import Batch
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorOutput, Role
from gan_lab.training.steps import GeneratorStep
from tests.helpers.resnets import SMALL, small, trained
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
KINDS = sorted(path.stem for path in (conf_dir() / "conditioning").glob("*.yaml"))
CLASSIFY = ["ac", "d2d_ce"]
ROLES = {
    "ac": ("real", "fake", "generator"),
    "d2d_ce": ("real", "generator"),
    "none": (),
    "projection": (),
}


def test_there_are_four() -> None:
    assert KINDS == ["ac", "d2d_ce", "none", "projection"]


# the projection is what all other tests of these models train with
@pytest.mark.parametrize(
    ("model", "kind"), [pair for pair in itertools.product(SMALL, KINDS) if pair[1] != "projection"]
)
def test_two_steps(compose: Compose, model: str, kind: str) -> None:
    module = small(compose, model, f"conditioning={kind}", "d_steps=1", classes=10, batch_size=6)
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trainable.items()}
    fit(module)
    assert all(p.isfinite().all() for p in trainable.values())
    moved = {name for name, p in trainable.items() if not torch.equal(p, before[name])}
    assert len(moved) > len(trainable) / 2
    heads = ("conditioning.", "logit.", "features.", "embedding.")
    heads = tuple(f"discriminator.{head}" for head in heads)
    # the hinge loss pulls as many logits up as down: the bias of the logit may stay
    learns = {name for name in trainable if name.startswith(heads) and "bias" not in name}
    assert learns <= moved
    logged = module.stats.take()
    classes = {name for name in logged if "class" in name}
    expected = {
        "ac": {"loss/d_class_real", "loss/d_class_fake", "loss/g_class"},
        "d2d_ce": {"loss/d_class_real", "loss/g_class"},
    }
    assert classes == expected.get(kind, set())
    assert all(logged[name] > 0 for name in classes)


@pytest.mark.parametrize("model", list(SMALL))
@pytest.mark.parametrize("kind", KINDS)
def test_whether_the_logit_depends_on_the_class(compose: Compose, model: str, kind: str) -> None:
    network = small(compose, model, f"conditioning={kind}", classes=3).discriminator.eval()
    # R3GAN's labels have small embeddings
    images, labels = 10 * torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    logits, other = network(images, labels), network(images, (labels + 1) % 3)
    assert torch.equal(logits, other) == (kind != "projection")
    for role in ("real", "fake", "generator", None):
        output = network.discriminate(images, labels, role)
        assert torch.equal(output.logits, logits)
        assert set(output.losses) == ({"class"} if role in ROLES[kind] else set())
        if output.losses:
            changed = network.discriminate(images, (labels + 1) % 3, role)
            assert not torch.equal(output.losses["class"], changed.losses["class"])


@pytest.mark.parametrize("kind", CLASSIFY)
@pytest.mark.parametrize("model", ["r3gan", "sngan"])
def test_the_class_loss_trains_the_generator(compose: Compose, model: str, kind: str) -> None:
    """With logits that say nothing, all that G can learn comes from the class."""
    module = small(compose, model, f"conditioning={kind}", "loss=wasserstein")
    discriminate = module.discriminator.discriminate

    def mute(x: Tensor, labels: Tensor | None, role: Role | None) -> DiscriminatorOutput:
        output = discriminate(x, labels, role)
        return DiscriminatorOutput(output.logits * 0, output.losses)

    module.discriminator.discriminate = mute  # type: ignore[method-assign]
    z, labels = torch.randn(6, module.generator.z_dim), torch.arange(6) % 3
    step = GeneratorStep(
        module.generator, Batch(z, labels), z, lambda z: module.generator(z, labels)
    )
    module._generator_losses(step).mean().backward()
    gradients = [p.grad for p in module.generator.parameters() if p.grad is not None]
    assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_the_projection_is_the_default_and_adds_nothing_to_the_state(compose: Compose) -> None:
    for model in ("sngan", "r3gan"):
        default = small(compose, model).discriminator.state_dict()
        chosen = small(compose, model, "conditioning=projection").discriminator.state_dict()
        assert default.keys() == chosen.keys()
        assert all(torch.equal(default[name], chosen[name]) for name in default)
        assert not any("conditioning" in name for name in default)


def test_its_values_are_set_by_name(compose: Compose) -> None:
    overrides = ("conditioning=d2d_ce", "conditioning.temperature=0.25", "conditioning.width=6")
    head = small(compose, "biggan", *overrides).discriminator.conditioning
    assert (head.temperature, head.proxies.weight.shape) == (0.25, (3, 6))


@pytest.mark.parametrize("kind", CLASSIFY)
@pytest.mark.parametrize("model", list(SMALL))
def test_class_losses_need_classes(compose: Compose, model: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"conditioning={kind} needs labels"):
        small(compose, model, f"conditioning={kind}", classes=0)


def test_an_unknown_conditioning(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MissingConfigException):
        small(compose, "biggan", "conditioning=acgan")
    assert launch("train", ["model=biggan", "conditioning=acgan", f"runs_dir={tmp_path}"]) == 2
    assert "there are ac, d2d_ce, none, projection" in capsys.readouterr().err
    assert launch("train", ["model=dcgan", "conditioning=ac", f"runs_dir={tmp_path}"]) == 2
    assert "conditioning" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "overrides"),
    [
        ("sngan", ("conditioning=ac",)),
        *(
            pytest.param(model, (f"conditioning={kind}",), marks=pytest.mark.slow)
            for model in SMALL
            for kind in ("ac", "d2d_ce", "none")
        ),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    compose: Compose, tmp_path: Path, model: str, overrides: tuple[str, ...]
) -> None:
    trained(compose, tmp_path, model, *overrides, name="halted", total_kimg=0.024)
    halted = trained(compose, tmp_path, model, *overrides, name="halted", total_kimg=0.048)
    straight = trained(compose, tmp_path, model, *overrides, name="straight", total_kimg=0.048)
    assert all(torch.equal(halted[name], straight[name]) for name in straight)
