"""Several processes are one run: two on the CPU against one, number for number."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import Trainer
from omegaconf import OmegaConf
from torch import Tensor
from torch.multiprocessing.spawn import start_processes
from torch.utils.data import DataLoader

import gan_lab.distributed.ranks as ranks_module
from gan_lab.config import build, conf_dir, register_resolvers
from gan_lab.data.sample import Batch
from gan_lab.distributed.processes import devices_here, free_port, processes, world_size
from gan_lab.distributed.ranks import (
    DelayedAllReduce,
    ManualDDPStrategy,
    RunningMeans,
    average_in_place,
)
from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.layers.equalized import MinibatchStddev
from gan_lab.seeding import derive_seed
from gan_lab.training import player
from gan_lab.training.building import describe_samples
from gan_lab.training.checks import CheckSameConfig, check_batch_per_process, check_trainer
from gan_lab.training.module import AdversarialModule
from tests.helpers.samples import images_of

STEPS, BATCH, PARTS = 20, 8, 2
SMALL = (
    "model=stylegan2", f"batch_size={BATCH}", "loss=nonsaturating", "regularizer=[r1_lazy,path_length]",
    "regularizer.r1.interval=4", "regularizer.path_length.shrink=1", "model.generator.style_mixing=0",
    "model.generator.z_dim=8", "model.generator.w_dim=8", "model.generator.mapping_layers=2",
    "model.generator.channel_base=64", "model.generator.channel_max=8", "model.discriminator.channel_base=64",
    "model.discriminator.channel_max=8", "model.discriminator.mbstd_group_size=0", "augment=ada",
    "augment.ada.pipe=noise", "augment.ada.speed_kimg=1", "+augment.ada.strengths.noise=0",
)  # fmt: skip


def share(whole: Tensor, rank: int, world: int) -> Tensor:
    """Return a rank's part of a batch such that micro-batch i of all ranks together is micro-batch i of one process."""
    parts = whole.unflatten(0, (PARTS, world, -1))
    return parts[:, rank].flatten(0, 1)


def pattern(shape: Any) -> Tensor:
    """Return "noise" that is the same for every image, so that the division of a batch does not move it."""
    shape = tuple(shape[0] if isinstance(shape[0], tuple) else shape)
    one = torch.Generator().manual_seed(0)
    return torch.empty(shape[1:], dtype=torch.float64).normal_(generator=one).expand(shape).clone()


def small(rank: int, world: int) -> AdversarialModule:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*SMALL, f"micro_batch_size={BATCH // PARTS // world}"])
    describe_samples(config, images_of([8, 8], channels=1, classes=0))
    torch.manual_seed(0)
    module: AdversarialModule = build(config.model, total_images=BATCH * STEPS)
    drawn = 0

    def latents(count: int) -> Tensor:
        nonlocal drawn
        drawn += 1
        generator = torch.Generator().manual_seed(derive_seed(drawn))
        return share(
            torch.empty(count * world, 8, dtype=torch.float64).normal_(generator=generator),
            rank,
            world,
        )

    module.sample_latents = latents  # type: ignore[method-assign]
    return module


def loader(rank: int, world: int) -> DataLoader[Any]:
    images = torch.empty(STEPS, BATCH, 1, 8, 8, dtype=torch.float64)
    images.uniform_(-1, 1, generator=torch.Generator().manual_seed(1))
    batches = [Batch(share(batch, rank, world)) for batch in images]
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]


def trained(rank: int, world: int) -> AdversarialModule:
    module = small(rank, world)
    trainer = Trainer(
        accelerator="cpu", devices=world, precision="64-true", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, strategy=ManualDDPStrategy() if world > 1 else "auto",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch, "randn", lambda *shape, **_: pattern(shape))
        monkeypatch.setattr(torch, "randn_like", lambda x, **_: pattern(x.shape))
        trainer.fit(module, loader(rank, world))
    module.synchronize()
    return module


