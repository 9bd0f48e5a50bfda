"""A local SLURM cluster: two emulated nodes on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands.conftest import ELSE

REPOSITORY = Path(__file__).parents[2]
NODES, CPUS = 2, 4
# on a machine that has other things to do, importing torch takes a minute
PATIENCE_S = 300.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")

# what makes a run small, and noteworthy at every third step
SMALL = (
    *ELSE,
    "seed=3",
    "callbacks.samples.every_kimg=1000",
    "callbacks.checkpointing.every_kimg=0.5",
)


@dataclass(frozen=True)
class Cluster:
    """The running SLURM; jobs have `folder` as their working directory and write their output there."""

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """Run a command of SLURM or of the repository, and return what it prints."""
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (
            f"{' '.join(command)}\n{done.stdout}{done.stderr}\n{self.logs()}"
        )
        return done.stdout.strip()

    def train(self, *overrides: str, name: str, options: tuple[str, ...] = ()) -> str:
        """Submit slurm/train.sbatch; return the job's number."""
        script = str(REPOSITORY / "slurm" / "train.sbatch")
        given = (*SMALL, "runs_dir=runs", f"name={name}", *overrides)
        return self.ask("sbatch", "--parsable", "--cpus-per-task=1", *options, script, *given)

    def run_dir(self, name: str) -> Path:
        return self.folder / "runs" / name

    def state(self, job: str) -> str:
        return self.ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")

    def restarts(self, job: str) -> int:
        fields = self.ask("scontrol", "--oneliner", "show", "job", job).split()
        return int(next(f for f in fields if f.startswith("Restarts=")).partition("=")[2])

    def ended(self, job: str, state: str = "COMPLETED") -> None:
        """Wait for a job's end, which is to be this one."""
        self.until(lambda: self.state(job) in ENDED, f"job {job} does not end")
        assert self.state(job) == state, self.logs()

    def requeued(self, job: str) -> None:
        """Wait until a job has ended to start again, and have it start now, not in two minutes."""
        self.until(lambda: self.state(job) == "PENDING", f"job {job} is not requeued", job)
        assert self.restarts(job) == 1
        self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")

    def warn(self, job: str, number: str = "USR1") -> None:
        """Send a signal to the tasks of a job, as SLURM does before the time limit."""
        self.ask("scancel", f"--signal={number}", job)

    def steps(self, run: Path, job: str) -> None:
        """Wait until a job has logged a step of a run."""
        log = run / "metrics.jsonl"
        self.until(
            lambda: log.exists() and "loss/d" in log.read_text(), f"{run} does not train", job
        )

    def until(self, done: Callable[[], bool], complaint: str, job: str | None = None) -> None:
        """Wait for something, but not for a job that has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, f"{complaint}\n{self.logs()}"
            assert job is None or self.state(job) not in ENDED, f"{complaint}\n{self.logs()}"
            time.sleep(0.1)

    def output(self, job: str) -> str:
        """Return the output of a job, over all requeues."""
        return "".join(path.read_text() for path in self.folder.glob(f"*-{job}.out"))

    def logs(self) -> str:
        """Return the output of all jobs, and their states in SLURM."""
        queue = subprocess.run(
            ["squeue", "--states=all"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        files = sorted(self.folder.rglob("*.out")) + sorted(self.folder.rglob("*.err"))
        texts = [f"--- {path.name}\n{path.read_text()[-4000:]}" for path in files]
        return "\n".join([queue.stdout, *texts])


def free_ports(count: int) -> int:
    """Return the first of several free ports in a row."""
    for first in range(21000, 31000, 10):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for i, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + i))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def slurm(isolation: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start SLURM, and stop it at the end."""
    # a socket's path is short, and munge wants everybody to get at it
    root = Path(tempfile.mkdtemp(prefix="slurm-"))
    root.chmod(0o711)
    script = str(REPOSITORY / "slurm" / "local_cluster.sh")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SLURM_")
    }
    environment |= {
        "LOCAL_SLURM_ROOT": str(root), "LOCAL_SLURM_PORT": str(free_ports(1 + NODES)),
        "LOCAL_SLURM_NODES": str(NODES), "LOCAL_SLURM_CPUS": str(CPUS), "SLURM_CONF": str(root / "slurm.conf"),
        "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    started = subprocess.run(
        [script, "start"], env=environment, capture_output=True, text=True, check=False
    )
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield Cluster(tmp_path_factory.mktemp("jobs"), environment)
    finally:
        subprocess.run([script, "stop"], env=environment, check=True)
        shutil.rmtree(root, ignore_errors=True)
