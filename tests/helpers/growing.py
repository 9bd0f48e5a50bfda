"""Small ProGAN and StyleGAN that grow within a few steps."""

from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig

from gan_lab.config import build
from gan_lab.models.progan import ProGAN
from gan_lab.training.building import describe_samples
from tests.helpers.samples import images_of

TINY = {
    "progan": (
        "model.generator.z_dim=8",
        "model.generator.channel_base=64",
        "model.generator.channel_max=8",
        "model.generator.fade_kimg=0.016",
        "model.generator.stable_kimg=0.008",
        "model.discriminator.channel_base=64",
        "model.discriminator.channel_max=8",
    ),
    "stylegan": (
        "model.generator.z_dim=8",
        "model.generator.w_dim=8",
        "model.generator.mapping_layers=2",
        "model.generator.channel_base=64",
        "model.generator.channel_max=8",
        "model.generator.fade_kimg=0.016",
        "model.generator.stable_kimg=0.008",
        "model.discriminator.channel_base=64",
        "model.discriminator.channel_max=8",
    ),
}


def tiny(
    compose: Callable[..., DictConfig],
    model: str,
    *overrides: str,
    classes: int = 0,
    size: int | list[int] = 16,
    channels: int = 1,
    steps: int = 2,
) -> ProGAN:
    """Build a small model whose batches have 4 images: phases of 2 steps, fades of 4."""
    config = compose(f"model={model}", "batch_size=4", *TINY[model], *overrides)
    describe_samples(config, images_of(size, channels=channels, classes=classes))
    torch.manual_seed(0)
    module = build(config.model, total_images=4 * steps)
    assert isinstance(module, ProGAN)
    return module


def set_stage(module: ProGAN, value: float) -> Any:
    """Put all networks at a stage."""
    for network in (module.generator, module.generator_ema, module.discriminator):
        network.stage.value = value
