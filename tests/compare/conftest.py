"""Handmade run folders with tiny networks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import build
from gan_lab.training.building import describe_samples
from gan_lab.training.checkpoint import AtomicCheckpointIO, write_config
from tests.helpers.samples import images_of

MakeRun = Callable[..., Path]


def entries(best: float, *, kimg: int, seconds: float | None = 2.0) -> list[dict[str, float]]:
    """A log of a run whose distance falls to `best` and whose accuracy rises; None for a log without the time."""
    found = []
    for at in range(1, kimg + 1):
        row = {"kimg": float(at), "loss/d": 1.0 / at, "loss/g": float(at), "speed/img_per_s": 500.0}
        metrics = {
            "metrics/fd_digits": best + (kimg - at),
            "metrics/accuracy_digits": 1 - 0.1 * (best + kimg - at) / kimg,
            "metrics/fd_digits_real": 0.3,
            "time/evaluation_s": 0.5,
        }
        for one in (row, {"kimg": float(at), **metrics}):
            found.append(one if seconds is None else {**one, "time/total_s": seconds * at})
    return found


@pytest.fixture
def make_run(tmp_path: Path, compose: Callable[..., DictConfig]) -> MakeRun:
    """Write a run folder: `make_run("name", best=1.5, kimg=4)`."""

    def made(
        name: str,
        *overrides: str,
        best: float = 1.0,
        kimg: int = 4,
        total_kimg: float | None = None,
        seconds: float | None = 2.0,
        checkpoint: bool = True,
        root: Path = tmp_path / "runs",
        evaluation: list[dict[str, Any]] | None = None,
    ) -> Path:
        run = root / name
        (run / "checkpoints").mkdir(parents=True)
        sizes = ("model.generator.width=4", "model.discriminator.width=4")
        config = compose("model=gan", *sizes, f"total_kimg={total_kimg or kimg}", *overrides)
        describe_samples(config, images_of(8, classes=2))
        config.run_dir = str(run)
        write_config(run, OmegaConf.create(OmegaConf.to_container(config, resolve=True)))
        lines = [json.dumps(entry) for entry in entries(best, kimg=kimg, seconds=seconds)]
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        if checkpoint:
            torch.manual_seed(0)
            state = build(config.model.generator).state_dict()
            weights = {f"generator_ema.{key}": value for key, value in state.items()}
            clock = {"images_seen": kimg * 1000}
            best_file = run / "checkpoints" / "best.ckpt"
            AtomicCheckpointIO().save_checkpoint({"state_dict": weights, "clock": clock}, best_file)
        if evaluation is not None:
            (run / "evaluation.json").write_text(json.dumps(evaluation))
        return run

    return made
