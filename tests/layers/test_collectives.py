"""Running means of two processes with half a batch each equal those of one process."""

import multiprocessing
from pathlib import Path

import torch
from torch import Tensor
from torch.testing import assert_close

from gan_lab.models.stylegan3 import Generator


def state(z: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = Generator(
        image_size=16,
        channels=1,
        z_dim=4,
        w_dim=4,
        channel_base=16,
        channel_max=2,
        num_layers=3,
        margin=2,
    )
    network(z)
    return {
        name: value
        for name, value in network.state_dict().items()
        if "w_avg" in name or "magnitude" in name
    }


def one_rank(rank: int, z: Tensor, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    torch.save(state(z[rank * 2 : rank * 2 + 2]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_running_means_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    z = torch.randn(4, 4)
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=one_rank, args=(rank, z, tmp_path)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    alone = state(z)
    assert len(alone) == 5
    for rank in (0, 1):
        shared = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in alone.items():
            assert_close(shared[name], value, msg=name)
