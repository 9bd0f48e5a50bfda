"""The runs of a sweep: recorded in sweep.json, each trained in its own process."""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from multiprocessing import get_context, get_start_method, parent_process, set_start_method
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.text import Text

from gan_lab.config import register_resolvers
from gan_lab.console import HANGUP, leave_terminal, minds_hangup, say, warn
from gan_lab.distributed import slurm
from gan_lab.errors import InputError
from gan_lab.run import LOCK_FILE, write, write_json

SWEEP_FILE, RECORD_LOCK = "sweep.json", ".sweep.json.lock"

Status = Literal["waiting", "running", "done", "pruned", "stopped", "failed", "killed"]
# finished; other runs are continued by the next call
FINAL: tuple[Status, ...] = ("done", "pruned")
# need the user's attention
WRONG: tuple[Status, ...] = ("failed", "killed")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep.

    Attributes:
        run: name of its folder in the sweep's.
        overrides: of the run, as on the command line.
        status: waiting, running, done, pruned (by Optuna), stopped (by a signal, and saved), failed
            (`error` says why), or killed (its process ended by a signal).
        objective: key of metrics.jsonl to compare runs by, None without metrics.
        mode: "min" or "max": whether lower or higher is better.
        value: the best of it.
        value_kimg: where that was.
        metrics: all metrics there.
        kimg: thousands of images shown.
        total_kimg: the length of training.
        seconds: of training, over all calls.
        error: message of a failed run.
    """

    run: str
    overrides: Sequence[str]
    status: Status = "waiting"
    objective: str | None = None
    mode: Literal["min", "max"] | None = None
    value: float | None = None
    value_kimg: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    kimg: float | None = None
    total_kimg: float | None = None
    seconds: float | None = None
    error: str | None = None


class SweepFile:
    """`sweep.json`, written atomically by several processes in turn.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / SWEEP_FILE
        self._lock = FileLock(folder / RECORD_LOCK)

    def jobs(self) -> dict[str, Job]:
        """Return the record of each run, by its folder's name.

        Raises:
            InputError: when it is not such a file.
        """
        if not self.path.exists():
            return {}
        try:
            found = [Job(**entry) for entry in json.loads(self.path.read_text())["jobs"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self.path} is not the record of a sweep ({error}); delete it to read the runs again"
            ) from error
        return {job.run: job for job in found}

    def put(self, jobs: Iterable[Job]) -> None:
        """Add runs, or replace their records."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._write(self.jobs() | {job.run: job for job in jobs})

    def change(self, run: str, **changes: Any) -> Job:
        """Change the record of one run, and return it."""
        with self._lock:
            known = self.jobs()
            known[run] = replace(known[run], **changes)
            self._write(known)
            return known[run]

    def _write(self, jobs: dict[str, Job]) -> None:
        chosen = best(jobs.values())
        content = {
            "sweep": self.folder.name,
            "objective": chosen.objective if chosen else None,
            "mode": chosen.mode if chosen else None,
            "best": chosen.run if chosen else None,
            "jobs": [asdict(job) for job in jobs.values()],
        }
        write_json(self.path, content, indent=1)


def best(jobs: Iterable[Job]) -> Job | None:
    """Return the run with the best value; None if there is none, or their metrics differ."""
    valued = [job for job in jobs if job.value is not None]
    if len({(job.objective, job.mode) for job in valued}) != 1:
        return None
    sign = -1.0 if valued[0].mode == "max" else 1.0
    return min(valued, key=lambda job: sign * (job.value or 0.0))


def table(jobs: Iterable[Job]) -> Table:
    """Return a table of runs, the best first and marked, with a column for each key that differs."""
    jobs = list(jobs)
    chosen = best(jobs)
    keys = varying(jobs)
    made = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in (*short(keys), "status"):
        made.add_column(name)
    metric = chosen.objective if chosen and chosen.objective else "value"
    metric = metric.removeprefix("metrics/")
    for name in (metric, "at kimg", "kimg", "time"):
        made.add_column(name, justify="right")
    made.add_column("")
    for job in sorted(jobs, key=rank):
        settings = dict(word.partition("=")[::2] for word in job.overrides)
        first = job is chosen
        made.add_row(
            *(settings.get(key, "") for key in keys),
            Text(job.status, style="red" if job.status in WRONG else ""),
            number(job.value, 4),
            number(job.value_kimg),
            number(job.kimg),
            clock(job.seconds),
            "best" if first else "",
            style="green" if first else None,
        )
    return made


def varying(jobs: Iterable[Job]) -> list[str]:
    """Return the keys whose values differ between runs."""
    settings = [dict(word.partition("=")[::2] for word in job.overrides) for job in jobs]
    keys = dict.fromkeys(key for found in settings for key in found)
    return [key for key in keys if len({found.get(key) for found in settings}) > 1] or ["run"]


def short(keys: Sequence[str]) -> list[str]:
    """Return the shortest unique suffix of each key."""
    ends = []
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        ends.append(next((t for t in tails if not any(o.endswith(f".{t}") for o in others)), key))
    return ends


def rank(job: Job) -> tuple[bool, float]:
    """Sort key: best value first, runs without a value last."""
    sign = -1.0 if job.mode == "max" else 1.0
    return (job.value is None, sign * (job.value or 0.0))


def number(value: float | None, digits: int = 6) -> str:
    """Format a number for the table."""
    return "" if value is None else f"{value:.{digits}g}"


def clock(seconds: float | None) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


Context = ForkServerContext | SpawnContext
# while this file exists in a sweep's folder, its runs save and stop
STOP_FILE = ".stop"
OUTPUT_FILE = "output.log"
# poll interval for it, and timeout for a folder that a stopping process still holds
LOOK_EVERY_S, WAIT_S = 0.5, 60.0
LONGEST_ERROR = 10_000
HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
TRAIN = "gan_lab.commands.train"  # the command of a run
KEYS = "gan_lab.commands.keys"


class Ending(NamedTuple):
    """How a run ended: `code` is the exit status of a stopped one."""

    status: Status
    error: str | None = None
    code: int = 0


def run_job(config: DictConfig) -> float | None:
    """Train one run of a sweep, record its end in `sweep.json`, and return its value: the best of its objective.

    A failing run raises nothing, so that the others are tried; its value is None, as without metrics.
    """
    folder, run = sweep_folder(config), str(config.name)
    if in_submitit_job() and slurm.rank() > 0:
        # rank 0 of a job reports
        exit_job(run_here(config))
        return None
    record = SweepFile(folder)
    known = record.jobs().get(run)
    if known is None:
        # another sweeper has not announced it
        known = Job(run=run, overrides=without_sweep_keys(HydraConfig.get().overrides.task))
        record.put([known])
    if (folder / STOP_FILE).exists():
        return None
    say(f"run          {run}")
    record.change(run, status="running", error=None, total_kimg=float(config.total_kimg))
    # a signal to one job of a cluster is not for the others
    with nullcontext() if in_submitit_job() else stop_on_signal(folder / STOP_FILE):
        ending = train(config, folder)
    job = finish(record, config, ending)
    print_ending(job)
    if in_submitit_job():
        exit_job(ending)
    return job.value


def exit_job(ending: Ending) -> None:
    """Exit with the run's status in a process that a launcher started for it."""
    if ending.status == "stopped":
        raise SystemExit(ending.code)
    if ending.status == "failed" and slurm.in_job():
        raise SystemExit(1)


