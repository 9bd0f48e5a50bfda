"""gan-lab import-weights: published weights as a run folder."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from gan_lab.config import literal
from gan_lab.console import say
from gan_lab.data.images import image_spec
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import LAST, AtomicCheckpointIO, write_config
from gan_lab.version import __version__
from gan_lab.weights.blueprint import Blueprint
from gan_lab.weights.published import Published, open_published

# in place of the training class: gan-lab train cannot resume these
IMPORTED = "published weights"


def run(config: DictConfig) -> None:
    """Read published weights and write `config.yaml` and `checkpoints/last.ckpt`.

    Raises:
        InputError: for a file that cannot be read or holds code, and an existing folder.
    """
    run_dir = Path(config.runs_dir) / config.name
    if run_dir.exists():
        raise InputError(f"{run_dir} exists; choose another name=, or delete it")
    published = open_published(
        Path(str(config.path)),
        arguments={str(name): value for name, value in config.arguments.items()},
    )
    blueprints = published.blueprints()
    networks = build(blueprints)
    report(published, networks)
    settings = describe_run(config, published, blueprints)
    checkpoint = {
        "state_dict": {
            f"{player}.{name}": value
            for player, network in networks.items()
            for name, value in network.state_dict().items()
        },
        "clock": {"images_seen": published.images_seen, "players": {}, "stats": {}},
        "optimizer_states": [],
    }
    write_run(run_dir, settings, checkpoint)
    say(f"wrote {run_dir}: gan-lab generate run={run_dir}, or train ... init_from={run_dir}")


def build(blueprints: Mapping[str, Blueprint]) -> dict[str, nn.Module]:
    """Build every player's network; only one generator, which is also the average."""
    networks: dict[str, nn.Module] = {}
    for player, blueprint in blueprints.items():
        same = next((other for other in networks if blueprints[other] is blueprint), None)
        networks[player] = blueprint.build() if same is None else networks[same]
    return networks


def describe_run(
    config: DictConfig, published: Published, blueprints: Mapping[str, Blueprint]
) -> DictConfig:
    """Return the config of the run folder: networks, samples, data to measure on, and the source."""
    generator = blueprints["generator_ema"]
    size, channels, num_classes = (
        generator.arguments[name] for name in ("image_size", "channels", "num_classes")
    )
    discriminator = blueprints.get("discriminator")
    with open_dict(config):
        config.data.image_size, config.data.channels = size, channels
    # names of files and in pickles are untrusted
    settings = literal(
        {
            "name": config.name,
            "model": {
                "_target_": IMPORTED,
                "generator": generator.node,
                "discriminator": None if discriminator is None else discriminator.node,
            },
            "sample": image_spec(
                channels=channels,
                image_size=(size, size),
                class_names=[str(label) for label in range(num_classes)],
                class_counts=[1] * num_classes,
            ).as_dict(),
            "data": OmegaConf.to_container(config.data, resolve=True),
            "metrics": OmegaConf.to_container(config.metrics, resolve=True),
            # needed by evaluate
            "batch_size": 64,
            "d_steps": 1,
            "seed": 0,
            "num_workers": None,
            "provenance": {
                "source": published.config["source"],
                "files": {path.name: digest for path, digest in published.files.items()},
                "data": published.data_name,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "gan_lab": __version__,
                "torch": str(torch.__version__),
            },
        }
    )
    return OmegaConf.create(settings)


def report(published: Published, networks: Mapping[str, nn.Module]) -> None:
    """Print what was read."""
    say(str(published.config["source"]))
    for path, digest in published.files.items():
        say(f"{path.name}: sha256 {digest}")
    for player, network in networks.items():
        kind = type(network)
        count = sum(p.numel() for p in network.parameters())
        say(f"{player}: {kind.__module__}.{kind.__qualname__}, {count:,} parameters")
    if published.images_seen:
        say(f"trained for {published.images_seen / 1000:g} kimg")
    if published.data_name:
        say(f"on data called {published.data_name}")


def write_run(
    run_dir: Path, settings: DictConfig, checkpoint: Mapping[str, Mapping[str, Tensor] | Any]
) -> None:
    """Write a run folder; `config.yaml`, which makes it one, comes last."""
    AtomicCheckpointIO().save_checkpoint(dict(checkpoint), run_dir / "checkpoints" / LAST)
    write_config(run_dir, settings)
