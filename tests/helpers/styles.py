"""Runs of tiny generators, with and without styles."""

from pathlib import Path

from gan_lab.commands.launch import launch

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


def tiny_run(root: Path, model: str) -> Path:
    """Train a tiny model of the digits for a moment and return its run folder."""
    words = [*COMMON, f"model={model}", *MODELS[model], f"runs_dir={root}", f"name={model}"]
    assert launch("train", words) == 0
    return root / model
