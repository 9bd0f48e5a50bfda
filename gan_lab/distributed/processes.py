"""Worker processes: one per device of this machine, all with the same composed config."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import distributed
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from gan_lab.console import HANGUP, minds_hangup
from gan_lab.distributed import slurm
from gan_lab.distributed.ranks import ManualDDPStrategy
from gan_lab.errors import InputError, interrupted

# signals to the first process are forwarded to all; a terminal's Ctrl-C reaches them anyway
FORWARDED = tuple(
    number
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
)

Target = Callable[[DictConfig], None]

Message = tuple[int, int, str]  # rank, exit status, error


def started_by_others() -> bool:
    """Whether torchrun, SLURM or `run_on` has started this process as one of several."""
    return "LOCAL_RANK" in os.environ or TorchElasticEnvironment.detect() or by_slurm()


def by_slurm() -> bool:
    """Whether srun has started this process as one of several, and not torchrun or `run_on` within a task."""
    by_another = "LOCAL_RANK" in os.environ or TorchElasticEnvironment.detect()
    return slurm.by_srun() and slurm.tasks() > 1 and not by_another


def environment() -> ClusterEnvironment:
    """Return Lightning's environment plugin, without its requeueing of SLURM jobs."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if by_slurm() else LightningEnvironment()


def devices_here(trainer: DictConfig) -> int:
    """Return how many devices of this machine a Trainer uses.

    Raises:
        InputError: for more devices than there are, or an invalid number.
    """
    given = trainer.get("devices", 1)
    on_cpu = trainer.get("accelerator") == "cpu" or not torch.accelerator.is_available()
    present = (os.cpu_count() or 1) if on_cpu else torch.accelerator.device_count()
    if given in ("auto", -1, "-1"):
        return 1 if on_cpu else present
    if OmegaConf.is_list(given) and not on_cpu:
        count, most = len(given), max(given, default=-1) + 1
    elif isinstance(given, int) and given > 0:
        count = most = given
    else:
        raise InputError(
            f"trainer.devices={given}: give a number, a list such as [0,2] of GPUs, or auto for all of them"
        )
    if most > present:
        kind = "CPU cores" if on_cpu else "devices"
        raise InputError(
            f"trainer.devices={given}: there are {present} {kind} here; set trainer.devices={present} or fewer"
        )
    return count


def world_size(trainer: DictConfig) -> int:
    """Return how many processes a run has, on all machines.

    Raises:
        InputError: when the launcher started another number of processes, or none on the other machines.
    """
    nodes = trainer.get("num_nodes", 1)
    if not isinstance(nodes, int) or nodes < 1:
        raise InputError(f"trainer.num_nodes={nodes} must be a whole number of machines")
    if TorchElasticEnvironment.detect():
        here, machines = torchrun_world()
        given = trainer.get("devices", 1)
        devices = len(given) if OmegaConf.is_list(given) else given
        if devices not in ("auto", -1, "-1", here) or machines != nodes:
            raise InputError(
                f"torchrun started {here} processes on each of {machines} machines, but trainer.devices={given} and "
                f"trainer.num_nodes={nodes}; set trainer.devices={here} trainer.num_nodes={machines}, or start as many "
                "as these by --nproc-per-node and --nnodes"
            )
        return here * machines
    devices = devices_here(trainer)
    if "LOCAL_RANK" not in os.environ:
        slurm.check_tasks(devices=devices, nodes=nodes)
    if nodes > 1 and not started_by_others():
        raise InputError(
            f"trainer.num_nodes={nodes}: start the run on each machine, with the same settings, by srun or by torchrun "
            f"--nnodes={nodes} --nproc-per-node={devices} --rdzv-backend=c10d --rdzv-endpoint=HOST:29400 -m gan_lab "
            "train ..., where HOST is one of them"
        )
    return devices * nodes


def torchrun_world() -> tuple[int, int]:
    """Return how many processes torchrun has started on this machine, and on how many machines."""
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here


def processes(timeout: timedelta) -> dict[str, Any]:
    """Return the Trainer's arguments for several processes; none for a single one.

    Args:
        timeout: how long a process waits for the others.
    """
    if not started_by_others():
        return {}
    found: dict[str, Any] = {"strategy": ManualDDPStrategy(timeout=timeout)}
    if TorchElasticEnvironment.detect():
        found["devices"], found["num_nodes"] = torchrun_world()
    return found


def run_on(devices: int, config: DictConfig, target: Target) -> None:
    """Call a function of the configuration in `devices` processes and wait for them; when one fails, end the others.

    Args:
        devices: how many.
        config: with everything resolved.
        target: a function of a module.

    Raises:
        InputError: what a process raised.
        SystemExit: when a signal ended the run.
        KeyboardInterrupt: for a Ctrl-C before the processes are ready for it.
    """
    # it would log every process that it stops after a failure
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    queue: SimpleQueue[Message] = get_context("spawn").SimpleQueue()
    container = OmegaConf.to_container(config)
    with interrupts_blocked():
        context = start_processes(
            work,
            args=(container, devices, free_port(), queue, target),
            nprocs=devices,
            join=False,
            start_method="spawn",
        )
    assert isinstance(context, ProcessContext)
    failure: ProcessExitedException | ProcessRaisedException | None = None
    with signals_forwarded(context.pids()) as forwarded:
        slurm.unblock_signals()
        try:
            while not context.join():
                pass
        except (ProcessExitedException, ProcessRaisedException) as error:
            failure = error
    # errors of processes that lost a killed one are not the cause
    killed = failure and killed_process(context, failure)
    messages = []
    while not queue.empty():
        messages.append(queue.get())
    for _, status, text in [] if killed else sorted(messages):
        if text:
            raise InputError(text) from failure
        raise SystemExit(status)
    if failure is None:
        return
    if interrupted.is_set():
        raise KeyboardInterrupt from failure
    if not killed:
        if forwarded:  # before the processes were ready for it
            raise SystemExit(128 + forwarded[0]) from failure
        raise failure
    rank, name = killed
    raise InputError(
        f"process {rank} of {devices} was killed by {name}, which ended the run (SIGKILL usually means out of memory); "
        "the same command goes on from the last checkpoint"
    ) from failure