def sweep_folder(config: DictConfig) -> Path:
    """Return the folder of the sweep that a run belongs to."""
    return Path(config.runs_dir) / str(config.sweep)


def without_sweep_keys(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without those added by `sweep_overrides`."""
    ours = ("sweep=", "swept_keys=", "runs_dir=", "++callbacks.pruning")
    return [word.removeprefix("++") for word in overrides if not word.startswith(ours)]


def train(config: DictConfig, folder: Path) -> Ending:
    """Train in a subprocess, unless the launcher has started one."""
    if in_submitit_job():
        return run_here(config)
    stop = folder / STOP_FILE
    here = HydraConfig.get().launcher._target_ == HERE
    output = None if here else Path(config.run_dir) / OUTPUT_FILE
    ending = run_in_subprocess(config, stop=stop, output=output)
    if ending.status == "killed" and stop.exists():
        # nothing to save yet
        return Ending("stopped")
    return ending


def in_submitit_job() -> bool:
    """Whether submitit has started this process for this run, and stops it."""
    return "SUBMITIT_EXECUTOR" in os.environ


def finish(record: SweepFile, config: DictConfig, ending: Ending) -> Job:
    """Record the outcome of a run."""
    # imports torch, which should not delay a sweep's first run
    from gan_lab.sweeps.outcome import chosen_objective, entries_of, outcome

    entries = entries_of(Path(config.run_dir))
    try:
        objective = chosen_objective(config, {key for entry in entries for key in entry})
    except InputError:
        if ending.status != "failed":
            raise
        objective = None  # the reason of the failure
    found = outcome(entries, objective)
    pruned = found.pop("pruned") and ending.status == "done"
    if ending.status == "done" and config.objective is not None and found.get("value") is None:
        ending = Ending("failed", f"objective={config.objective} has no value in its metrics.jsonl")
    status = "pruned" if pruned else ending.status
    return record.change(str(config.name), status=status, error=ending.error, **found)


def print_ending(job: Job) -> None:
    """Print how a run ended."""
    value = "" if job.value is None else f": {job.objective} {job.value:.4g}"
    kimg = "" if job.kimg is None else f" at {job.kimg:g} kimg"
    line = f"{job.run} {job.status}{kimg}{value}"
    if job.status in WRONG:
        warn(f"{line}. {job.error}")
    else:
        say(line)


def run_here(config: DictConfig) -> Ending:
    """Train in this process and return how it ended, without raising."""
    try:
        wait_for(Path(config.run_dir))
        import_module(KEYS).check("train", config)
        import_module(TRAIN).run(config)
    except InputError as error:
        return Ending("failed", str(error))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        return Ending("stopped", None, code) if code else Ending("done")
    except KeyboardInterrupt:
        return Ending("stopped", None, 128 + signal.SIGINT)
    except Exception as error:  # after a defect in one run, the next is tried
        traceback.print_exc()
        return Ending("failed", f"{type(error).__name__}: {error}"[:LONGEST_ERROR])
    return Ending("done")


def run_in_subprocess(config: DictConfig, *, stop: Path, output: Path | None) -> Ending:
    """Train in a new process and return how it ended.

    Args:
        config: of the run.
        stop: a file; when it appears, or this process dies, the run saves and stops.
        output: file for what the run prints; None for this terminal.
    """
    # the fork server imports once what every run needs, and has neither threads nor devices
    forks = sys.platform == "linux"
    context: Context = get_context("forkserver") if forks else get_context("spawn")
    if forks:
        context.set_forkserver_preload([TRAIN])
    reader, writer = context.Pipe(duplex=False)
    # plain containers: a launcher's worker may have other versions of Hydra's classes
    own = HydraConfig.instance().cfg
    containers = [{} if c is None else OmegaConf.to_container(c) for c in (config, own)]
    process = context.Process(
        target=work, args=(*containers, dict(os.environ), writer, stop, output), daemon=False
    )
    with default_method(context.get_start_method()):
        process.start()
    writer.close()
    try:
        ending = reader.recv()
    except EOFError:
        ending = None
    process.join()
    if isinstance(ending, Ending):
        return ending
    code = process.exitcode or 0
    if code < 0:
        return Ending("killed", f"process killed by {signal.Signals(-code).name}")
    return Ending("killed", f"process ended early with exit status {code}")


@contextmanager
def default_method(method: str) -> Iterator[None]:
    """Set multiprocessing's default start method for a new process (joblib's is unknown to it)."""
    before = get_start_method(allow_none=True)
    set_start_method(method, force=True)
    try:
        yield
    finally:
        set_start_method(before, force=True)


def work(
    config: dict[str, Any],
    hydra: dict[str, Any],
    environment: Mapping[str, str],
    writer: Connection,
    stop: Path,
    output: Path | None,
) -> None:
    """Entry point of a run's process."""
    # a fork has the environment of the server's start
    os.environ.clear()
    os.environ.update(environment)
    # a terminal's Ctrl-C is for the sweep, which then makes its runs save and stop
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if output is not None:
        redirect(output)
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=watch, args=(stop, parent.sentinel), daemon=True).start()
    # used by interpolations
    register_resolvers()
    setup_globals()
    # plain containers are not of the type that Hydra's own setter needs
    HydraConfig.instance().cfg = OmegaConf.create(hydra)  # type: ignore[assignment]
    writer.send(run_here(OmegaConf.create(config)))
    writer.close()


