"""Sweeps of real runs in subprocesses: killed, stopped, and two at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.training.loggers.files import read_metrics
from tests.commands.conftest import ELSE, TINY
from tests.sweeps.conftest import recorded

MINUTES = 8


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `gan-lab train -m` in another process; what it prints goes to out.txt."""
    started = []

    def begin(*overrides: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "gan_lab",
            "train",
            "-m",
            f"runs_dir={tmp_path}",
            *overrides,
        ]
        with (tmp_path / "out.txt").open("w") as out:
            root = Path(__file__).parents[2]
            started.append(
                subprocess.Popen(
                    command, stdout=out, stderr=out, text=True, cwd=root, start_new_session=True
                )
            )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process does."""
    end = time.monotonic() + 60 * MINUTES
    while not happened():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def statuses(folder: Path) -> list[str]:
    """Return how the runs of a sweep are doing."""
    if not (folder / "sweep.json").exists():
        return []
    return [entry["status"] for entry in recorded(folder).values()]


def final(run: Path) -> dict[str, Any]:
    """Return a run's last checkpoint."""
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.timeout(60 * MINUTES)
def test_what_ends_a_run_does_not_end_the_sweep(tmp_path: Path) -> None:
    kinds = ("tests.sweeps.ends.Killed", "tests.sweeps.ends.Defect", "gan_lab.data.builtin.Digits")
    overrides = [*ELSE, "sweep=a", f"data._target_={','.join(kinds)}", "total_kimg=0.05"]
    assert launch("train", ["-m", f"runs_dir={tmp_path}", *overrides]) == 2
    found = {name.rpartition(".")[2]: entry for name, entry in recorded(tmp_path / "a").items()}
    assert {name: e["status"] for name, e in found.items()} == {
        "Killed": "killed",
        "Defect": "failed",
        "Digits": "done",
    }
    assert found["Killed"]["error"] == "process killed by SIGKILL"
    assert "RuntimeError" in (error := found["Defect"]["error"]) and "nobody's input" in error
    assert found["Digits"]["kimg"] == 0.064 and found["Digits"]["value"] is None


@pytest.mark.slow
@pytest.mark.timeout(3 * 60 * MINUTES)
def test_a_sweep_of_six_killed_stopped_and_started_again(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    overrides = (
        *ELSE,
        "total_kimg=6",
        "sweep=a",
        "seed=range(6)",
        "callbacks.samples.every_kimg=100",
    )
    folder = tmp_path / "a"
    third, fifth = (folder / f"seed-{seed}" / "checkpoints" / "previous.ckpt" for seed in (2, 4))

    process = start(*overrides)
    until(third.exists, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert statuses(folder) == ["done", "done", "running", "waiting", "waiting", "waiting"]
    done = {
        path: path.stat().st_mtime_ns
        for seed in (0, 1)
        for path in (folder / f"seed-{seed}").rglob("*")
        if path.name != ".lock"
    }

    process = start(*overrides)
    until(fifth.exists, process)
    # Ctrl-C in a terminal is for all of its processes
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60 * MINUTES) == 128 + signal.SIGINT
    out = (tmp_path / "out.txt").read_text()
    assert "6 runs, 2 of them done" in out and "stopped; the same command goes on" in out
    assert f"resuming from {folder}/seed-2/checkpoints/last.ckpt" in out
    assert statuses(folder) == ["done"] * 4 + ["stopped", "waiting"]

    process = start(*overrides)
    assert process.wait(60 * MINUTES) == 0
    assert statuses(folder) == ["done"] * 6
    assert done == {path: path.stat().st_mtime_ns for path in done}, "they were left alone"

    straight = [*ELSE, "total_kimg=6", "callbacks.samples.every_kimg=100", f"runs_dir={tmp_path}"]
    for seed in (2, 4):
        name = f"straight{seed}"
        assert launch("train", [*straight, f"seed={seed}", f"name={name}"]) == 0
        ours, theirs = final(folder / f"seed-{seed}"), final(tmp_path / name)
        assert ours["clock"] == theirs["clock"]
        for key, value in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], value), key


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES)
def test_ranks_do_not_run_the_sweep_again(tmp_path: Path) -> None:
    """Each of two runs has two ranks: with one configuration, one log, and no sweep of their own."""
    rates = ("0.001", "0.0001")
    overrides = [
        *(*ELSE, "total_kimg=0.2", "sweep=a", "trainer=cpu", "trainer.devices=2", "threads=1"),
        f"model.generator_optimizer.lr={','.join(rates)}",
    ]
    assert launch("train", ["-m", f"runs_dir={tmp_path}", *overrides]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert list(recorded(tmp_path / "a")) == [f"model.generator_optimizer.lr-{r}" for r in rates]
    for rate in rates:
        run = tmp_path / "a" / f"model.generator_optimizer.lr-{rate}"
        kimg = [entry["kimg"] for entry in read_metrics(run / "metrics.jsonl") if "loss/d" in entry]
        assert kimg == sorted(set(kimg)) and kimg[-1] == 0.208
        groups = [state["param_groups"] for state in final(run)["optimizer_states"]]
        assert groups[0][0]["lr"] == float(rate)


@pytest.mark.slow
@pytest.mark.timeout(2 * 60 * MINUTES)
def test_several_at_a_time_with_joblib(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    parallel = (*TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "total_kimg=0.4")
    kinds = "data._target_=tests.sweeps.ends.Killed,gan_lab.data.builtin.Digits"
    process = start(*parallel, "sweep=grid", "seed=0,1", kinds)
    assert process.wait(60 * MINUTES) == 2
    assert sorted(statuses(tmp_path / "grid")) == ["done", "done", "killed", "killed"]
    good = [e for e in recorded(tmp_path / "grid").values() if e["status"] == "done"]
    for entry in good:
        run = tmp_path / "grid" / entry["run"]
        assert entry["value"] == min(
            e["metrics/fd_digits"]
            for e in read_metrics(run / "metrics.jsonl")
            if "metrics/fd_digits" in e
        )
        assert "0.4 kimg shown" in (run / "output.log").read_text()

    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4")
    pruner = ("hydra.sweeper.pruner.n_startup_trials=1", "hydra.sweeper.pruner.n_warmup_steps=0")
    space = "model.generator_optimizer.lr=tag(log,interval(1e-6,1e-2))"
    process = start(*parallel, *search, *pruner, space, "sweep=search")
    assert process.wait(60 * MINUTES) == 0
    found = json.loads((tmp_path / "search" / "sweep.json").read_text())
    assert len(found["jobs"]) == 4 and {j["status"] for j in found["jobs"]} <= {"done", "pruned"}
    assert found["best"] is not None and os.path.exists(tmp_path / "search" / "optuna.journal")
