"""gan-lab bench parts=[ranks]: images a second of several processes against one with as many threads."""

import os
from collections.abc import Mapping
from multiprocessing.queues import SimpleQueue
from statistics import median
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from gan_lab.benchmarks.clock import Stopwatch
from gan_lab.config import resolved
from gan_lab.console import say
from gan_lab.data.sampler import check_batch
from gan_lab.distributed.processes import devices_here, free_port
from gan_lab.training.building import (
    bare_trainer,
    build_data,
    build_model,
    compiled,
    quiet,
    sample_spec,
)
from gan_lab.training.module import AdversarialModule

Way = tuple[int, int]  # processes, threads of each

WARM = 0.25  # of the images, which are not measured


class Rate(Callback):
    """Measures images a second of all but the first steps.

    Attributes:
        img_per_s: over all processes.
    """

    img_per_s: float = 0.0

    def __init__(self) -> None:
        self._clock: Stopwatch | None = None
        self._begin = 0

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start after the first steps, and read at the end."""
        if self._clock is None and module.images_seen >= WARM * module.total_images:
            self._clock, self._begin = Stopwatch(module.device), module.images_seen
            self._clock.start()
        elif module.finished and self._clock is not None:
            self.img_per_s = (module.images_seen - self._begin) / self._clock.stop()


def compare_ranks(config: DictConfig, *, ranks: int, rounds: int) -> dict[str, float]:
    """Train in different ways in turn; return medians over the rounds.

    Args:
        config: of `gan-lab bench`; `total_kimg` is the length of each training.
        ranks: processes, and threads of the one process on a CPU.
        rounds: of all ways.

    Returns:
        Images a second by "processes x threads", and the medians of what ways gain over others within a round.

    Raises:
        InputError: when there are not as many devices, or they cannot share a batch.
    """
    wanted = OmegaConf.merge(config.trainer, {"devices": ranks})
    assert isinstance(wanted, DictConfig)
    devices_here(wanted)
    check_batch(batch_size=config.batch_size, batches=config.d_steps, world_size=ranks)
    on_cpu = config.trainer.accelerator == "cpu" or not torch.accelerator.is_available()
    ways = [(1, 1), (ranks, 1), *([(1, ranks)] if on_cpu else [])]
    say(f"ranks: {rounds} rounds of {' '.join(map(named, ways))} processes x threads in turn")
    made = [{way: rate(config, way) for way in ways} for _ in range(rounds)]
    found = {f"{named(way)}_img_per_s": median(r[way] for r in made) for way in ways}
    for other in ways:
        if other != (ranks, 1):
            gain = median(r[ranks, 1] / r[other] for r in made)
            found[f"{named((ranks, 1))}_over_{named(other)}"] = gain
    return found


def named(way: Way) -> str:
    """Return "2x1" for two processes of one thread."""
    return f"{way[0]}x{way[1]}"


def rate(config: DictConfig, way: Way) -> float:
    """Return images a second of one training, in processes that begin and end with it."""
    queue: SimpleQueue[float] = get_context("spawn").SimpleQueue()
    container = OmegaConf.to_container(resolved(config))
    start_processes(
        work, args=(container, way, free_port(), queue), nprocs=way[0], start_method="spawn"
    )
    return queue.get()


def work(
    rank: int, container: Mapping[str, Any], way: Way, port: int, queue: "SimpleQueue[float]"
) -> None:
    """Be one of the processes."""
    processes, threads = way
    if processes > 1:
        os.environ |= {
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
    quiet()
    torch.set_num_threads(threads)
    config = OmegaConf.create(dict(container))
    config.trainer.devices = processes
    measured = Rate()
    trainer = bare_trainer(config, callbacks=[measured])
    data = build_data(config)
    module = build_model(config, sample_spec(config, data))
    compiled(config, module, trainer.strategy.root_device)
    trainer.fit(module, datamodule=data)
    if rank == 0:
        queue.put(measured.img_per_s)
