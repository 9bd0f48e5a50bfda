"""Runs of a tiny model through the command line."""

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.config import cache_dir
from gan_lab.metrics.features.classifiers import DigitsFeatures
from tests.helpers.once import make_once

TINY = (
    "model=gan",
    "model.generator.width=8",
    "model.discriminator.width=4",
    "batch_size=16",
    "data.image_size=8",
    "callbacks.training_log.every_kimg=0.05",
    "callbacks.samples.every_kimg=0.2",
    "callbacks.evaluation.every_kimg=0.2",
    "callbacks.checkpointing.every_kimg=0.1",
    "callbacks.samples.columns=3",
    "metrics.digits.num_fake=400",
)
# for data that are not digits
ELSE = (*(word for word in TINY if not word.startswith("metrics.")), "metrics=none")

Train = Callable[..., Path]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `TINY`, trained once for all tests that need a finished run; they get copies."""

    def train(root: Path) -> None:
        assert launch("train", [*TINY, "total_kimg=0.2", f"runs_dir={root}", "name=run"]) == 0

    return make_once(tmp_path_factory, "finished", train) / "run"


def short_run(factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a run of `TINY` over 0.1 kimg, which is trained once for all modules."""

    def train(root: Path) -> None:
        assert launch("train", [*TINY, "total_kimg=0.1", f"runs_dir={root}", "name=run"]) == 0

    run = factory.mktemp("runs") / "run"
    copy_run(make_once(factory, "short", train) / "run", run)
    return run


def copy_run(source: Path, target: Path) -> None:
    """Copy a run folder with its hard links."""
    copies: dict[int, str] = {}

    def copy(path: str, to: str) -> None:
        inode = os.stat(path).st_ino
        if inode in copies:
            os.link(copies[inode], to)
        else:
            shutil.copy2(path, to)
            copies[inode] = to

    shutil.copytree(source, target, copy_function=copy)


@pytest.fixture
def train(tmp_path: Path, request: pytest.FixtureRequest) -> Train:
    """Train `TINY` with further overrides to its end and return the run folder; without any, copy `finished`."""

    def trained(
        *overrides: str, name: str = "run", status: int = 0, base: Sequence[str] = TINY
    ) -> Path:
        run = tmp_path / "runs" / name
        if not (overrides or status or run.exists()) and base is TINY:
            copy_run(request.getfixturevalue("finished"), run)
            return run
        options = [*base, "total_kimg=0.2", f"runs_dir={tmp_path}/runs", f"name={name}", *overrides]
        assert launch("train", options) == status
        return run

    return trained


def train_and_exit(overrides: list[str]) -> None:
    """Train, and exit with the command's status."""
    sys.exit(launch("train", overrides))


def in_a_child(overrides: list[str]) -> multiprocessing.Process:
    """Start `gan-lab train` in a forked process, which has everything imported already."""
    child = multiprocessing.get_context("fork").Process(target=train_and_exit, args=(overrides,))
    child.start()
    return child


def entries(run: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl without what depends on the machine's speed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith(("speed/", "time/"))}
        for line in lines
    ]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Path:
    """A cache for each test, with the classifier of all of them."""
    trained = request.getfixturevalue("trained_classifier")
    shutil.copytree(trained, tmp_path / "cache")
    monkeypatch.setenv("GAN_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def trained_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the classifier of all tests and nothing else."""
    DigitsFeatures().load(torch.device("cpu"))
    folder = tmp_path_factory.mktemp("classifier")
    for path in cache_dir().glob("digits*"):
        shutil.copy(path, folder)
    return folder
