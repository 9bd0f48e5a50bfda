"""Small models, trained for a few steps on random images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import Trainer
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from gan_lab.config import build
from gan_lab.data.sample import Batch
from gan_lab.training.building import describe_samples
from gan_lab.training.module import AdversarialModule
from tests.helpers.samples import images_of

SMALL = {
    "gan": ("model.generator.width=8", "model.discriminator.width=4"),
    "dcgan": ("model.generator.width=4", "model.discriminator.width=4"),
    "lsgan": (
        "model.generator.width=4",
        "model.generator.z_dim=8",
        "model.generator.label_dim=4",
        "model.discriminator.width=4",
        "model.discriminator.label_dim=4",
    ),
    "wgan_gp": ("model.generator.width=4", "model.discriminator.width=4"),
}

Make = Callable[..., AdversarialModule]


@pytest.fixture(scope="session")
def make(compose: Callable[..., DictConfig]) -> Make:
    """Build a small model: `make("dcgan", "loss=hinge", classes=10, size=8)`."""

    def made(
        model: str,
        *overrides: str,
        classes: int = 10,
        size: int | list[int] = 8,
        channels: int = 1,
        batch_size: int = 4,
        steps: int = 2,
        **extra: Any,
    ) -> AdversarialModule:
        config = compose(f"model={model}", f"batch_size={batch_size}", *SMALL[model], *overrides)
        describe_samples(config, images_of(size, channels=channels, classes=classes))
        torch.manual_seed(0)
        total = batch_size * config.d_steps * steps
        return build(config.model, total_images=total, **extra)

    return made


def images_for(
    module: AdversarialModule, *, classes: int = 10, attributes: int = 0
) -> DataLoader[Any]:
    """Random images and labels, as many as the module needs."""
    generator = torch.Generator().manual_seed(1)
    shape = module.generator(*inputs_for(module, 2)).shape[1:]
    items = [
        (
            torch.rand(shape, generator=generator) * 2 - 1,
            torch.randn(attributes, generator=generator)
            if attributes
            else torch.randint(max(classes, 1), (), generator=generator),
        )
        for _ in range(module.total_images)
    ]
    size = module.batch_size * module.d_steps
    return DataLoader(items, batch_size=size, collate_fn=as_batch)  # type: ignore[arg-type]


def as_batch(items: list[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
    """Stack items of images and labels."""
    images, labels = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack(labels))


def inputs_for(module: AdversarialModule, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Latents and labels for a generator."""
    labels = torch.arange(count) % module.generator.num_classes if module.conditional else None
    return torch.randn(count, module.generator.z_dim), labels


def fit(module: AdversarialModule, *, attributes: int = 0, **settings: Any) -> AdversarialModule:
    """Train a module to its end."""
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    classes = module.generator.num_classes or 10
    trainer.fit(module, images_for(module, classes=classes, attributes=attributes))
    return module
