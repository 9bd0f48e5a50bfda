"""SLURM: environment of a job, signals, requeueing. Imports nothing heavy."""

import os
import signal
import subprocess
from importlib.util import find_spec
from shutil import which

from gan_lab.errors import InputError

# exit status of a process whose job starts again: no success, which a sweep would take for a result (EX_TEMPFAIL)
REQUEUED = 75

# SLURM warns of a job's end by one of these
PREEMPT_SIGNALS = frozenset({signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)})

# its answers are a matter of milliseconds, but a controller may be overrun
_PATIENCE_S = 60

# states of a job that are its last
ENDED = frozenset(
    (
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
        "REVOKED", "TIMEOUT",
    )
)  # fmt: skip


def in_job() -> bool:
    """Whether this process belongs to a job of SLURM."""
    return "SLURM_JOB_ID" in os.environ


def job() -> str:
    """Return the job's name for scontrol: `<array>_<task>` in an array, whose own number means all of its tasks."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is None:
        return os.environ["SLURM_JOB_ID"]
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def tasks() -> int:
    """Return how many processes the job has been promised; 1 outside of SLURM."""
    return int(os.environ.get("SLURM_NTASKS", "1"))


def rank() -> int:
    """Return the number of this process in its job; 0 outside of SLURM."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def by_srun() -> bool:
    """Whether srun has started this process, and not the batch script itself or a shell in the job."""
    return "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ


def check_tasks(*, devices: int, nodes: int) -> None:
    """Check that the job's tasks are the processes of the run.

    Args:
        devices: `trainer.devices`.
        nodes: `trainer.num_nodes`.

    Raises:
        InputError: for several tasks that nobody starts, and for others than the trainer's.
    """
    if tasks() == 1:
        return
    if not by_srun():
        raise InputError(
            f"job {job()} has {tasks()} tasks, but srun started no process of it, and this one would wait for the "
            "others: put srun --kill-on-bad-exit=1 before gan-lab"
        )
    per_node, on = os.environ.get("SLURM_NTASKS_PER_NODE"), os.environ["SLURM_NNODES"]
    if (per_node, on) != (str(devices), str(nodes)):
        raise InputError(
            f"job {job()} has {tasks()} tasks, {per_node or 'any number'} on each of {on} nodes, but trainer.devices="
            f"{devices} and trainer.num_nodes={nodes}; submit it with --nodes={nodes} --ntasks-per-node={devices}"
        )


def block_signals() -> None:
    """Block the signals of preemption until `unblock_signals`: nothing could be saved yet."""
    if in_job():
        signal.pthread_sigmask(signal.SIG_BLOCK, PREEMPT_SIGNALS)


def unblock_signals() -> None:
    """Deliver the signals that `block_signals` has held back, and those to come."""
    if in_job():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PREEMPT_SIGNALS)


def requeue(number: int, *, max_requeues: int) -> str | None:
    """Have the job start again after a signal, unless it was cancelled; one process of the job calls this.

    SLURM then sends SIGTERM to the job's processes, and kills them after KillWait (30 s by default). A job that is
    being requeued or cancelled by others, or has reached its time limit, is left alone.

    Args:
        number: the signal that came.
        max_requeues: how often a job may start again.

    Returns:
        Why it does not, None where it does.
    """
    try:
        about = job_fields(ask("scontrol", "--oneliner", "show", "job", job()))
        # a cancelled job is COMPLETING; requeued, it would come back to life
        if about.get("JobState") != "RUNNING":
            return f"job {job()} is being ended by SLURM"
        if number != signal.SIGUSR1 and about.get("PreemptTime", "None") == "None":
            return f"job {job()} was asked to stop by somebody, not by SLURM"
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if restarts >= max_requeues:
            return (
                f"job {job()} was started again {restarts} times, and callbacks.checkpointing.max_requeues is "
                f"{max_requeues}"
            )
        ask("scontrol", "requeue", job())
    except (OSError, subprocess.SubprocessError) as error:
        return f"job {job()} could not be started again: {reason(error)}"
    return None


def check_cluster() -> None:
    """Check that sbatch and the packages for SLURM are installed.

    Raises:
        InputError: without sbatch, and without submitit.
    """
    if which("sbatch") is None:
        raise InputError(
            "hydra/launcher=slurm: there is no sbatch on this machine; run this on a login node of the cluster, or "
            "leave the launcher out"
        )
    if any(
        find_spec(name) is None for name in ("submitit", "hydra_plugins.hydra_submitit_launcher")
    ):
        raise InputError(
            "hydra/launcher=slurm needs submitit and Hydra's launcher for it; pip install 'gan_lab[slurm]'"
        )


def states(name: str) -> dict[str, str]:
    """Return the state of a job, or of each task of an array, by its name; what SLURM has forgotten is left out."""
    try:
        lines = ask(
            "squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={name}"
        )
    except subprocess.CalledProcessError as error:
        if "Invalid job id" in error.stderr:
            return {}
        raise
    return dict(line.split() for line in lines.splitlines())


def ask(*words: str) -> str:
    """Return what a command of SLURM prints.

    Raises:
        OSError: where it is missing.
        subprocess.SubprocessError: where it fails, or does not answer.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=_PATIENCE_S)
    return done.stdout


def reason(error: OSError | subprocess.SubprocessError) -> str:
    """Return why a command of SLURM failed, in its own words where it has said some."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return str(said or error).strip()


def job_fields(text: str) -> dict[str, str]:
    """Return the fields of `scontrol --oneliner show job`."""
    pairs = (word.partition("=") for word in text.split())
    return {name: value for name, _, value in pairs}
