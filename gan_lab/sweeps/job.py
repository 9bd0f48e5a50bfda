"""One run of a sweep, in a process of its own, so that nothing of it is left to the next one."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from multiprocessing import get_context, get_start_method, parent_process, set_start_method
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import register_resolvers
from gan_lab.console import HANGUP, leave_terminal, minds_hangup, say, warn
from gan_lab.distributed import slurm
from gan_lab.errors import InputError
from gan_lab.run import LOCK_FILE, write
from gan_lab.sweeps.record import WRONG, Job, Record, Status

Context = ForkServerContext | SpawnContext
# while this file is in a sweep's folder, its runs save and stop
STOP_FILE = ".stop"
OUTPUT_FILE = "output.log"
# how often a run looks for it, and how long it waits for a folder that a process on its way out still holds
LOOK_EVERY_S, WAIT_S = 0.5, 60.0
LONGEST_ERROR = 10_000
HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
TRAIN = "gan_lab.commands.train"  # the command that a run is
KEYS = "gan_lab.commands.keys"


class Ending(NamedTuple):
    """How a run ended: `code` is the exit status of a stopped one."""

    status: Status
    error: str | None = None
    code: int = 0


def run_job(config: DictConfig) -> float | None:
    """Train one run of a sweep, record how it ended in `sweep.json`, and return its value: the best of its objective.

    A run that fails raises nothing, so that the others are tried; its value is None, as that of a run that measures
    nothing.
    """
    folder, run = sweep_folder(config), str(config.name)
    if in_submitit_job() and slurm.rank() > 0:
        # the first process of a job speaks for all
        exit_job(run_here(config))
        return None
    record = Record(folder)
    known = record.jobs().get(run)
    if known is None:
        # a sweeper of somebody else has not announced it
        known = Job(run=run, overrides=without_sweep_keys(HydraConfig.get().overrides.task))
        record.put([known])
    if (folder / STOP_FILE).exists():
        return None
    say(f"run          {run}")
    record.change(run, status="running", error=None, total_kimg=float(config.total_kimg))
    # what ends one job of a cluster is not meant for the others
    with nullcontext() if in_submitit_job() else stop_on_signal(folder / STOP_FILE):
        ending = train(config, folder)
    job = finish(record, config, ending)
    tell(job)
    if in_submitit_job():
        exit_job(ending)
    return job.value


def exit_job(ending: Ending) -> None:
    """End a process that was made for this run where a launcher, or the other ranks, would take it for a success."""
    if ending.status == "stopped":
        raise SystemExit(ending.code)
    if ending.status == "failed" and slurm.in_job():
        raise SystemExit(1)


def sweep_folder(config: DictConfig) -> Path:
    """Return the folder of the sweep that a run belongs to."""
    return Path(config.runs_dir) / str(config.sweep)


def without_sweep_keys(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without what the command line has added to them."""
    ours = ("sweep=", "swept_keys=", "runs_dir=", "++callbacks.pruning")
    return [word.removeprefix("++") for word in overrides if not word.startswith(ours)]


def train(config: DictConfig, folder: Path) -> Ending:
    """Train in a process of its own, unless the launcher has made one."""
    if in_submitit_job():
        return run_here(config)
    stop = folder / STOP_FILE
    here = HydraConfig.get().launcher._target_ == HERE
    output = None if here else Path(config.run_dir) / OUTPUT_FILE
    ending = run_in_subprocess(config, stop=stop, output=output)
    if ending.status == "killed" and stop.exists():
        # before there was anything to save
        return Ending("stopped")
    return ending


def in_submitit_job() -> bool:
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
    pruned = found.pop("pruned") and ending.status == "done"
    status = "pruned" if pruned else ending.status
    return record.change(str(config.name), status=status, error=ending.error, **found)


def tell(job: Job) -> None:
    """Say how a run ended."""
    value = "" if job.value is None else f": {job.objective} {job.value:.4g}"
    kimg = "" if job.kimg is None else f" at {job.kimg:g} kimg"
    line = f"{job.run} {job.status}{kimg}{value}"
    if job.status in WRONG:
        warn(f"{line}. {job.error}")
    else:
        say(line)


def run_here(config: DictConfig) -> Ending:
    """Train in this process, and say how it ended; nothing is raised."""
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
    except Exception as error:  # a defect in one run is no reason not to try the next
        traceback.print_exc()
        return Ending("failed", f"{type(error).__name__}: {error}"[:LONGEST_ERROR])
    return Ending("done")


def run_in_subprocess(config: DictConfig, *, stop: Path, output: Path | None) -> Ending:
    """Train in a new process, and say how it ended.

    Args:
        config: of the run.
        stop: a file; when it appears, or this process dies, the run saves and stops.
        output: where what the run prints goes; None for here.
    """
    # the server imports once what every run needs, and has neither threads nor devices when it is forked
    forks = sys.platform == "linux"
    context: Context = get_context("forkserver") if forks else get_context("spawn")
    if forks:
        context.set_forkserver_preload([TRAIN])
    reader, writer = context.Pipe(duplex=False)
    # plain containers: a launcher's worker has classes of its own for what Hydra's are made of
    own = HydraConfig.instance().cfg
    described = [{} if c is None else OmegaConf.to_container(c) for c in (config, own)]
    process = context.Process(
        target=work, args=(*described, dict(os.environ), writer, stop, output), daemon=False
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
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    return Ending("killed", f"its process ended without a word ({how})")


@contextmanager
def default_method(method: str) -> Iterator[None]:
    """Let a new process take this way of starting others for granted, not one that it cannot know, such as joblib's."""
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
    """Be the process."""
    # a fork has the environment of the time when its server was started
    os.environ.clear()
    os.environ.update(environment)
    # a terminal's Ctrl-C is for the sweep, which then has its runs save and stop
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if output is not None:
        redirect(output)
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=watch, args=(stop, parent.sentinel), daemon=True).start()
    # what the configuration refers to
    register_resolvers()
    setup_globals()
    # in plain containers it is not of the type that Hydra's own setter asks for
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
    """Ask this process to save and stop once a file appears, or the process that `sentinel` stands for is gone."""
    while not stop.exists():
        if wait([sentinel], timeout=LOOK_EVERY_S):
            break
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for(run_dir: Path) -> None:
    """Give a process that still saves the time to do so; training itself refuses a folder that is in use."""
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
    """Turn the first Ctrl-C or SIGTERM into a file that all runs of a sweep look for; a second one ends at once.

    In a job of SLURM its warnings do the same.
    """
    asked = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if number == HANGUP:
            leave_terminal()
        # SLURM may warn more than once
        if asked and number != HANGUP and (number == signal.SIGINT or not slurm.in_job()):
            raise KeyboardInterrupt
        if not asked:
            write(stop, f"{number}\n")
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread alone
        return
    numbers = {signal.SIGINT, signal.SIGTERM} | (slurm.WARNINGS if slurm.in_job() else set())
    if HANGUP is not None and minds_hangup():
        numbers.add(HANGUP)
    before = {n: signal.signal(n, request) for n in numbers}
    slurm.take_warnings()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_by(stop: Path) -> int:
    """Return the signal by which a sweep was asked to stop."""
    try:
        return int(stop.read_text())
    except (OSError, ValueError):
        return signal.SIGTERM
