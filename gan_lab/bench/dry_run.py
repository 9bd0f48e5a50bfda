"""A dry run of training: the cost of its most expensive steps, an evaluation and a grid, and of the whole run."""

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import IO, Any, cast

import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gan_lab.bench.steps import (
    GIB,
    Cost,
    Costs,
    MemoryPeak,
    Meter,
    Phases,
    Stopwatch,
    times_per_step,
)
from gan_lab.data.datamodule import DataModule
from gan_lab.layers.resolutions import grows
from gan_lab.metrics.base import Metrics
from gan_lab.metrics.sources import GanImages
from gan_lab.sampling.gan import Gan
from gan_lab.training.module import AdversarialModule

LOADED_BATCHES = 20  # batches, at most, to measure the loader


@dataclass(kw_only=True)
class Found:
    """Results of the dry run in one process.

    Attributes:
        phases: costs of each phase of a training step, at several moments until the end of training.
        step_seconds: of a whole training step at each moment, lazy penalties weighted by their frequency.
        step_gib: peak memory of steps with every lazy penalty due.
        evaluation_gib: likewise during an evaluation and a grid.
        memory_kind: what was measured.
        loading_seconds: to read the images of a training step.
        ahead: whether worker processes read them in advance.
        evaluation_seconds: of one evaluation, without preparation.
        preparation_seconds: of the preparation before the first evaluation.
        grid_seconds: of one grid of samples.
        checkpoint_bytes: of one checkpoint.
    """

    phases: list[Costs] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    step_gib: float = 0.0
    evaluation_gib: float = 0.0
    memory_kind: str = ""
    loading_seconds: float = 0.0
    ahead: bool = False
    evaluation_seconds: float = 0.0
    preparation_seconds: float = 0.0
    grid_seconds: float = 0.0
    checkpoint_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Seconds of a training step and of reading its images, the mean over the moments."""
        step = mean(self.step_seconds)
        return max(step, self.loading_seconds) if self.ahead else step + self.loading_seconds


class CheckpointSize(TorchCheckpointIO):
    """Measures the size of checkpoints without writing them.

    Attributes:
        written: bytes of the last one.
    """

    written: int = 0

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Count a checkpoint's bytes."""
        sink = Counting()
        torch.save(checkpoint, cast(IO[bytes], sink))
        self.written = sink.written


class Counting(io.RawIOBase):
    """A file that counts bytes and discards them.

    Attributes:
        written: bytes.
    """

    def __init__(self) -> None:
        self.written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.written += size
        return size


class DryRun(Callback):
    """Replaces training by its most expensive steps, on the first batch; nothing is saved.

    Attributes:
        found: the results.

    Args:
        metrics: of an evaluation; None for none.
        seed: of its samples.
        draw_grid: draws a grid of samples of a module; None for none.
        sizes: counts the bytes of checkpoints, as the Trainer's plugin.
        begin: real images shown so far.
        rounds: measured steps at each moment, after one to warm up.
    """

    def __init__(
        self,
        *,
        metrics: Metrics | None,
        seed: int,
        draw_grid: Callable[[AdversarialModule], object] | None,
        sizes: CheckpointSize,
        begin: int,
        rounds: int = 2,
    ) -> None:
        self.metrics = metrics
        self.seed = seed
        self.draw_grid = draw_grid
        self.sizes = sizes
        self.begin = begin
        self.rounds = rounds
        self.found = Found()

    def setup(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:  # type: ignore[override]
        """Prepare the evaluation, as training does before its first step."""
        if self.metrics is not None:
            begin = time.perf_counter()
            self.metrics.prepare(data_of(trainer))
            self.found.preparation_seconds = time.perf_counter() - begin

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Run all measurements in place of the first training step."""
        step = module.training_step
        meter = Meter(module.device)
        phases = Phases(module, meter)

        def steps(batch: Any, batch_idx: int) -> None:
            memory = MemoryPeak(module.device)
            for moment in moments(module, self.begin):
                costs = []
                for _ in range(1 + self.rounds):
                    at_full_cost(module, moment)
                    phases.start_step()
                    step(batch, batch_idx)
                    costs.append(phases.end_step())
                self._note(module, costs[1:])
            self.found.step_gib, self.found.memory_kind = memory.gib(), memory.kind

        module.training_step = steps  # type: ignore[method-assign]

    def _note(self, module: AdversarialModule, costs: list[Costs]) -> None:
        phases = {name: Cost(median(c[name].seconds for c in costs)) for name in costs[0]}
        self.found.phases.append(phases)
        whole = sum(cost.seconds * times_per_step(name, module) for name, cost in phases.items())
        self.found.step_seconds.append(whole)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate, draw a grid, count a checkpoint's bytes, read some images, and stop."""
        memory, clock = MemoryPeak(module.device), Stopwatch(module.device)
        module.synchronize()
        if self.metrics is not None:
            gan = Gan(
                module.generator_ema,
                spec=data_of(trainer).spec,
                sources=data_of(trainer).sources,
            )
            clock.start()
            self.metrics.compute(GanImages(gan, seed=self.seed))
            self.found.evaluation_seconds = clock.stop()
        if self.draw_grid is not None and trainer.is_global_zero:
            clock.start()
            self.draw_grid(module)
            self.found.grid_seconds = clock.stop()
        self.found.evaluation_gib = memory.gib()
        trainer.save_checkpoint("nowhere")
        self.found.checkpoint_bytes = self.sizes.written
        self.found.loading_seconds, self.found.ahead = loading(data_of(trainer))
        trainer.should_stop = True


def data_of(trainer: Trainer) -> DataModule:
    """Return the data that a Trainer was given."""
    data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data


def moments(module: AdversarialModule, begin: int) -> list[int]:
    """Return the images shown before the steps to measure, from `begin` to the last step of training.

    Schedules are met at both ends; networks that grow also in between.
    """
    last = max(module.total_images - module.batch_size * module.d_steps, begin)
    parts = 8 if grows(module) else 1
    return [begin + (last - begin) * i // parts for i in range(parts + 1)]


def at_full_cost(module: AdversarialModule, images_seen: int) -> None:
    """Set the clock to a moment with every lazy penalty due and augmentations at full strength."""
    module.images_seen = images_seen
    for player in module.players.values():
        player.steps_taken = 0
    module.augmentations.strengthen()


def loading(data: DataModule) -> tuple[float, bool]:
    """Return seconds to load the images of a training step, and whether worker processes load them.

    Prefetched batches are not counted.
    """
    assert data.trainer is not None and data.trainer.lightning_module is not None
    data.trainer.lightning_module.images_seen = 0  # type: ignore[assignment]
    loader = data.train_dataloader()
    ahead = loader.num_workers * (loader.prefetch_factor or 0)
    batches = iter(loader)
    first = len(list(islice(batches, ahead + 1)))
    begin = time.perf_counter()
    read = len(list(islice(batches, LOADED_BATCHES)))
    taken = time.perf_counter() - begin
    return (taken / read if first and read else 0.0), ahead > 0


def device_gib(device: torch.device) -> float:
    """Return a device's memory in GiB; for a CPU the machine's, or this process's limit."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / GIB
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    given = limit.read_text().strip() if limit.exists() else "max"
    return min(whole, int(given) if given.isdigit() else whole) / GIB


def times_due(begin: int, end: int, every_kimg: float) -> int:
    """Return how often an action every `every_kimg` (and at the end) happens from `begin` to `end`."""
    every = every_kimg * 1000
    whole = int(end // every - begin // every)
    return whole + (1 if end % every and end > begin else 0)