def killed_process(
    context: ProcessContext, failure: ProcessExitedException | ProcessRaisedException
) -> tuple[int, str] | None:
    """Return the process killed by a signal other than ours, and the signal; None without one.

    The others then fail with other errors.
    """
    first = failure.error_index
    order = [first, *(i for i in range(len(context.processes)) if i != first)]
    for index in order:
        code = context.processes[index].exitcode or 0
        if code < 0 and -code != signal.SIGTERM:
            return index, signal.Signals(-code).name
    return None


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes that ignore Ctrl-C until they are ready: Python's startup would print a traceback each."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def work(
    rank: int,
    container: Mapping[str, Any],
    devices: int,
    port: int,
    queue: "SimpleQueue[Message]",
    target: Target,
) -> None:
    """Entry point of a worker process."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Lightning read rank 0 at import, and would correct it only in the Trainer
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    config = OmegaConf.create(dict(container))
    if config.get("threads") is None and not torch.accelerator.is_available():
        # otherwise each process would use all cores
        torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    try:
        target(config)
    except InputError as error:
        queue.put((rank, 2, str(error)))
        sys.exit(2)
    except SystemExit as stop:
        # as an exit status it would stop the others before they are done
        queue.put((rank, int(stop.code or 0), ""))
    except KeyboardInterrupt:
        queue.put((rank, 128 + signal.SIGINT, ""))


@contextmanager
def signals_forwarded(pids: list[int]) -> Iterator[list[int]]:
    """Forward signals to the worker processes, which save and stop; yield the list of those forwarded."""
    forwarded: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.append(number)
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it has exited

    def note(number: int, frame: FrameType | None) -> None:
        interrupted.set()

    minded = [number for number in FORWARDED if number != HANGUP or minds_hangup()]
    before = {number: signal.signal(number, forward) for number in minded}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, note)
    try:
        yield forwarded
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# Processes that share an evaluation: torchrun's, SLURM's, or one per device of this machine.

# a process may wait for the others' metrics that long; a dead one is noticed at once
_PATIENCE = timedelta(days=7)

Step = Callable[[DictConfig], object]


def run_in_processes(config: DictConfig, *, check: Step, work: Step) -> None:
    """Run a command's work in one or several processes, starting them if needed.

    Args:
        config: of the command, with `devices` and `device`.
        check: validates it once, before processes are started.
        work: of each process; a function of a module.

    Raises:
        InputError: what these raise; for more devices than there are.
    """
    if devices_of(config) > 1 and not started_by_others():
        check(config)
        OmegaConf.resolve(config)
        run_on(devices_of(config), config, partial(_as_one_of_several, work))
    else:
        with process_group(1):
            work(config)


def _as_one_of_several(work: Step, config: DictConfig) -> None:
    try:
        with process_group(devices_of(config)):
            work(config)
    except KeyboardInterrupt as stop:
        raise SystemExit(130) from stop  # reported to the parent process


def devices_of(config: DictConfig) -> int:
    """Return how many processes to start here, one per device.

    Raises:
        InputError: for more devices than there are.
    """
    accelerator = "cpu" if config.device == "cpu" else "auto"
    try:
        return devices_here(
            OmegaConf.create({"devices": config.devices, "accelerator": accelerator})
        )
    except InputError as error:
        # errors of training name its own keys
        raise InputError(str(error).replace("trainer.", "")) from error


@contextmanager
def process_group(devices: int) -> Iterator[None]:
    """Join the process group, if any, each process with its own device.

    They communicate on the CPU.

    Args:
        devices: processes started here, without torchrun or SLURM.
    """
    rank, size, local = _ranks(devices)
    if size == 1 or distributed.is_initialized():
        yield
        return
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(local % torch.accelerator.device_count())
    vars(rank_zero_only)["rank"] = rank  # rank 0 reports for all
    distributed.init_process_group("gloo", rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _ranks(devices: int) -> tuple[int, int, int]:
    """Return rank, world size and local rank."""
    others = environment()
    if isinstance(others, LightningEnvironment):
        here = "LOCAL_RANK" in os.environ
        return others.local_rank(), devices if here else 1, others.local_rank()
    os.environ |= {"MASTER_ADDR": others.main_address, "MASTER_PORT": str(others.main_port)}
    return others.global_rank(), others.world_size(), others.local_rank()


# Memory of a process.


def forget_resident_peak() -> bool:
    """Reset the peak of resident memory, if the system allows it; return whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    except OSError:
        return False
    return True


def resident_peak() -> int:
    """Return the peak of the resident set in bytes.

    getrusage alone would count that of the parent process before this one started (fork and exec keep it).
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
