"""A signal of SLURM saves and requeues at the end of a step, even before the first step."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from gan_lab.distributed import slurm
from tests.commands.conftest import ELSE, train_and_exit
from tests.helpers.checkpoints import final

# what scontrol is calls goes to a file; the job runs
SCONTROL = """#!/bin/sh
echo "$@" >> {calls}
echo JobState=RUNNING PreemptTime=None
"""


def signaled(overrides: list[str], number: signal.Signals) -> None:
    """A task of a job that gets the signal during imports."""
    slurm.block_signals()
    os.kill(os.getpid(), number)
    train_and_exit(overrides)


@pytest.mark.parametrize(
    ("number", "status", "requeued"), [(signal.SIGUSR1, 75, True), (signal.SIGTERM, 143, False)]
)
def test_a_warning_before_the_first_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
    requeued: bool,
) -> None:
    calls = tmp_path / "calls"
    script = tmp_path / "scontrol"
    script.write_text(SCONTROL.format(calls=calls))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    rare = "callbacks.checkpointing.every_kimg=1000"
    overrides = [*ELSE, rare, "total_kimg=1000", f"runs_dir={tmp_path}/runs", "name=run"]
    child = multiprocessing.get_context("fork").Process(target=signaled, args=(overrides, number))
    child.start()
    child.join(100)
    assert child.exitcode == status
    assert final(tmp_path / "runs" / "run")["clock"]["images_seen"] == 16  # type: ignore[index]
    assert ("requeue 7" in calls.read_text()) == requeued
