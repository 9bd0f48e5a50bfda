"""Losses of the first 20 steps of small models, as they were on 28 November 2026, in float64 on the CPU.

`golden_losses.json` was made before the package was rebuilt, and its numbers are never made again: a change that is
meant to change arithmetic takes out the case that it concerns, says so in its commit, and has it made again. This
adds the cases that the file lacks and leaves the others alone:

    GAN_LAB_MAKE_GOLDEN=1 python -m pytest tests/training/test_golden_losses.py

The two functions `make_module` and `read` are all that knows the package.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig

from gan_lab.training.building import build_data, build_model, sample_spec

FILE = Path(__file__).with_name("golden_losses.json")
STEPS = 20
TOLERANCE = 1e-8
CASES = {
    # the non-saturating loss, R1 and path length in steps of their own, ADA that adapts, style mixing, micro-batches
    "stylegan2": (
        "model=stylegan2",
        "data.num_classes=3",
        "batch_size=8",
        "micro_batch_size=4",
        "regularizer.r1.interval=4",
        "regularizer.path_length.interval=4",
        "augment=ada",
        "augment.ada.pipe=bgcfnc",
        "augment.ada.p=0.3",
        "augment.ada.speed_kimg=0.5",
        "augment.ada.interval=2",
        "model.generator.z_dim=8",
        "model.generator.w_dim=8",
        "model.generator.mapping_layers=2",
        "model.generator.channel_base=64",
        "model.generator.channel_max=8",
        "model.discriminator.channel_base=64",
        "model.discriminator.channel_max=8",
        "model.discriminator.label_layers=2",
    ),
    # hinge, two D steps, spectral norm, batch norm, attention, projection, penalties of G's weights and D's logits
    "biggan": (
        "model=biggan",
        "data.num_classes=3",
        "batch_size=4",
        "regularizer=[orthogonal,lecam,consistency]",
        "regularizer.lecam.start=5",
        "regularizer.consistency.weight=0.1",
        "augment=diffaugment",
        "model.generator.width=4",
        "model.generator.shared_dim=4",
        "model.generator.attention=[8]",
        "model.generator_optimizer.lr=2e-3",
    ),
    # a loss of pairs, R1 and R2 of the same pass, schedules of everything, an auxiliary classifier, clipped gradients
    "r3gan": (
        "model=r3gan",
        "data.num_classes=3",
        "batch_size=4",
        "conditioning=ac",
        "model.schedules.r1.weight.start=50",
        "model.schedules.ema.half_life_kimg.end=0.1",
        "model.generator_clip_norm=0.5",
        "model.discriminator_clip_norm=2",
        "model.generator.widths=8",
        "model.generator.cardinalities=2",
        "model.generator.blocks=1",
        "model.discriminator.label_dim=8",
    ),
    # Wasserstein with a gradient penalty and drift, growing from 4x4 to 16x16 within the 20 steps, no classes
    "progan": (
        "model=progan",
        "batch_size=4",
        "model.generator.z_dim=8",
        "model.generator.channel_base=64",
        "model.generator.channel_max=8",
        "model.generator.fade_kimg=0.016",
        "model.generator.stable_kimg=0.008",
        "model.discriminator.channel_base=64",
        "model.discriminator.channel_max=8",
    ),
    # an encoder, whose step needs D's view of real images; blur that fades, the best of the fakes only
    "bigan": (
        "model=bigan",
        "data.num_classes=3",
        "batch_size=4",
        "regularizer=[r1,latent_consistency,latent_diversity,top_k]",
        "regularizer.latent_diversity.noise=1",
        "augment=blur",
        "model.schedules.blur.sigma.start=1",
        "model.schedules.blur.sigma.end_kimg=0.06",
        "model.generator.width=4",
        "model.generator.encoder_width=4",
        "model.generator.z_dim=6",
        "model.discriminator.width=4",
        "model.discriminator.code_width=8",
    ),
    # least squares, DRAGAN's penalty, weights that are clipped, spectral norm of a D that has none of its own
    "dcgan": (
        "model=dcgan",
        "data.num_classes=3",
        "batch_size=4",
        "loss=least_squares",
        "regularizer=[dragan,weight_clipping]",
        "regularizer.weight_clipping.limit=0.05",
        "model.ema.buffers=average",
        "model.discriminator_spectral_norm=true",
        "model.generator.width=4",
        "model.discriminator.width=4",
    ),
    # filtered nonlinearities and Fourier features, R1 every 16 steps
    "stylegan3": (
        "model=stylegan3",
        "data.num_classes=3",
        "batch_size=4",
        "model.generator.z_dim=8",
        "model.generator.w_dim=8",
        "model.generator.channel_base=64",
        "model.generator.channel_max=8",
        "model.generator.num_layers=4",
        "model.generator.margin=2",
        "model.discriminator.channel_base=64",
        "model.discriminator.channel_max=8",
        "model.discriminator.label_layers=2",
    ),
}

Compose = Callable[..., DictConfig]


def make_module(compose: Compose, case: str) -> tuple[LightningModule, LightningDataModule]:
    """Build a model and its data as `gan-lab train` does."""
    overrides = CASES[case]
    config = compose("data=random", "data.image_size=16", *overrides)
    config.total_kimg = STEPS * config.batch_size * config.d_steps / 1000
    data = build_data(config)
    torch.manual_seed(0)
    return build_model(config, sample_spec(config, data)), data


def read(module: Any) -> dict[str, float]:
    """Take the losses, penalties, logits and gradient norms of the last step, by name."""
    return module.stats.take()


class Recorder(Callback):
    """Collects the metrics of each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Trainer, module: Any, *args: Any) -> None:
        module.measure_gradients = True

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        self.steps.append(read(module))


def losses_of(compose: Compose, case: str) -> dict[str, list[float | None]]:
    """Train; return the values of each step by name (None where a lazy penalty had no step) and the EMA's L1 norm."""
    module, data = make_module(compose, case)
    recorder = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=1,
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    names = sorted({name for step in recorder.steps for name in step})
    values = {name: [step.get(name) for step in recorder.steps] for name in names}
    averaged = [p.abs().sum() for p in module.generator_ema.parameters()]
    return {**values, "averaged weights": [float(sum(averaged))]}


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compute everything in float64: initial weights, and what the code raises from half precision by `float()`."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("case", CASES)
def test_losses_are_what_they_were(compose: Compose, float64: None, case: str) -> None:
    golden = json.loads(FILE.read_text())
    found = losses_of(compose, case)
    if os.environ.get("GAN_LAB_MAKE_GOLDEN") and case not in golden:
        golden[case] = found
        FILE.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    assert found.keys() == golden[case].keys()
    assert {name: len(values) for name, values in found.items()} == {
        name: len(values) for name, values in golden[case].items()
    }
    wrong = sorted(
        (step, name, f"{ours} was {theirs}")
        for name, values in golden[case].items()
        for step, (ours, theirs) in enumerate(zip(found[name], values, strict=True))
        if not same(ours, theirs)
    )
    assert not wrong


def same(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE)
