"""Small R3GAN, BigGAN, SNGAN and SAGAN."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from gan_lab.commands.train import run
from gan_lab.config import build
from gan_lab.training.building import describe_samples
from gan_lab.training.module import AdversarialModule
from tests.helpers.samples import images_of

SMALL = {
    "r3gan": (
        "model.generator.widths=8",
        "model.generator.cardinalities=2",
        "model.generator.blocks=1",
        "model.discriminator.label_dim=8",
    ),
    "biggan": ("model.generator.width=4", "model.generator.shared_dim=4"),
    "biggan_deep": (
        "model.generator.width=4",
        "model.generator.shared_dim=4",
        "model.generator.z_dim=4",
    ),
    "sngan": ("model.generator.width=4", "model.discriminator.width=4"),
    "sagan": ("model.generator.width=4",),
}


def small(
    compose: Callable[..., DictConfig],
    model: str,
    *overrides: str,
    classes: int = 3,
    size: int | list[int] = 8,
    channels: int = 1,
    steps: int = 2,
    batch_size: int = 4,
) -> AdversarialModule:
    """Build a small model from its configuration."""
    config = compose(f"model={model}", f"batch_size={batch_size}", *SMALL[model], *overrides)
    describe_samples(config, images_of(size, channels=channels, classes=classes))
    torch.manual_seed(0)
    total = batch_size * config.d_steps * steps
    return build(config.model, total_images=total)


def trained(
    compose: Callable[..., DictConfig],
    root: Path,
    model: str,
    *overrides: str,
    name: str,
    total_kimg: float,
) -> dict[str, Any]:
    """Train or resume a small model in a run folder; return the state of its checkpoint."""
    config = compose(
        f"model={model}",
        *SMALL[model],
        f"name={name}",
        f"runs_dir={root}",
        f"total_kimg={total_kimg}",
        "batch_size=4",
        "d_steps=2",
        "metrics=none",
        "trainer=cpu",
        "data.image_size=8",
        "callbacks.samples.rows=1",
        "callbacks.samples.columns=2",
        *overrides,
    )
    # schedules end with the run, which is longer the second time
    for schedules in config.model.schedules.values():
        for schedule in schedules.values():
            schedule.end_kimg = 1
    run(config)
    path = root / name / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def parameters(network: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters())
