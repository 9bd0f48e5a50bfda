"""slurm/train.sbatch and slurm/sweep.sh on a real SLURM."""

from pathlib import Path
from shlex import join

import pytest

from gan_lab.training.loggers.files import read_metrics
from tests.commands.conftest import entries
from tests.helpers.checkpoints import assert_same, final
from tests.slurm.conftest import REPOSITORY, SMALL, Cluster, free_ports

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

LENGTH = "total_kimg=4"
ONE_NODE = ("--nodes=1", "--ntasks-per-node=2")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1")


@pytest.fixture(scope="session")
def jobs(slurm: Cluster) -> dict[str, str]:
    """Jobs without interruption, submitted together, since they mostly wait."""
    torchrun = [
        *("srun", "torchrun", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"),
        *(f"--rdzv-endpoint=127.0.0.1:{free_ports(1)}", "-m", "gan_lab", "train", "trainer=ddp"),
        *("trainer.devices=1", "trainer.num_nodes=2", *SMALL, LENGTH, "runs_dir=runs", "name=torchrun"),
    ]  # fmt: skip
    failing = "+callbacks.failing._target_=tests.slurm.failing.Failing"
    return {
        "straight": slurm.train(LENGTH, name="straight", options=ONE_NODE),
        "nodes": slurm.train(LENGTH, name="nodes", options=TWO_NODES),
        "torchrun": slurm.ask("sbatch", "--parsable", *TWO_NODES, f"--wrap={join(torchrun)}"),
        "failing": slurm.train("total_kimg=1000", failing, name="failing", options=ONE_NODE),
    }


@pytest.fixture(scope="session")
def straight(slurm: Cluster, jobs: dict[str, str]) -> Path:
    """A run of two processes on one node, without an interruption."""
    slurm.ended(jobs["straight"])
    return slurm.run_dir("straight")


def assert_same_run(run: Path, reference: Path) -> None:
    ours, theirs = final(run), final(reference)
    for part in ("state_dict", "optimizer_states", "clock"):
        assert_same(ours[part], theirs[part], part)
    assert entries(run) == entries(reference), "the log has no gap and nothing twice"


def test_two_nodes_are_one_node(slurm: Cluster, jobs: dict[str, str], straight: Path) -> None:
    slurm.ended(jobs["nodes"])
    assert_same_run(slurm.run_dir("nodes"), straight)


def test_torchrun_on_two_nodes_of_a_job(
    slurm: Cluster, jobs: dict[str, str], straight: Path
) -> None:
    slurm.ended(jobs["torchrun"])
    assert_same_run(slurm.run_dir("torchrun"), straight)


def test_a_rank_that_fails_ends_the_job(slurm: Cluster, jobs: dict[str, str]) -> None:
    slurm.ended(jobs["failing"], "FAILED")
    assert "rank 1 has had enough" in slurm.output(jobs["failing"])


def test_a_warned_job_goes_on_where_it_was(slurm: Cluster, straight: Path) -> None:
    job = slurm.train(LENGTH, name="warned", options=ONE_NODE)
    slurm.steps(slurm.run_dir("warned"), job)
    slurm.warn(job)
    slurm.requeued(job)
    saved = final(slurm.run_dir("warned"))["clock"]
    assert isinstance(saved, dict) and 0 < saved["images_seen"] < 4000
    slurm.ended(job)
    said = slurm.output(job)
    kimg = f"{saved['images_seen'] / 1000:g} kimg"
    assert f"stopped by SIGUSR1 at {kimg} and saved; job {job} starts again" in said, said
    assert f"last.ckpt at {kimg}" in said, said
    assert_same_run(slurm.run_dir("warned"), straight)


def test_one_task_of_an_array_is_warned(slurm: Cluster) -> None:
    lines = slurm.folder / "runs.txt"
    lines.write_text("# two runs\n\nname=first seed=1\nname='sec ond' seed=2\n")
    sweep = str(REPOSITORY / "slurm" / "sweep.sh")
    common = (*SMALL, LENGTH, "runs_dir=runs")
    array = slurm.ask(sweep, "--parsable", "--cpus-per-task=1", "--array=%2", str(lines), *common)
    slurm.steps(slurm.run_dir("sec ond"), f"{array}_1")
    slurm.warn(f"{array}_1")
    slurm.requeued(f"{array}_1")
    slurm.ended(f"{array}_0")
    slurm.ended(f"{array}_1")
    assert [slurm.restarts(f"{array}_{task}") for task in range(2)] == [0, 1]
    for name, seed in (("first", 1), ("sec ond", 2)):
        run = slurm.run_dir(name)
        assert f"seed: {seed}\n" in (run / "config.yaml").read_text()
        assert final(run)["clock"]["images_seen"] == 4000  # type: ignore[index]
        logged = [e["kimg"] for e in read_metrics(run / "metrics.jsonl") if "loss/d" in e]
        assert logged == sorted(set(logged)) and logged[-1] == 4


def test_a_job_makes_way_and_a_cancelled_one_stays_away(slurm: Cluster) -> None:
    whole = ("--nodelist=n1", "--exclusive")
    job = slurm.train("total_kimg=1000", name="preempted", options=whole)
    slurm.steps(slurm.run_dir("preempted"), job)
    urgent = slurm.ask("sbatch", "--parsable", "--partition=high", *whole, "--wrap=hostname")
    slurm.requeued(job)
    slurm.ended(urgent)
    saved = final(slurm.run_dir("preempted"))["clock"]["images_seen"]  # type: ignore[index]
    going_on = f"last.ckpt at {saved / 1000:g} kimg"
    slurm.until(lambda: going_on in slurm.output(job), "the job does not go on", job)
    log = slurm.run_dir("preempted") / "metrics.jsonl"
    before = log.stat().st_size
    slurm.until(lambda: log.stat().st_size > before, "the job does not train", job)
    slurm.ask("scancel", job)
    slurm.ended(job, "CANCELLED")
    said = slurm.output(job)
    assert f"the same command goes on; job {job} is being ended by SLURM" in said, said
    assert final(slurm.run_dir("preempted"))["clock"]["images_seen"] > saved  # type: ignore[index]
