"""hydra/launcher=slurm on a real SLURM: a sweep of which one run is requeued and one fails."""

import json
import subprocess
import sys

import pytest

from gan_lab.training.loggers.files import read_metrics
from tests.slurm.conftest import PATIENCE_S, SMALL, Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

WIDTHS = (6, 12, -1)


def test_the_best_of_a_sweep_is_the_best_of_its_runs(slurm: Cluster) -> None:
    command = [
        *(sys.executable, "-m", "gan_lab", "train", "-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"),
        *SMALL, "total_kimg=4", "trainer=cpu", "sweep=widths", "objective=loss/d", "objective_mode=min",
        f"model.generator.width={','.join(map(str, WIDTHS))}",
    ]  # fmt: skip
    output, sweep = slurm.folder / "sweep.out", slurm.folder / "multirun" / "widths"
    with output.open("w") as file:
        client = subprocess.Popen(
            command, cwd=slurm.folder, env=slurm.environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        slurm.until(
            lambda: "jobs from" in output.read_text() or client.poll() is not None, "no jobs"
        )
        array = output.read_text().partition("jobs from ")[2].partition("_")[0]
        slurm.steps(sweep / "model.generator.width-6", f"{array}_0")
        slurm.warn(f"{array}_0")
        slurm.requeued(f"{array}_0")
        assert client.wait(PATIENCE_S) == 2, slurm.logs()
    finally:
        client.kill()
    assert "1 of 3 runs failed (model.generator.width-1)" in output.read_text(), slurm.logs()
    states = [slurm.state(f"{array}_{task}") for task in range(3)]
    assert states == ["COMPLETED", "COMPLETED", "FAILED"], slurm.logs()
    record = json.loads((sweep / "sweep.json").read_text())
    assert [job["status"] for job in record["jobs"]] == ["done", "done", "failed"]
    # of the whole runs, not of the part before the signal
    logs = [read_metrics(sweep / job["run"] / "metrics.jsonl") for job in record["jobs"][:2]]
    values = [min(e["loss/d"] for e in log if "loss/d" in e) for log in logs]
    assert [job["value"] for job in record["jobs"]] == [*values, None]
    assert [job["kimg"] for job in record["jobs"]] == [4, 4, None]
    assert record["best"] == record["jobs"][values.index(min(values))]["run"]
