"""What a launcher calls for each run of a sweep, in whichever process and on whichever machine."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gan_lab.console import say, warn
from gan_lab.distributed import slurm
from gan_lab.errors import InputError
from gan_lab.sweeps.process import OUTPUT_FILE, STOP_FILE, Ending, attempt, attempt_apart, stoppable
from gan_lab.sweeps.record import WRONG, Job, Record

HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def run_job(config: DictConfig) -> float | None:
    """Train one run of a sweep, record how it ended in `sweep.json`, and return its value: the best of its objective.

    A run that fails raises nothing, so that the others are tried; its value is None, as that of a run that measures
    nothing.
    """
    folder, run = sweep_folder(config), str(config.name)
    if alone() and slurm.rank() > 0:
        # the first process of a job speaks for all
        leave(attempt(config))
        return None
    record = Record(folder)
    known = record.jobs().get(run)
    if known is None:
        # a sweeper of somebody else has not announced it
        known = Job(run=run, overrides=told_apart(HydraConfig.get().overrides.task))
        record.put([known])
    if (folder / STOP_FILE).exists():
        return None
    say(f"run          {run}")
    record.change(run, status="running", error=None, total_kimg=float(config.total_kimg))
    # what ends one job of a cluster is not meant for the others
    with nullcontext() if alone() else stoppable(folder / STOP_FILE):
        ending = train(config, folder)
    job = finish(record, config, ending)
    tell(job)
    if alone():
        leave(ending)
    return job.value


def leave(ending: Ending) -> None:
    """End a process that was made for this run where a launcher, or the other ranks, would take it for a success."""
    if ending.status == "stopped":
        raise SystemExit(ending.code)
    if ending.status == "failed" and slurm.in_job():
        raise SystemExit(1)


def sweep_folder(config: DictConfig) -> Path:
    """Return the folder of the sweep that a run belongs to."""
    return Path(config.runs_dir) / str(config.sweep)


def told_apart(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without what the command line has added to them."""
    ours = ("sweep=", "swept=", "runs_dir=", "++callbacks.pruning")
    return [word for word in overrides if not word.startswith(ours)]


def train(config: DictConfig, folder: Path) -> Ending:
    """Train in a process of its own, unless the launcher has made one."""
    if alone():
        return attempt(config)
    stop = folder / STOP_FILE
    here = HydraConfig.get().launcher._target_ == HERE
    output = None if here else Path(config.run_dir) / OUTPUT_FILE
    ending = attempt_apart(config, stop=stop, output=output)
    if ending.status == "killed" and stop.exists():
        # before there was anything to save
        return Ending("stopped")
    return ending


def alone() -> bool:
    """Whether this process was made for this run: by submitit, which also tells it when to stop."""
    return "SUBMITIT_EXECUTOR" in os.environ


def finish(record: Record, config: DictConfig, ending: Ending) -> Job:
    """Record what came out of a run."""
    # torch comes with it, and a sweep's first run is not to wait for that
    from gan_lab.sweeps.outcome import chosen_objective, outcome

    try:
        objective = chosen_objective(config)
    except InputError:
        if ending.status != "failed":
            raise
        objective = None  # which is why it failed
    found = outcome(Path(config.run_dir), objective)
    pruned = ending.status == "done" and found.pruned
    return record.change(
        str(config.name),
        status="pruned" if pruned else ending.status,
        error=ending.error,
        objective=found.objective,
        mode=found.mode,
        value=found.value,
        value_kimg=found.value_kimg,
        figures=found.figures,
        kimg=found.kimg,
        seconds=found.seconds,
    )


def tell(job: Job) -> None:
    """Say how a run ended."""
    value = "" if job.value is None else f": {job.objective} {job.value:.4g}"
    kimg = "" if job.kimg is None else f" at {job.kimg:g} kimg"
    line = f"{job.run} {job.status}{kimg}{value}"
    if job.status in WRONG:
        warn(f"{line}. {job.error}")
    else:
        say(line)
