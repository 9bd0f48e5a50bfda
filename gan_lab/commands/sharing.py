"""The processes that share an evaluation: torchrun's, SLURM's, or one for each device of this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import distributed

from gan_lab.commands.processes import devices_here

# a process may wait for as long as the others take for figures; one that has died is noticed at once all the same
_PATIENCE = timedelta(days=7)


def devices_of(config: DictConfig) -> int:
    """Return how many processes are to be started here, a device each.

    Raises:
        InputError: for more devices than there are.
    """
    accelerator = "cpu" if config.device == "cpu" else "auto"
    return devices_here(OmegaConf.create({"devices": config.devices, "accelerator": accelerator}))


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
    rank_zero_only.rank = rank  # the first one speaks for all
    distributed.init_process_group("gloo", rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _place(devices: int) -> tuple[int, int, int]:
    """Return this process's number, how many there are, and its number on this machine."""
    if TorchElasticEnvironment.detect():
        elastic = TorchElasticEnvironment()
        return elastic.global_rank(), elastic.world_size(), elastic.local_rank()
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and SLURMEnvironment.detect():
        slurm = SLURMEnvironment()
        os.environ |= {"MASTER_ADDR": slurm.main_address, "MASTER_PORT": str(slurm.main_port)}
        return slurm.global_rank(), slurm.world_size(), slurm.local_rank()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return local, devices if "LOCAL_RANK" in os.environ else 1, local
