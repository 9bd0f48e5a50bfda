"""A run that is killed and started again ends in the same weights, bit by bit."""

import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lab.training.checkpoint import checkpoint_path
from gan_lab.training.loggers.files import read_metrics
from tests.commands.conftest import ELSE, TINY, Train, copy_run, entries, in_a_child, train_and_exit
from tests.helpers.checkpoints import assert_same, final

LENGTH = "total_kimg=1.2"
RUN = (
    *TINY,
    LENGTH,
    "regularizer=[r1,gradient_penalty]",
    "regularizer.r1.interval=4",
    "callbacks.evaluation.every_kimg=0.6",
    "callbacks.samples.every_kimg=10",
    "+model.schedules.generator.lr._target_=gan_lab.training.schedules.Linear",
    "+model.schedules.generator.lr.start=2e-3",
    "+model.schedules.generator.lr.end=1e-4",
    "+model.schedules.generator.lr.end_kimg=1.2",
)


def overrides(root: Path, name: str) -> list[str]:
    return [*RUN, f"runs_dir={root}/runs", f"name={name}"]


def finish(root: Path, name: str) -> Path:
    child = in_a_child(overrides(root, name))
    child.join(120)
    assert child.exitcode == 0
    return root / "runs" / name


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, trained once; tests that change it take copies."""
    return finish(tmp_path_factory.mktemp("straight"), "run")


def wait_for_a_step(run: Path) -> None:
    log = run / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not log.exists() or "loss/d" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("times", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, straight: Path, times: int) -> None:
    moments = random.Random(0)
    longest = read_metrics(straight / "metrics.jsonl")[-1]["time/total_s"] / 20
    run = tmp_path / "runs" / "killed"
    last = run / "checkpoints" / "last.ckpt"
    kills = 0
    while kills < times:
        seen = last.stat().st_mtime_ns if last.exists() else 0
        child = in_a_child(overrides(tmp_path, "killed"))
        # not before it has got further than the last time, or all kills would fall into the start
        while child.is_alive() and (not last.exists() or last.stat().st_mtime_ns == seen):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, longest))
        if not child.is_alive():
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    assert kills == times, "the run was too short to be killed so often"
    finish(tmp_path, "killed")
    state, reference = final(run), final(straight)
    for part in ("state_dict", "optimizer_states", "clock", "callbacks"):
        assert_same(state[part], reference[part], part)
    assert entries(run) == entries(straight), "the log has no gap and nothing twice"


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_at_the_end_of_the_step(tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "runs" / "stopped"
    rare = "callbacks.checkpointing.every_kimg=1000"
    child = in_a_child([*overrides(tmp_path, "stopped"), rare, "total_kimg=1000"])
    wait_for_a_step(run)
    assert child.pid is not None
    os.kill(child.pid, number)
    child.join(60)
    assert child.exitcode == 128 + number
    clock = final(run)["clock"]
    assert isinstance(clock, dict) and clock["images_seen"] < 1_000_000, "saved before its end"
    assert entries(run)[-1]["kimg"] == clock["images_seen"] / 1000
    length = f"total_kimg={clock['images_seen'] / 1000 + 0.2}"
    for name in ("stopped", "straight"):
        child = in_a_child([*overrides(tmp_path, name), rare, length])
        child.join(120)
        assert child.exitcode == 0
    straight = tmp_path / "runs" / "straight"
    for part in ("state_dict", "optimizer_states", "clock", "global_step"):
        assert_same(final(run)[part], final(straight)[part], part)
    assert entries(run) == entries(straight), "nothing of the stop is left in the log"


def test_checkpoints_by_time_change_nothing_else(train: Train) -> None:
    rare = "callbacks.checkpointing.every_kimg=1000"
    seldom = train(rare, "callbacks.evaluation.every_kimg=1000", name="seldom")
    often = train(
        rare,
        "callbacks.evaluation.every_kimg=1000",
        "callbacks.checkpointing.every_minutes=1e-9",
        name="often",
    )
    assert not (seldom / "checkpoints" / "previous.ckpt").exists()
    before = torch.load(often / "checkpoints" / "previous.ckpt", weights_only=True)
    assert before["clock"]["images_seen"] == final(often)["clock"]["images_seen"] - 16  # type: ignore[index]
    for part in ("state_dict", "optimizer_states", "clock", "callbacks", "global_step"):
        assert_same(final(often)[part], final(seldom)[part], part)
    assert entries(often) == entries(seldom)


def test_a_damaged_log_does_not_end_a_run(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    whole = entries(run)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([lines[0], b"\xff\xfe\n", *lines[2:]]))
    train("total_kimg=0.3")
    assert "metrics.jsonl is damaged in line 2" in capsys.readouterr().out.replace("\n", "")
    assert entries(run)[: len(whole) - 1] == [whole[0], *whole[2:]]


def test_other_data_of_the_same_shape_are_rejected_without_new_data(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("ours", "theirs")):
        rng = np.random.default_rng(seed)
        (tmp_path / name).mkdir()
        for i in range(20):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    shutil.copytree(tmp_path / "ours", tmp_path / "a copy", copy_function=shutil.copyfile)

    def on(name: str, *overrides: str, status: int = 0) -> None:
        root = f"data.root='{tmp_path / name}'"
        train("data=image_folder", root, "num_workers=0", *overrides, base=ELSE, status=status)

    on("ours")
    on("a copy", "total_kimg=0.22")
    capsys.readouterr()
    on("theirs", "total_kimg=0.24", status=2)
    assert "new_data=true" in capsys.readouterr().err
    on("theirs", "total_kimg=0.24", "new_data=true")


def in_a_terminal(overrides: list[str]) -> None:
    """Train as started by a shell: in a process group with its workers, which gets Ctrl-C."""
    os.setsid()
    train_and_exit(overrides)


def test_ctrl_c_in_a_terminal_reaches_the_workers_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(8):
        pixels = rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.jpg")
    overrides = [
        *ELSE, "total_kimg=1000", f"runs_dir={tmp_path}/runs", "name=run", "data=image_folder",
        f"data.root={tmp_path}/photos", "num_workers=2",
    ]  # fmt: skip
    child = multiprocessing.get_context("fork").Process(target=in_a_terminal, args=(overrides,))
    child.start()
    run = tmp_path / "runs" / "run"
    wait_for_a_step(run)
    assert child.pid is not None
    os.killpg(child.pid, signal.SIGINT)
    child.join(60)
    assert child.exitcode == 130
    assert final(run)["clock"]["images_seen"] > 0  # type: ignore[index]


def test_a_kill_between_the_checkpoint_and_its_being_the_best(
    tmp_path: Path, straight: Path
) -> None:
    run = tmp_path / "runs" / "run"
    copy_run(straight, run)
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    state = final(run)
    state["callbacks"]["Checkpointing"]["best_kimg"] = state["clock"]["images_seen"] / 1000  # type: ignore[index]
    torch.save(state, last)
    best.write_bytes(b"an older one")
    child = in_a_child(
        [
            *overrides(tmp_path, "run"),
            "total_kimg=1.216",
            "callbacks.evaluation.every_kimg=100",
            "metrics.digits.num_fake=401",
        ]
    )
    child.join(120)
    assert child.exitcode == 0
    assert torch.load(best, weights_only=True)["clock"]["images_seen"] >= 1200


def test_a_finished_run_whose_best_was_not_linked(train: Train) -> None:
    run = train()
    best, last = run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt"
    state = final(run)
    state["callbacks"]["Checkpointing"]["best_kimg"] = state["clock"]["images_seen"] / 1000  # type: ignore[index]
    torch.save(state, last)
    best.unlink()
    shutil.copy(run / "checkpoints" / "previous.ckpt", best)
    assert checkpoint_path(run) == checkpoint_path(run, "best") == last, "whoever only reads"
    train()
    assert best.samefile(last), "whoever holds the folder"


def test_two_processes_in_one_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    child = in_a_child([*overrides(tmp_path, "run"), "total_kimg=1000"])
    while not (tmp_path / "runs" / "run" / "metrics.jsonl").exists():
        time.sleep(0.005)
    try:
        second = in_a_child([*overrides(tmp_path, "run"), "total_kimg=1000"])
        second.join(60)
        assert second.exitcode == 2
        err = capfd.readouterr().err
        assert "another process is training in" in err
        assert f"(process {child.pid} on {socket.gethostname()}, since 20" in err
    finally:
        child.kill()
        child.join()


def test_the_time_goes_on_where_the_checkpoint_left_it(tmp_path: Path, straight: Path) -> None:
    run = tmp_path / "runs" / "run"
    copy_run(straight, run)
    seconds = [e["time/total_s"] for e in read_metrics(run / "metrics.jsonl")]
    assert all(0 < a <= b for a, b in pairwise(seconds))
    last = run / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    assert seconds[-1] <= state["seconds"]
    state["seconds"] = 1000.0
    torch.save(state, last)
    child = in_a_child([*overrides(tmp_path, "run"), "total_kimg=1.3"])
    child.join(120)
    added = [e["time/total_s"] for e in read_metrics(run / "metrics.jsonl")][len(seconds) :]
    assert added and min(added) > 1000


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("optimizer_states"),
        lambda state: state["optimizer_states"].pop(),
        lambda state: state.update(optimizer_states=[5, 5]),
        lambda state: state["clock"].pop("stats"),
        lambda state: state["clock"].update(players=[]),
    ],
)
def test_a_checkpoint_that_lacks_what_training_needs(
    train: Train, spoil: Callable[[dict[str, Any]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("total_kimg=0.05", base=ELSE)
    last = run / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    spoil(state)
    for path in last.parent.iterdir():
        path.unlink()
    torch.save(state, last)
    train("total_kimg=0.1", base=ELSE, status=2)
    assert "init_from=" in capsys.readouterr().err
