"""The processes that share an evaluation: torchrun's, SLURM's, or one for each device of this machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import distributed

from gan_lab.commands.processes import devices_here, environment, run_on, started_by_others
from gan_lab.errors import InputError

# a process may wait for as long as the others take for figures; one that has died is noticed at once all the same
_PATIENCE = timedelta(days=7)
Step = Callable[[DictConfig], object]


def share(config: DictConfig, *, check: Step, work: Step) -> None:
    """Do a command's work, alone or together with other processes, which are started here if need be.

    Args:
        config: of the command, with `devices` and `device`.
        check: raises what is wrong with it, so that it shows once, and before processes are started.
        work: of each process; a function of a module.

    Raises:
        InputError: what these raise; for more devices than there are.
    """
    if devices_of(config) > 1 and not started_by_others():
        check(config)
        OmegaConf.resolve(config)
        run_on(devices_of(config), config, partial(_as_one_of_several, work))
    else:
        with joined(1):
            work(config)


def _as_one_of_several(work: Step, config: DictConfig) -> None:
    try:
        with joined(devices_of(config)):
            work(config)
    except KeyboardInterrupt as stop:
        raise SystemExit(130) from stop  # the process that started this one hears of it


def devices_of(config: DictConfig) -> int:
    """Return how many processes are to be started here, a device each.

    Raises:
        InputError: for more devices than there are.
    """
    accelerator = "cpu" if config.device == "cpu" else "auto"
    try:
        return devices_here(
            OmegaConf.create({"devices": config.devices, "accelerator": accelerator})
        )
    except InputError as error:
        # training speaks of its own keys
        raise InputError(str(error).replace("trainer.", "")) from error


@contextmanager
def joined(devices: int) -> Iterator[None]:
    """Meet the other processes, if there are any, each with a device of its own.

    What they say to each other is on the CPU.

    Args:
        devices: processes that were started here, where neither torchrun nor SLURM has started them.
    """
    rank, size, local = _place(devices)
    if size == 1 or distributed.is_initialized():
        yield
        return
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(local % torch.accelerator.device_count())
    vars(rank_zero_only)["rank"] = rank  # the first one speaks for all
    distributed.init_process_group("gloo", rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _place(devices: int) -> tuple[int, int, int]:
    """Return this process's number, how many there are, and its number on this machine."""
    others = environment()
    if isinstance(others, LightningEnvironment):
        here = "LOCAL_RANK" in os.environ
        return others.local_rank(), devices if here else 1, others.local_rank()
    os.environ |= {"MASTER_ADDR": others.main_address, "MASTER_PORT": str(others.main_port)}
    return others.global_rank(), others.world_size(), others.local_rank()
