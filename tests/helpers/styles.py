"""Runs of tiny generators, with and without styles."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from gan_lab.commands.launch import launch
from tests.commands.conftest import copy_run
from tests.helpers.once import make_once

COMMON = (
    *("batch_size=16", "data.image_size=16", "metrics=none", "num_workers=0", "total_kimg=0.032"),
    *("callbacks.training_log.every_kimg=1", "callbacks.samples.every_kimg=1"),
    *("callbacks.samples.columns=1", "callbacks.checkpointing.every_kimg=1"),
)
MODELS = {
    "stylegan2": (
        *(f"model.{player}.channel_base=64" for player in ("generator", "discriminator")),
        *("model.generator.z_dim=8", "model.generator.w_dim=8"),
        "model.generator.mapping_layers=2",
    ),
    "biggan": ("model.generator.width=4", "model.discriminator.width=4"),
}


def tiny_run(factory: pytest.TempPathFactory, model: str) -> Path:
    """Return a copy of a run of a tiny model of the digits, which is trained once for all modules."""

    def train(root: Path) -> None:
        overrides = [*COMMON, f"model={model}", *MODELS[model], f"runs_dir={root}", f"name={model}"]
        assert launch("train", overrides) == 0

    run = factory.mktemp("runs") / model
    copy_run(make_once(factory, f"tiny-{model}", train) / model, run)
    return run


def with_attributes(run: Path, copy: Path) -> Path:
    """A copy of a run whose ten classes are ten attributes, a0 to a9."""
    shutil.copytree(run, copy)
    config = OmegaConf.load(copy / "config.yaml")
    config.sample.update(
        {
            "num_classes": 0,
            "class_names": [],
            "class_counts": [],
            "attributes": [f"a{i}" for i in range(10)],
            "attribute_ranges": [[0, 1]] * 10,
            "label_vectors": [[0.5] * 10, [i / 10 for i in range(10)]],
        }
    )
    OmegaConf.save(config, copy / "config.yaml")
    return copy
