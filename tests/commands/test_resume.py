"""A run that is killed and started again ends in the same weights, bit by bit."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.commands.conftest import TINY, entries, in_a_child

LENGTH = "total_kimg=1.2"
RUN = (
    *TINY,
    LENGTH,
    "regularizer=[r1,gradient_penalty]",
    "regularizer.r1.interval=4",
    "callbacks.evaluation.every_kimg=0.6",
    "callbacks.samples.every_kimg=10",
    "+model.schedules.generator.lr._target_=gan_lab.schedules.Linear",
    "+model.schedules.generator.lr.start=2e-3",
    "+model.schedules.generator.lr.end=1e-4",
    "+model.schedules.generator.lr.end_kimg=1.2",
)


def words(root: Path, name: str) -> list[str]:
    return [*RUN, f"runs_dir={root}/runs", f"name={name}"]


def finish(root: Path, name: str) -> Path:
    child = in_a_child(words(root, name))
    child.join(120)
    assert child.exitcode == 0
    return root / "runs" / name


def final(run: Path) -> dict[str, object]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(ours: object, theirs: object, path: str = "") -> None:
    if isinstance(theirs, dict):
        assert isinstance(ours, dict) and ours.keys() == theirs.keys(), path
        for key, value in theirs.items():
            assert_same(ours[key], value, f"{path}/{key}")
    elif isinstance(theirs, list | tuple):
        assert isinstance(ours, list | tuple) and len(ours) == len(theirs), path
        for i, value in enumerate(theirs):
            assert_same(ours[i], value, f"{path}/{i}")
    elif isinstance(theirs, torch.Tensor):
        assert isinstance(ours, torch.Tensor) and torch.equal(ours, theirs), path
    else:
        assert ours == theirs, path


def test_killed_at_five_random_moments(tmp_path: Path) -> None:
    straight = finish(tmp_path, "straight")
    moments = random.Random(0)
    run = tmp_path / "runs" / "killed"
    last = run / "checkpoints" / "last.ckpt"
    kills = 0
    while kills < 5:
        seen = last.stat().st_mtime_ns if last.exists() else 0
        child = in_a_child(words(tmp_path, "killed"))
        # not before it has got further than the last time, or five kills would all fall into the start
        while child.is_alive() and (not last.exists() or last.stat().st_mtime_ns == seen):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        if not child.is_alive():
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    assert kills == 5, "the run was too short to be killed five times"
    finish(tmp_path, "killed")
    state, reference = final(run), final(straight)
    for part in ("state_dict", "optimizer_states", "clock", "callbacks"):
        assert_same(state[part], reference[part], part)
    assert entries(run) == entries(straight), "the log has no gap and nothing twice"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_at_the_end_of_the_step(tmp_path: Path, number: signal.Signals) -> None:
    straight = finish(tmp_path, "straight")
    run = tmp_path / "runs" / "stopped"
    child = in_a_child([*words(tmp_path, "stopped"), "callbacks.checkpointing.every_kimg=100"])
    while not (run / "metrics.jsonl").exists():
        time.sleep(0.005)
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == 0
    clock = final(run)["clock"]
    assert isinstance(clock, dict) and 0 < clock["images_seen"] < 1200, "saved before its end"
    finish(tmp_path, "stopped")
    for part in ("state_dict", "optimizer_states", "clock"):
        assert_same(final(run)[part], final(straight)[part], part)
