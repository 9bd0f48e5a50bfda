"""The environment of a SLURM job, without SLURM."""

import subprocess
from pathlib import Path

import pytest

from gan_lab.commands.launch import launch
from gan_lab.distributed import slurm
from gan_lab.errors import InputError


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A job of four tasks on two nodes, of which srun has started this process."""
    for name, value in {
        "JOB_ID": "7", "NTASKS": "4", "NTASKS_PER_NODE": "2", "NNODES": "2", "STEP_ID": "0", "PROCID": "3",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    return monkeypatch


def answers(monkeypatch: pytest.MonkeyPatch, state: str, preempted: str = "None") -> list[str]:
    """Make scontrol report this job, and return the list of its calls."""
    calls = []

    def run(command: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(" ".join(command))
        text = f"JobId=7 JobState={state} Reason=None\n   PreemptTime={preempted}"
        return subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


@pytest.mark.parametrize(
    ("number", "state", "preempted", "again"),
    [
        (10, "RUNNING", "None", True),  # the warning that was requested
        (10, "COMPLETING", "None", False),  # cancelled in the meantime
        (15, "COMPLETING", "None", False),  # cancelled, or out of time
        (15, "RUNNING", "None", False),  # somebody wants to end it
        (15, "RUNNING", "2026-01-01T00:00:00", True),
    ],
)
def test_which_signals_mean_again(
    job: pytest.MonkeyPatch, number: int, state: str, preempted: str, again: bool
) -> None:
    calls = answers(job, state, preempted)
    refusal = slurm.requeue(number, max_requeues=1)
    assert (refusal is None) == again
    assert ("scontrol requeue 7" in calls) == again


def test_a_task_of_an_array_and_not_the_array_starts_again(job: pytest.MonkeyPatch) -> None:
    job.setenv("SLURM_ARRAY_JOB_ID", "7")
    job.setenv("SLURM_ARRAY_TASK_ID", "2")
    calls = answers(job, "RUNNING")
    assert slurm.requeue(10, max_requeues=1) is None
    assert calls[-1] == "scontrol requeue 7_2"


def test_restarts_come_to_an_end(job: pytest.MonkeyPatch) -> None:
    job.setenv("SLURM_RESTART_COUNT", "3")
    calls = answers(job, "RUNNING")
    assert "was started again 3 times" in str(slurm.requeue(10, max_requeues=3))
    assert "scontrol requeue 7" not in calls
    assert slurm.requeue(10, max_requeues=4) is None


def test_scontrol_that_fails_is_quoted(job: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "scontrol"
    script.write_text("#!/bin/sh\necho no contact >&2\nexit 1\n")
    script.chmod(0o755)
    job.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert slurm.requeue(10, max_requeues=3) == "job 7 could not be started again: no contact"


def test_tasks_are_those_of_the_trainer(job: pytest.MonkeyPatch) -> None:
    slurm.check_tasks(devices=2, nodes=2)
    with pytest.raises(InputError, match="--nodes=1 --ntasks-per-node=4"):
        slurm.check_tasks(devices=4, nodes=1)
    job.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(InputError, match="any number on each of 2 nodes"):
        slurm.check_tasks(devices=2, nodes=2)
    job.delenv("SLURM_STEP_ID")
    with pytest.raises(InputError, match="put srun"):
        slurm.check_tasks(devices=2, nodes=2)
    job.setenv("SLURM_NTASKS", "1")
    slurm.check_tasks(devices=2, nodes=1)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["hydra/launcher=slurm"], "add -m"),
        (["-m", "hydra/launcher=slurm", "seed=0,1"], "there is no sbatch on this machine"),
    ],
)
def test_a_launcher_without_a_cluster(
    overrides: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch("train", [*overrides, f"runs_dir={tmp_path}/runs"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
