"""StyleGAN2 and StyleGAN3 in training: losses and penalties, resuming, the blur."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from gan_lab.commands.train import run
from gan_lab.config import build
from gan_lab.data.sample import Batch
from gan_lab.errors import InputError
from gan_lab.training.augment.pixels import blur
from gan_lab.training.building import describe_samples
from gan_lab.training.module import AdversarialModule
from tests.helpers.samples import images_of
from tests.helpers.small import STYLEGANS
from tests.models.conftest import fit

GAMES = [
    (),
    ("loss=wasserstein", "regularizer=[gradient_penalty]"),
    ("loss=least_squares", "regularizer=[]"),
    ("loss=hinge", "regularizer=[r1_lazy,path_length]"),
    ("loss=relativistic", "regularizer=[r1,r2]"),
]
R = ("model.generator.kernel=1", "model.generator.radial=true", "augment=blur")

Compose = Callable[..., DictConfig]


def make(
    compose: Compose, model: str, *overrides: str, classes: int = 0, steps: int = 2, **extra: Any
) -> AdversarialModule:
    config = compose(f"model={model}", "batch_size=4", *STYLEGANS[model], *overrides)
    describe_samples(config, images_of([16, 16], channels=1, classes=classes))
    torch.manual_seed(0)
    return build(config.model, total_images=4 * steps, **extra)


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("game", GAMES, ids=" ".join)
@pytest.mark.parametrize("model", list(STYLEGANS))
def test_two_steps_change_both_players(
    compose: Compose, model: str, game: tuple[str, ...], classes: int
) -> None:
    module = make(compose, model, *game, classes=classes)
    players = (module.generator, module.discriminator)
    before = [[p.detach().clone() for p in player.parameters()] for player in players]
    fit(module)
    for player, old in zip(players, before, strict=True):
        new = list(player.parameters())
        assert all(p.isfinite().all() for p in new)
        moved = [not torch.equal(a, b) for a, b in zip(old, new, strict=True)]
        assert sum(moved) / len(moved) > 0.8
    assert module.generator.mapping.w_avg.abs().sum() > 0
    assert torch.equal(module.generator_ema.mapping.w_avg, module.generator.mapping.w_avg)


def test_configuration_r_trains(compose: Compose) -> None:
    module = fit(make(compose, "stylegan3", *R))
    assert all(p.isfinite().all() for p in module.parameters())
    assert all(layer.magnitude_ema != 1 for layer in module.generator.synthesis.layers)


def test_bf16_trains(compose: Compose) -> None:
    half = ("num_fp16_res=2", "fp16_dtype=bfloat16", "clamp=256")
    overrides = [f"model.{p}.{s}" for p in ("generator", "discriminator") for s in half]
    module = fit(make(compose, "stylegan2", *overrides))
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in module.parameters())
    module = fit(make(compose, "stylegan2"), precision="bf16-mixed")
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("model", list(STYLEGANS))
def test_a_resumed_run_equals_an_uninterrupted_one(
    compose: Compose, tmp_path: Path, model: str
) -> None:
    """The running means (of w, of magnitudes, of path lengths) and ADA's p are state like any other."""

    def trained(name: str, total_kimg: float) -> dict[str, Any]:
        config = compose(
            f"model={model}",
            *STYLEGANS[model],
            "regularizer=[r1_lazy,path_length]",
            "augment=ada",
            "augment.ada.speed_kimg=0.1",
            "augment.ada.interval=2",
            "augment.ada.target=-0.9",
            f"name={name}",
            f"runs_dir={tmp_path}",
            f"total_kimg={total_kimg}",
            "batch_size=8",
            "metrics=none",
            "trainer=cpu",
            "callbacks.samples.rows=1",
        )
        run(config)
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)["state_dict"]

    trained("halted", 0.04)
    halted, straight = trained("halted", 0.08), trained("straight", 0.08)
    assert all(torch.equal(halted[name], straight[name]) for name in straight)
    assert {"generator.mapping.w_avg", "regularizers.path_length.mean"} <= set(straight)
    assert straight["regularizers.path_length.mean"] > 0
    assert 0 < straight["augmentations.ada.p"] < 1


def test_the_blur_falls_linearly_to_nothing(compose: Compose) -> None:
    module = make(compose, "stylegan3", "augment=blur", "model.schedules.blur.sigma.start=4")
    images = torch.randn(4, 1, 16, 16)
    for kimg, sigma in [(0, 4.0), (50, 3.0), (150, 1.0), (200, 0.0), (5000, 0.0)]:
        module.scheduled.apply(kimg)
        assert module.augmentations["blur"].sigma == pytest.approx(sigma)
        logits = module.discriminator(blur(images, sigma))
        assert torch.equal(module.discriminate(images, Batch(images), None).logits, logits)


def test_there_is_no_blur_unless_requested(compose: Compose) -> None:
    assert not make(compose, "stylegan3").augmentations
    with pytest.raises(InputError, match="sigma=-1"):
        make(compose, "stylegan3", "augment=blur", "augment.blur.sigma=-1")


def test_the_published_defaults(compose: Compose) -> None:
    """Lazy penalties correct Adam: c = k / (k + 1); Karras et al. 2020, appendix B."""
    module = make(compose, "stylegan2")
    generator, discriminator = (o.param_groups[0] for o in module.configure_optimizers())
    assert generator["lr"] == pytest.approx(2.5e-3 * 4 / 5)
    assert generator["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))
    assert discriminator["lr"] == pytest.approx(2.5e-3 * 16 / 17)
    assert discriminator["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert (module.regularizers["r1"].weight, module.regularizers["r1"].interval) == (10, 16)
