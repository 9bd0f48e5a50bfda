"""Models whose training differs: two processes on the CPU against one, through the command, number for number."""

import os
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.multiprocessing.spawn import start_processes

from gan_lab.commands.launch import launch
from gan_lab.distributed.processes import free_port
from tests.helpers.as_one import drawn_alike
from tests.helpers.growing import TINY
from tests.helpers.resnets import SMALL
from tests.helpers.sounds import write_sines

ALL = (
    *("trainer=cpu", "trainer.precision=64-true", "metrics=none", "batch_size=8", "threads=1"),
    *("~callbacks.samples", "~callbacks.evaluation", "total_kimg=0.064"),
)
# groups of the minibatch standard deviation are others where a batch is divided
ALONE = "model.discriminator.mbstd_group_size=0"
STYLES = (
    *("model.generator.z_dim=8", "model.generator.w_dim=8"),
    *("model.generator.mapping_layers=2", "model.discriminator.channel_base=64"),
    "model.discriminator.channel_max=8",
)
MODELS = {
    # grows at the second, sixth and eighth of its steps, with two micro-batches on each process
    "progan": (
        *("model=progan", *TINY["progan"], ALONE, "micro_batch_size=2"),
        "regularizer=[r1,drift]",  # without interpolation at random places
    ),
    "stylegan3": (
        *("model=stylegan3", *STYLES, ALONE, "data.image_size=16", "regularizer=[r1_lazy]"),
        *("model.generator.num_layers=4", "model.generator.margin=4", "regularizer.r1.interval=2"),
        *("model.generator.channel_base=128", "model.generator.channel_max=8"),
    ),
    "biggan": ("model=biggan", *SMALL["biggan"], "d_steps=2", "trainer.sync_batchnorm=true"),
    "wavegan": (
        *("model=wavegan", "model.generator.width=2", "model.discriminator.width=2", "d_steps=2"),
        *("model.discriminator.phase_shuffle=0", "regularizer=[r1]"),
    ),
    "wgan_gp": (
        *("model=wgan_gp", "model.generator.width=4", "model.discriminator.width=4"),
        *("regularizer=[r1,orthogonal]", "trainer.sync_batchnorm=true"),
    ),
    "wgan_gp_text": (
        *("model=wgan_gp_text", "data.length=8", "regularizer=[r1,r2]", "d_steps=2"),
        *("model.generator.width=4", "model.discriminator.width=4"),
    ),
}

pytestmark = pytest.mark.slow


def train(name: str, folder: Path, *more: str) -> None:
    size = () if name == "wgan_gp_text" else ("data.image_size=8",)
    if name == "wavegan":
        size = ("data=audio", f"data.root={folder}/clips", "data.rate=8000", "data.length=128")
    overrides = [*ALL, *size, *MODELS[name], f"runs_dir={folder}", f"name={name}", *more]
    assert launch("train", overrides) == 0, name


def work(rank: int, port: int, folder: str) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    rank_zero_only.rank = rank
    with pytest.MonkeyPatch.context() as patch:
        drawn_alike(patch)
        for name in MODELS:
            train(name, Path(folder), "trainer.devices=2")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes."""
    folder = write_sines(tmp_path_factory.mktemp("both") / "clips").parent
    start_processes(work, args=(free_port(), str(folder)), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_are_one_process(
    name: str, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_alike(monkeypatch)
    train(name, write_sines(tmp_path / "clips").parent)
    ours, theirs = (
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (both, tmp_path)
    )
    assert ours["clock"]["images_seen"] == theirs["clock"]["images_seen"] >= 64
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=1e-5, atol=1e-7)
