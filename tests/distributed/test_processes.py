"""Processes that torchrun starts, on one machine and on two, against one process: the command is the same."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from gan_lab.commands.launch import launch
from gan_lab.distributed.processes import free_port, run_on
from tests.helpers.as_one import drawn_alike

ROOT = Path(__file__).parents[2]
RUN = (
    *("model=dcgan", "model.generator.width=4", "model.discriminator.width=4", "loss=hinge"),
    *("regularizer=[r1]", "model.discriminator.batch_norm=false", "batch_size=16", "metrics=none"),
    *("data.image_size=8", "~callbacks.samples", "~callbacks.evaluation"),
    *("trainer=cpu", "trainer.precision=64-true", "trainer.sync_batchnorm=true"),
)
HALF, WHOLE = "total_kimg=0.16", "total_kimg=0.32"  # ten steps, twenty


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_alike(monkeypatch)


def overrides(folder: Path, *more: str) -> list[str]:
    return [*RUN, f"runs_dir={folder}", *more]


def torchrun(*overrides: str, flags: tuple[str, ...]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--local-addr=127.0.0.1", *flags]
    return subprocess.Popen(
        [*command, "-m", "tests.helpers.as_one", "train", *overrides],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    out, _ = process.communicate(timeout=100)
    assert process.returncode == status, out
    return out


def state(run: Path) -> dict[str, Any]:
    return dict(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True))


def assert_the_same_run(ours: Path, theirs: Path) -> None:
    """Weights, running statistics, the moving average and both optimizers, to 1e-5."""
    one, other = state(ours), state(theirs)
    assert one["clock"]["images_seen"] == other["clock"]["images_seen"] == 320
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(
            one[part], other[part], rtol=1e-5, atol=1e-9, msg=lambda m, part=part: f"{part}: {m}"
        )


def as_torchrun(rank: int, port: int, overrides: list[str], log: Path) -> None:
    """A process of torchrun, with output to a file."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    rank_zero_only.rank = rank
    with log.open("w") as file, redirect_stdout(file):
        status = launch("train", overrides)
    os._exit(status)


def test_two_processes_and_then_one_are_one_process(tmp_path: Path) -> None:
    """Two processes train the first half, one the second: the result equals that of one process."""
    assert launch("train", overrides(tmp_path, "name=alone", WHOLE)) == 0
    both = overrides(tmp_path, "name=two", HALF, "trainer.devices=2")
    port, logs = free_port(), [tmp_path / f"{rank}.log" for rank in range(2)]
    children = [
        multiprocessing.get_context("fork").Process(
            target=as_torchrun, args=(rank, port, both, log)
        )
        for rank, log in enumerate(logs)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(100)
        assert child.exitcode == 0
    said = [log.read_text().count("kimg shown") for log in logs]
    assert said == [1, 0], "one of the processes speaks for both"
    assert state(tmp_path / "two")["clock"]["images_seen"] == 160
    assert launch("train", overrides(tmp_path, "name=two", WHOLE)) == 0
    assert_the_same_run(tmp_path / "two", tmp_path / "alone")


@pytest.mark.slow
def test_torchrun_and_then_one_process_are_one_process(tmp_path: Path) -> None:
    assert launch("train", overrides(tmp_path, "name=alone", WHOLE)) == 0
    out = finish(
        torchrun(
            *overrides(tmp_path, "name=two", HALF, "trainer.devices=2"),
            flags=("--standalone", "--nproc-per-node=2"),
        )
    )
    assert out.count("kimg shown") == 1
    assert launch("train", overrides(tmp_path, "name=two", WHOLE)) == 0
    assert_the_same_run(tmp_path / "two", tmp_path / "alone")


@pytest.mark.slow
def test_checkpoints_by_time_leave_each_process_its_own_statistics(tmp_path: Path) -> None:
    for name, minutes in (("never", "null"), ("often", "1e-9")):
        finish(
            torchrun(
                *overrides(tmp_path, f"name={name}", HALF, "trainer.devices=2"),
                "trainer.sync_batchnorm=false",
                f"callbacks.checkpointing.every_minutes={minutes}",
                flags=("--standalone", "--nproc-per-node=2"),
            )
        )
    assert (tmp_path / "often" / "checkpoints" / "previous.ckpt").exists()
    assert not (tmp_path / "never" / "checkpoints" / "previous.ckpt").exists()
    ours, theirs = state(tmp_path / "often"), state(tmp_path / "never")
    for name, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], value), name


@pytest.mark.slow
def test_one_process_and_then_two_machines(tmp_path: Path) -> None:
    """Two agents of torchrun, each with one process, as on two machines, resume a run of one process."""
    assert launch("train", overrides(tmp_path, "name=alone", WHOLE)) == 0
    assert launch("train", overrides(tmp_path, "name=two", HALF)) == 0
    flags = (
        *("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=gan"),
        f"--rdzv-endpoint=127.0.0.1:{free_port()}",
    )
    both = [
        torchrun(*overrides(tmp_path, "name=two", WHOLE, "trainer.num_nodes=2"), flags=flags)
        for _ in range(2)
    ]
    outs = [finish(agent) for agent in both]
    assert sum("resuming from" in out for out in outs) == 1
    assert_the_same_run(tmp_path / "two", tmp_path / "alone")


@pytest.mark.slow
def test_torchrun_of_other_numbers_is_rejected(tmp_path: Path) -> None:
    agent = torchrun(
        *overrides(tmp_path, "name=no", HALF), flags=("--standalone", "--nproc-per-node=2")
    )
    out = finish(agent, status=1)
    assert "set trainer.devices=2 trainer.num_nodes=1" in out
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_two_processes_go_on_as_if_never_stopped(tmp_path: Path) -> None:
    """Bit by bit, each with its own noise, which follows from the clock."""
    both = (
        *("model=gan", "model.generator.width=8", "model.discriminator.width=4", "batch_size=16"),
        *("regularizer=[gradient_penalty]", "metrics=none", "data.image_size=8", "trainer=cpu"),
        *("~callbacks.samples", "~callbacks.evaluation", "trainer.devices=2", "threads=1"),
        f"runs_dir={tmp_path}",
    )
    assert launch("train", [*both, "name=straight", WHOLE]) == 0
    for length in (HALF, WHOLE):
        assert launch("train", [*both, "name=stopped", length]) == 0
    ours, theirs = state(tmp_path / "stopped"), state(tmp_path / "straight")
    assert ours["clock"] == theirs["clock"]
    for name, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], value), name


def stop_the_parent(config: DictConfig) -> None:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)


def test_a_signal_before_the_processes_are_ready() -> None:
    with pytest.raises(SystemExit) as caught:
        run_on(1, DictConfig({}), stop_the_parent)
    assert caught.value.code == 128 + signal.SIGTERM
