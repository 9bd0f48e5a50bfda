"""SLURM: environment of a job, and requeueing. Imports nothing heavy.

Signals are handled in `gan_lab.training.callbacks.checkpointing`: save, requeue the job, end with status 75.
"""

import os
import signal
import subprocess
from importlib.util import find_spec
from shutil import which

from gan_lab.errors import InputError

# exit status of a requeued job's process (EX_TEMPFAIL): a sweep would take 0 for success
REQUEUED = 75

# SLURM warns of a job's end by one of these signals
PREEMPT_SIGNALS = frozenset({signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)})

# usually milliseconds, but a controller may be overloaded
_PATIENCE_S = 60

# final states of a job
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
    """Return the job's id for scontrol: `<array>_<task>` in an array, whose own id means all tasks."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is None:
        return os.environ["SLURM_JOB_ID"]
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def tasks() -> int:
    """Return the number of tasks of the job; 1 outside of SLURM."""
    return int(os.environ.get("SLURM_NTASKS", "1"))


def rank() -> int:
    """Return the rank of this process in its job; 0 outside of SLURM."""
    return int(os.environ.get("SLURM_PROCID", "0"))


def by_srun() -> bool:
    """Whether srun has started this process, not the batch script or a shell in the job."""
    return "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ


def check_tasks(*, devices: int, nodes: int) -> None:
    """Check that the job's tasks are the processes of the run.

    Args:
        devices: `trainer.devices`.
        nodes: `trainer.num_nodes`.

    Raises:
        InputError: for several tasks without srun, and when the numbers differ.
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
    """Block preemption signals until `unblock_signals`, while nothing can be saved."""
    if in_job():
        signal.pthread_sigmask(signal.SIG_BLOCK, PREEMPT_SIGNALS)


def unblock_signals() -> None:
    """Deliver the blocked signals, and later ones."""
    if in_job():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PREEMPT_SIGNALS)


def requeue(number: int, *, max_requeues: int) -> str | None:
    """Requeue the job after a signal, unless it was cancelled; called by one process of the job.

    SLURM then sends SIGTERM to the job's processes, and kills them after KillWait (30 s by default). Jobs that
    others requeue or cancel, or that have reached their time limit, are not requeued.

    Args:
        number: of the signal.
        max_requeues: how often a job may be requeued.

    Returns:
        Why it was not requeued, or None.
    """
    try:
        about = job_fields(ask("scontrol", "--oneliner", "show", "job", job()))
        # a cancelled job is COMPLETING; it must not be requeued
        if about.get("JobState") != "RUNNING":
            return f"job {job()} is being ended by SLURM"
        if number != signal.SIGUSR1 and about.get("PreemptTime", "None") == "None":
            return f"job {job()} was stopped by a user, not by SLURM"
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
            "hydra/launcher=slurm needs submitit and Hydra's launcher for it; pip install 'gan-laboratory[slurm]'"
        )


def states(name: str) -> dict[str, str]:
    """Return the state of a job, or of each task of an array, by its name; without those that SLURM has forgotten."""
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
    """Return the output of a SLURM command.

    Raises:
        OSError: when it is missing.
        subprocess.SubprocessError: when it fails, or does not answer.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=_PATIENCE_S)
    return done.stdout


def reason(error: OSError | subprocess.SubprocessError) -> str:
    """Return why a SLURM command failed, by its own message if there is one."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return str(said or error).strip()


def job_fields(text: str) -> dict[str, str]:
    """Return the fields of `scontrol --oneliner show job`."""
    pairs = (word.partition("=") for word in text.split())
    return {name: value for name, _, value in pairs}