def redirect(output: Path) -> None:
    """Append what this process and its children print to a file."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def watch(stop: Path, sentinel: int) -> None:
    """Send this process SIGTERM when the stop file appears or the parent is gone."""
    while not stop.exists():
        if wait([sentinel], timeout=LOOK_EVERY_S):
            break
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for(run_dir: Path) -> None:
    """Wait for a process that is still saving in the run folder."""
    if not (run_dir / LOCK_FILE).exists():
        return
    lock = FileLock(run_dir / LOCK_FILE)
    try:
        with lock.acquire(timeout=WAIT_S):
            return
    except Timeout:
        return


@contextmanager
def stop_on_signal(stop: Path) -> Iterator[None]:
    """On the first Ctrl-C or SIGTERM, create the file that stops all runs of a sweep; a second one exits at once.

    In a SLURM job, its warning signals do the same.
    """
    stopping = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if number == HANGUP:
            leave_terminal()
        # SLURM may warn more than once
        if stopping and number != HANGUP and (number == signal.SIGINT or not slurm.in_job()):
            raise KeyboardInterrupt
        if not stopping:
            write(stop, f"{number}\n")
        stopping = True

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are only delivered to the main thread
        return
    numbers = {signal.SIGINT, signal.SIGTERM} | (slurm.PREEMPT_SIGNALS if slurm.in_job() else set())
    if HANGUP is not None and minds_hangup():
        numbers.add(HANGUP)
    before = {n: signal.signal(n, request) for n in numbers}
    slurm.unblock_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_by(stop: Path) -> int:
    """Return the signal that stops a sweep."""
    try:
        return int(stop.read_text())
    except (OSError, ValueError):
        return signal.SIGTERM
