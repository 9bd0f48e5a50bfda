"""Small R3GAN, BigGAN, SNGAN and SAGAN, and the published ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from gan_lab.commands.train import run
from gan_lab.config import build
from gan_lab.training.building import describe_samples
from gan_lab.training.module import AdversarialModule
from gan_lab.weights import from_published
from tests.helpers.samples import images_of

PARITY = Path(__file__).parents[1] / "parity"
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


class Published:
    """A fixture of parity: networks with published weights, and what they gave."""

    def __init__(self, name: str) -> None:
        with np.load(PARITY / f"{name}.npz") as file:
            arrays = dict(file)
        self.config = json.loads(str(arrays["config"]))
        self.state = {
            key.removeprefix("state/"): value
            for key, value in arrays.items()
            if key.startswith("state/")
        }
        networks = from_published(self.config, self.state)
        self.generator, self.discriminator = networks["G"], networks["D"]
        self.z = torch.from_numpy(arrays["in/z"])
        self.labels = torch.from_numpy(arrays["in/y" if "in/y" in arrays else "in/c"])
        self.out = {
            key.removeprefix("out/"): torch.from_numpy(value)
            for key, value in arrays.items()
            if key.startswith("out/")
        }

    def errors(self) -> dict[str, float]:
        """Relative errors of the image, the logits and the squared gradient norms."""
        with torch.no_grad():
            images = self.generator(self.z, self.labels)
        inputs = self.out["img"].requires_grad_()
        logits = self.discriminator(inputs, self.labels)
        (gradient,) = torch.autograd.grad(logits.sum(), inputs)
        return {
            "img": relative_error(images, self.out["img"]),
            "logits": relative_error(logits, self.out["logits"].flatten()),
            "r1_sqnorm": relative_error(gradient.square().sum((1, 2, 3)), self.out["r1_sqnorm"]),
        }


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """norm(ours - theirs) / norm(theirs)."""
    return float((ours.detach().double() - theirs).norm() / theirs.double().norm())


def parameters(network: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters())
