"""Sweeps through the real command line, launchers and sweepers, with a fast mock of training."""

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from gan_lab.commands import launch as launching
from gan_lab.commands.launch import launch
from gan_lab.config import build, conf_dir
from gan_lab.sweeps import job
from gan_lab.sweeps.job import STOP_FILE, Ending
from gan_lab.training.loggers import METRICS_FILE
from gan_lab.training.loggers.files import JsonLogger, read_metrics

EVERY_KIMG = 10.0
FIGURE = "metrics/fd_digits"


@dataclass
class Fake:
    """A mock of training with a run folder, an evaluation curve and failures.

    Attributes:
        trained: (name, kimg where it began) of each run, in order.
        endings: how runs end, by a part of their name; "done" where there is none.
        kill_at: (which run, kimg): where this process is killed, as if by kill -9.
        stop_after: a run after which the sweep stops.
        height: of the curve's end, by configuration.
    """

    trained: list[tuple[str, float]] = field(default_factory=list)
    endings: dict[str, Ending] = field(default_factory=dict)
    kill_at: tuple[int, float] | None = None
    stop_after: str | None = None
    height: Callable[[DictConfig], float] = lambda config: 1.0 + config.seed

    def __call__(self, config: DictConfig, folder: Path) -> Ending:
        """Replace `gan_lab.sweeps.job.train`."""
        for part, ending in self.endings.items():
            if part in config.name:
                self.trained.append((config.name, 0.0))
                return ending
        self.train(config)
        if self.stop_after == config.name:
            (folder / STOP_FILE).write_text(f"{signal.SIGTERM}\n")
        return Ending("done")

    def train(self, config: DictConfig) -> None:
        """Resume from the run folder, and evaluate every `EVERY_KIMG`."""
        run = Path(config.run_dir)
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / "last.ckpt").touch()
        log = run / METRICS_FILE
        done = read_metrics(log)[-1]["kimg"] if log.exists() else 0.0
        self.trained.append((config.name, done))
        trainer = SimpleNamespace(
            is_global_zero=True,
            should_stop=False,
            callbacks=[],
            loggers=[JsonLogger(run_dir=run)],
            strategy=SimpleNamespace(broadcast=lambda value: value),
        )
        evaluation = SimpleNamespace(every_kimg=EVERY_KIMG, values={})
        node = config.callbacks.get("pruning")
        pruning = None if node is None else build(node, evaluation=evaluation)
        for kimg in kimgs(done, config.total_kimg):
            if self.kill_at == (len(self.trained), kimg):
                os.kill(os.getpid(), signal.SIGKILL)
            value = self.height(config) + 10 * math.exp(-kimg / 10)
            evaluation.values = {FIGURE: value}
            trainer.loggers[0].log_metrics({"kimg": kimg, FIGURE: value, "time/total_s": kimg})
            module: Any = SimpleNamespace(
                kimg=kimg,
                images_seen=round(kimg * 1000),
                finished=kimg >= config.total_kimg,
                due=lambda every: True,
            )
            if pruning is not None:
                pruning.on_train_batch_end(trainer, module, None, None, 0)
            if trainer.should_stop:
                return


def kimgs(done: float, total: float) -> list[float]:
    """Return the kimg of the evaluations that are still to come."""
    return [
        k * EVERY_KIMG for k in range(int(done // EVERY_KIMG) + 1, int(total // EVERY_KIMG) + 1)
    ]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Replace training."""
    made = Fake()
    monkeypatch.setattr(job, "train", made)
    return made


SMALL = """
defaults:
  - _self_
  - override hydra/sweeper: grid
  - override hydra/job_logging: stdout

name: ${run_name:${swept_keys}}
dry_run: false
runs_dir: runs
sweep: null
swept_keys: []
run_dir: ${path:${runs_dir},${sweep},${name}}
objective: metrics/fd_digits
objective_mode: null
seed: 0
total_kimg: 40
batch_size: 16
d_steps: 1
lr: 0.5
loss: hinge
callbacks: {}
metrics: {_target_: gan_lab.metrics.base.NoMetrics}
hydra:
  run: {dir: .}
  sweep: {dir: "${path:${runs_dir},${sweep}}", subdir: .}
  output_subdir: null
  hydra_logging: {root: {level: WARNING}}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace conf/train.yaml by a few of its keys, which takes a third of the time to compose."""
    conf = tmp_path / "conf"
    shutil.copytree(conf_dir() / "hydra", conf / "hydra")
    (conf / "train.yaml").write_text(SMALL)
    monkeypatch.setattr(launching, "conf_dir", lambda: conf)
    return conf


Sweep = Callable[..., int]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Run `gan-lab train -m` with 40 kimg a run, and return its exit status."""

    def run(*overrides: str) -> int:
        try:
            return launch("train", ["-m", f"runs_dir={tmp_path}/m", "total_kimg=40", *overrides])
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1

    return run


def recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what sweep.json says of each run."""
    return {
        entry["run"]: entry for entry in json.loads((folder / "sweep.json").read_text())["jobs"]
    }