def work(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    module = trained(rank, world)
    check_agreement(rank, world, module)
    metrics = module.stats.means()
    saved = {"state": module.state_dict(), "metrics": metrics, "clock": module.images_seen}
    torch.save(saved, Path(folder) / f"{rank}.pt")


def check_agreement(rank: int, world: int, module: AdversarialModule) -> None:
    """Checks within each of two processes."""
    assert float(mean_over_ranks(torch.tensor(float(rank)))) == 0.5
    pair = [torch.full((2, 3), float(rank)), torch.full((1,), 2.0 * rank, dtype=torch.float64)]
    average_in_place(pair)
    assert pair[0].eq(0.5).all() and pair[1].eq(1.0).all()
    agreement = DelayedAllReduce()
    said = [agreement(value * rank) for value in (0, 15, 0, 0)]
    assert said == [0, 0, 15, 0]
    means = RunningMeans()
    means.add("x", torch.arange(2.0) + 10 * rank)
    means.add("y", torch.full((1 + rank,), 3.0))
    expected = {"x": pytest.approx(5.5), "y": pytest.approx(3.0)}
    assert means.means() == expected
    again = RunningMeans()
    again.load_state_dict(means.state_dict())
    assert again.means() == expected
    straight, resumed = RunningMeans(), RunningMeans()
    for step in range(5):
        values = torch.rand(3, generator=torch.Generator().manual_seed(10 * step + rank))
        for some in (straight, resumed):
            some.add("x", values)
        state = resumed.state_dict()
        resumed = RunningMeans()
        resumed.load_state_dict(state)
    assert resumed.means() == straight.means()
    same = CheckSameConfig(config=OmegaConf.create({"model": {"width": 4 + rank}, "seed": 0}))
    with pytest.raises(InputError, match=r"model\.width is 4 and 5"):
        same.on_train_start(module.trainer, module)
    CheckSameConfig(config=OmegaConf.create({"seed": 0})).on_train_start(module.trainer, module)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    # forked: they have everything imported already
    start_processes(work, args=(2, free_port(), str(folder)), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_ranks_have_the_same_weights(ranks: list[dict[str, Any]]) -> None:
    first, second = (found["state"] for found in ranks)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert ranks[0]["metrics"] == ranks[1]["metrics"]


def test_two_ranks_are_one_process_with_twice_the_batch(
    ranks: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1, path length, accumulation, ADA's p, the running means: all to 1e-5 after 20 steps (in double precision)."""
    before = small(0, 1).state_dict()
    messages: list[int] = []
    monkeypatch.setattr(player, "average_gradients", lambda p: messages.append(1))
    module = trained(0, 1)
    # once for each of D's and G's steps and for each of R1's and path length's own, whatever the micro-batches
    assert len(messages) == 2 * STEPS + STEPS // 4 + STEPS // 4
    for name, value in module.state_dict().items():
        torch.testing.assert_close(
            ranks[0]["state"][name],
            value,
            rtol=1e-5,
            atol=1e-7,
            msg=lambda m, name=name: f"{name}: {m}",
        )
    assert ranks[0]["clock"] == module.images_seen == STEPS * BATCH
    assert ranks[0]["metrics"] == pytest.approx(module.stats.means(), rel=1e-5)
    assert float(module.state_dict()["regularizers.path_length.mean"]) > 0
    assert float(module.state_dict()["augmentations.ada.p"]) > 0
    moved = [not torch.equal(before[name].double(), v) for name, v in module.state_dict().items()]
    assert sum(moved) > len(moved) / 2


def test_bad_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    node = OmegaConf.create({"accelerator": "cpu", "devices": 3})
    assert devices_here(node) == 3
    for wrong in (0, "many", -3, [0, 1]):
        with pytest.raises(InputError, match=r"give a number, a list such as \[0,2\] of GPUs"):
            devices_here(OmegaConf.create({"accelerator": "cpu", "devices": wrong}))
    with pytest.raises(InputError, match=r"there are 4 CPU cores here; set trainer\.devices=4"):
        devices_here(OmegaConf.create({"accelerator": "cpu", "devices": 5}))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    gpus = {"accelerator": "gpu"}
    assert devices_here(OmegaConf.create(gpus | {"devices": "auto"})) == 2
    assert devices_here(OmegaConf.create(gpus | {"devices": [1]})) == 1
    for most in (3, [0, 2]):
        with pytest.raises(InputError, match=r"there are 2 devices here; set trainer\.devices=2"):
            devices_here(OmegaConf.create(gpus | {"devices": most}))


def test_strategies() -> None:
    for one in (None, "auto", "ddp"):
        check_trainer(OmegaConf.create({"strategy": one}))
    for other in ("fsdp", "deepspeed", "ddp_spawn"):
        with pytest.raises(InputError, match=rf"trainer\.strategy={other} .*trainer\.strategy=ddp"):
            check_trainer(OmegaConf.create({"strategy": other}))


@pytest.mark.parametrize(
    ("wanted", "here", "right"),
    [
        ("gpu", "cuda", True), ("gpu", "mps", True), ("mps", "mps", True), ("cuda", "cuda", True),
        ("mps", "cuda", False), ("cuda", "mps", False), ("gpu", None, False), ("mps", None, False),
        ("cpu", None, True), ("auto", None, True),
    ],
)  # fmt: skip
def test_accelerators(
    monkeypatch: pytest.MonkeyPatch, wanted: str, here: str | None, right: bool
) -> None:
    found = None if here is None else torch.device(here)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
    node = OmegaConf.create({"accelerator": wanted})
    if right:
        check_trainer(node)
    else:
        with pytest.raises(InputError, match=rf"accelerator={wanted}: this machine has none"):
            check_trainer(node)


def test_a_lost_process_is_distinguished_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = [
        RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.77.0.2]:4000"),
        RuntimeError("[gloo/unbound_buffer.cc:81] Timed out waiting 20000ms for recv operation"),
        torch.distributed.DistBackendError("the store is not there"),
    ]
    assert [ranks_module.lost_rank(error) for error in gone] == [None] * 3, "alone"
    monkeypatch.setattr(ranks_module, "several_ranks", lambda: True)
    monkeypatch.setattr(ranks_module, "get_rank", lambda: 1)
    monkeypatch.setattr(ranks_module, "get_world_size", lambda: 2)
    for error in gone:
        said = ranks_module.lost_rank(error)
        assert said is not None and "process 1 of 2" in said and str(error)[:30] in said
    for other in (RuntimeError("CUDA out of memory"), ValueError("Connection closed")):
        assert ranks_module.lost_rank(other) is None


def test_precisions() -> None:
    check_trainer(OmegaConf.create({"precision": "bf16-mixed"}))
    with pytest.raises(InputError, match=r"trainer\.precision=bf16-true .*32-true.*float32"):
        check_trainer(OmegaConf.create({"precision": "bf16-true"}))


@pytest.mark.parametrize(
    ("devices", "nodes", "right"),
    [(2, 3, True), ("auto", 3, True), ([0, 1], 3, True), (1, 3, False), (2, 1, False)],
)
def test_torchrun_and_the_configuration_agree(
    monkeypatch: pytest.MonkeyPatch, devices: Any, nodes: int, right: bool
) -> None:
    """Two processes on each of three machines, and the error."""
    for key, value in {
        "TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6", "LOCAL_RANK": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    node = OmegaConf.create({"accelerator": "cpu", "devices": devices, "num_nodes": nodes})
    if right:
        assert world_size(node) == 6
        assert {k: processes(timedelta(minutes=1))[k] for k in ("devices", "num_nodes")} == {
            "devices": 2, "num_nodes": 3,
        }  # fmt: skip
        return
    with pytest.raises(InputError, match=r"set trainer\.devices=2 trainer\.num_nodes=3"):
        world_size(node)


def test_batches_that_processes_cannot_divide() -> None:
    module = small(0, 1)
    check_batch_per_process(module, 2)
    module.micro_batch_size = 3
    with pytest.raises(InputError, match="batch_size=8 on 2 processes is 4 samples each"):
        check_batch_per_process(module, 2)


def test_a_division_that_would_change_what_images_are_compared_with() -> None:
    """StyleGAN's D compares groups of images: smaller groups would change training."""
    module = small(0, 1)
    module.discriminator.epilogue.mbstd = MinibatchStddev(group_size=4)  # type: ignore[union-attr]
    module.micro_batch_size = BATCH
    check_batch_per_process(module, 2)
    with pytest.raises(InputError, match=r"would compare 2 samples, not 4.*mbstd_group_size=2"):
        check_batch_per_process(module, 4)
    module.micro_batch_size = 2
    with pytest.raises(InputError, match="of which 2 pass through D at once"):
        check_batch_per_process(module, 1)


def test_batch_norm_of_single_images() -> None:
    module = small(0, 1)
    module.micro_batch_size = BATCH
    check_batch_per_process(module, BATCH)
    module.generator.norm = torch.nn.BatchNorm2d(1)  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"\(generator\.norm\) needs at least 2"):
        check_batch_per_process(module, BATCH)
    check_batch_per_process(module, BATCH, sync_batchnorm=True)


def test_gradients_of_a_player_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(ranks_module, "several_ranks", lambda: True)
    monkeypatch.setattr(ranks_module, "get_world_size", lambda: 2)
    monkeypatch.setattr(ranks_module, "all_reduce", lambda flat: sent.append(flat.numel()))
    module = small(0, 1).float()
    networks = module.generator, module.discriminator
    for network in networks:
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        ranks_module.average_gradients(network.parameters())
        assert all((p.grad == 0.5).all() for p in network.parameters() if p.grad is not None)
    assert sent == [sum(p.numel() for p in network.parameters()) for network in networks]
