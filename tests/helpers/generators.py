"""Tiny generators of every architecture, and runs that hold one."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from gan_lab.config import build
from gan_lab.data.images import image_spec
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.models import stylegan3
from gan_lab.sampling.gan import Gan
from gan_lab.training.checkpoint import AtomicCheckpointIO, write_config
from tests.helpers.samples import images_of

TINY: dict[str, dict[str, Any]] = {
    "gan": {"image_size": [8, 8], "width": 8},
    "dcgan": {"image_size": [8, 8], "width": 4},
    "lsgan": {"image_size": [16, 16], "width": 4, "z_dim": 8, "label_dim": 4},
    "wgan_gp": {"image_size": [8, 8], "width": 4},
    "bigan": {"image_size": [8, 8], "width": 4, "z_dim": 8, "encoder_width": 4},
    "progan": {"image_size": [8, 8], "z_dim": 8, "channel_base": 64, "channel_max": 8},
    "stylegan": {
        "image_size": [16, 16],
        "z_dim": 8,
        "w_dim": 8,
        "mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
        "truncation_cutoff": 4,
    },
    "stylegan2": {
        "image_size": [8, 8],
        "z_dim": 8,
        "w_dim": 8,
        "mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
    },
    "stylegan3": {
        "image_size": 16,
        "z_dim": 8,
        "w_dim": 8,
        "channel_base": 64,
        "channel_max": 8,
        "num_layers": 4,
        "margin": 2,
    },
    "sngan": {"image_size": [8, 8], "width": 4},
    "sagan": {"image_size": [8, 8], "width": 4, "attention": [8]},
    "biggan": {
        "image_size": [8, 8],
        "z_dim": 8,
        "shared_dim": 4,
        "width": 4,
        "attention": [8],
    },
    "biggan_deep": {
        "image_size": [8, 8],
        "z_dim": 8,
        "shared_dim": 4,
        "width": 8,
        "attention": [8],
        "depth": 1,
    },
    "r3gan": {
        "image_size": [8, 8],
        "z_dim": 8,
        "label_dim": 4,
        "widths": [8, 8],
        "cardinalities": [2, 2],
        "blocks": 1,
    },
    "gat": {
        "image_size": [8, 8],
        "depth": 4,
        "width": 16,
        "heads": 2,
        "patch": 4,
        "z_dim": 8,
    },
    "fastgan": {"image_size": [64, 64], "z_dim": 8, "width": 2},
}


def node_of(model: str, *, classes: int = 3, channels: int = 1) -> dict[str, Any]:
    """The generator as a node of a configuration."""
    return {
        "_target_": f"gan_lab.models.{model}.Generator",
        **TINY[model],
        "channels": channels,
        "num_classes": classes,
    }


def generator_of(model: str, *, classes: int = 3, channels: int = 1) -> GeneratorNetwork:
    """A generator with random weights everywhere, unlike initialization."""
    torch.manual_seed(0)
    generator: GeneratorNetwork = build(node_of(model, classes=classes, channels=channels))
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if "parametrizations" not in name:
                value.add_(torch.randn_like(value) * 0.3)
        for name, value in generator.named_buffers():
            if name.endswith(("w_avg", "running_mean")):
                value.normal_()
    return generator.eval()


def gan_of(model: str, *, classes: int = 3, channels: int = 1) -> Gan:
    """Such a generator to draw from."""
    generator = generator_of(model, classes=classes, channels=channels)
    return Gan(
        generator.requires_grad_(False), spec=images_of(16, channels=channels, classes=classes)
    )


def run_of(model: str, folder: Path, *, classes: int = 3, channels: int = 1) -> Path:
    """A run folder as training leaves it, without the training."""
    generator = generator_of(model, classes=classes, channels=channels)
    raw = generator_of(model, classes=classes, channels=channels)
    with torch.no_grad():
        for value in raw.parameters():
            value.mul_(1.1)
    size = TINY[model]["image_size"]
    spec = image_spec(
        channels=channels,
        image_size=tuple(size) if isinstance(size, list) else (size, size),
        class_names=[f"kind {i}" for i in range(classes)],
        class_counts=[5 + i for i in range(classes)],
    )
    config = {
        "model": {
            "_target_": "gan_lab.models.none",
            "generator": node_of(model, classes=classes, channels=channels),
        },
        "sample": spec.as_dict(),
        "data": {
            "_target_": "gan_lab.data.image_folder.ImageFolder",
            "root": "/data/somebody/photos",
        },
        "run_dir": str(folder),
        "runs_dir": str(folder.parent),
        "total_kimg": 2,
        "batch_size": 4,
        "seed": 0,
    }
    state = {f"generator_ema.{name}": value for name, value in generator.state_dict().items()}
    state |= {f"generator.{name}": value for name, value in raw.state_dict().items()}
    clock = {"images_seen": 1500, "players": {}, "stats": {}}
    chosen = {"best_key": "metrics/fid50k", "best_value": 12.5, "best_kimg": 1.5}
    (folder / "checkpoints").mkdir(parents=True)
    AtomicCheckpointIO().save_checkpoint(
        {"state_dict": state, "clock": clock, "callbacks": {"Checkpointing": chosen}},
        folder / "checkpoints" / "best.ckpt",
    )
    write_config(folder, OmegaConf.create(config))
    return folder


def settled_stylegan3(side: int, **settings: Any) -> stylegan3.Generator:
    """An untrained StyleGAN3 whose running means of magnitudes have settled: at the initial 1 scales are off."""
    torch.manual_seed(0)
    network = stylegan3.Generator(
        image_size=side,
        channels=1,
        z_dim=32,
        w_dim=32,
        channel_base=2048,
        channel_max=32,
        num_layers=8,
        magnitude_decay=0.5,
        **settings,
    )
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(4, 32))
    return network.eval()
