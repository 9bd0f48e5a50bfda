"""A sweep within one SLURM job: on a warning signal its run is saved and the job requeued."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

from gan_lab.distributed import slurm
from gan_lab.sweeps import job
from gan_lab.sweeps.job import Ending
from tests.sweeps.conftest import Fake, Sweep, recorded


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Mock a running SLURM job; return the file with the calls of scontrol."""
    path = tmp_path / "calls"
    script = tmp_path / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {path}\necho JobState=RUNNING\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    yield path
    slurm.unblock_signals()


def test_a_warned_sweep_starts_again(
    small: Path,
    fake: Fake,
    sweep: Sweep,
    tmp_path: Path,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def warned(config: DictConfig, folder: Path) -> Ending:
        os.kill(os.getpid(), signal.SIGUSR1)
        return Ending("stopped", None, 143)

    overrides = ("sweep=seeds", "seed=1,2", "+callbacks.checkpointing.max_requeues=1")
    with monkeypatch.context() as patch:
        patch.setattr(job, "train", warned)
        assert sweep(*overrides) == 75
    assert "requeue 7" in calls.read_text()
    assert [found["status"] for found in recorded(tmp_path / "m" / "seeds").values()] == [
        "stopped", "waiting",
    ]  # fmt: skip
    calls.unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert sweep(*overrides) == 0
    assert len(fake.trained) == 2 and not calls.exists()
