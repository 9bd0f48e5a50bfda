"""Images per second: the Trainer against a plain loop, the data loader, an evaluation, several processes."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from statistics import median
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from gan_lab.bench.steps import Stopwatch
from gan_lab.config import resolved
from gan_lab.console import say
from gan_lab.data.datamodule import DataModule, check_batch
from gan_lab.data.sample import Batch
from gan_lab.distributed.processes import devices_here, free_port
from gan_lab.layers.networks import DiscriminatorNetwork, DiscriminatorOutput
from gan_lab.metrics.base import Metrics
from gan_lab.metrics.sources import GanImages
from gan_lab.sampling.gan import Gan
from gan_lab.training.building import (
    bare_trainer,
    build_data,
    build_model,
    compiled,
    quiet,
    sample_spec,
)
from gan_lab.training.module import AdversarialModule
from gan_lab.training.steps import DiscriminatorStep

HOOKS = (
    "prepare_step",
    "sample_latents",
    "fake",
    "real",
    "augment",
    "discriminate",
    "generator_loss",
)


def beyond_plain(module: AdversarialModule, precision: str) -> list[str]:
    """Return the features of a module that the plain loop lacks; with any, the two are not comparable."""
    beyond = [
        f"{'lazy ' if r.interval > 1 else ''}{name}"
        for player in module.players.values()
        for name, r in player.regularizers.items()
        if r.interval > 1 or r.player == "generator"
    ]
    beyond += module.augmentations
    kind = type(module)
    beyond += [f"{kind.__name__}.{n}" for n in HOOKS if n in vars(kind)]
    if type(module.discriminator).discriminate is not DiscriminatorNetwork.discriminate:
        beyond.append("a discriminator with further losses")
    conditions = {
        "schedules": bool(module.scheduled.schedules),
        "micro-batches": module.micro_batch_size != module.batch_size,
        "clipping": any(player.clip_norm for player in module.players.values()),
        f"precision {precision}": precision not in ("32", "32-true"),
    }
    return beyond + [name for name, met in conditions.items() if met]


def compare(
    make_module: Callable[[], AdversarialModule],
    make_trainer: Callable[[], Trainer],
    data: DataModule,
    *,
    rounds: int,
) -> dict[str, float]:
    """Run both loops to the end of the data in turn, with one round to warm up; return medians and their ratio.

    Args:
        make_module: gives a new module, on the device for the plain loop already or not.
        make_trainer: gives a new Trainer of one epoch.
        data: what both train on.
        rounds: of the two.
    """
    device = make_trainer().strategy.root_device
    module = make_module().to(device)
    pairs = [
        (trainer_rate(make_module(), make_trainer(), data), plain_rate(module, data, device))
        for _ in range(rounds + 1)
    ][1:]
    return {
        "plain_img_per_s": median(plain for _, plain in pairs),
        "lightning_img_per_s": median(ours for ours, _ in pairs),
        "time_lightning_over_plain": median(plain / ours for ours, plain in pairs),
    }


def trainer_rate(module: AdversarialModule, trainer: Trainer, data: DataModule) -> float:
    """Return images a second of the loop in the Trainer."""
    clock = Stopwatch(trainer.strategy.root_device)
    module.on_train_start = clock.start  # type: ignore[method-assign]
    trainer.fit(module, datamodule=data)
    return module.images_seen / clock.stop()


def plain_rate(module: AdversarialModule, data: DataModule, device: torch.device) -> float:
    """Return images a second of the same steps in a loop without a framework."""
    optimizers = [player.build_optimizer() for player in module.players.values()]
    data.trainer = None
    loader = data.train_dataloader()
    clock = Stopwatch(device)
    clock.start()
    shown = 0
    for stored in loader:
        batch = data.on_after_batch_transfer(stored.to(device), 0)
        plain_step(module, batch, *optimizers)
        shown += len(batch)
    return shown / clock.stop()


def plain_view(
    module: AdversarialModule, batch: Batch, y: Tensor | None, z: Tensor, fake: Tensor
) -> DiscriminatorStep:
    """Return the step that penalties see, without hooks."""
    d = module.discriminator
    penalties = module.players["discriminator"].penalties().values()
    if any(r.differentiates_fake for r in penalties):
        fake = fake.requires_grad_()
    if any(r.differentiates_real for r in penalties):
        batch = replace(batch, real=batch.real.detach().requires_grad_())
    return DiscriminatorStep(
        network=d,
        batch=batch,
        real=batch.real,
        make_fake=lambda: fake,
        z=z,
        generate=lambda z: module.generator(z, y),
        discriminate=lambda x, role: DiscriminatorOutput(d(x, y)),
    )


def plain_step(
    module: AdversarialModule,
    batch: Batch,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
) -> None:
    """Take D steps and a G step, written by hand."""
    g, d, loss = module.generator, module.discriminator, module.loss
    regularizers = module.players["discriminator"].regularizers.values()
    penalties = [r for r in regularizers if r.penalizes]
    for part in batch.split(len(batch) // module.d_steps):
        real, y = part.real, part.labels if module.conditional else None
        z = torch.randn(len(real), g.z_dim, device=real.device)
        with torch.no_grad():
            fake = g(z, y)
        step = plain_view(module, part, y, z, fake)
        total = loss.discriminator(step.real_logits, step.fake_logits).mean()
        for r in penalties:
            total = total + r.weight * r(step).mean()
        d_optimizer.zero_grad()
        total.backward()
        d_optimizer.step()
        for r in regularizers:
            r.after_step(d)
    d.requires_grad_(False)
    fake_logits = d(g(torch.randn(len(real), g.z_dim, device=real.device), y), y)
    with torch.no_grad():
        real_logits = d(real, y) if loss.paired else None
    g_optimizer.zero_grad()
    loss.generator(fake_logits, real_logits).mean().backward()
    g_optimizer.step()
    d.requires_grad_(True)
    module.ema.update(module.generator_ema, g, images_seen=len(batch), images=len(batch))


def data_rate(data: DataModule) -> float:
    """Return images a second of the loader alone."""
    data.trainer = None
    begin = time.perf_counter()
    shown = sum(len(batch) for batch in data.train_dataloader())
    return shown / (time.perf_counter() - begin)


class TimedImages(GanImages):
    """Generated images that count themselves and their time.

    Attributes:
        drawn: images so far.
        seconds: that they took.
    """

    drawn = 0
    seconds = 0.0

    def read(self, start: int, stop: int) -> Tensor:
        clock = Stopwatch(self.gan.device)
        clock.start()
        images = super().read(start, stop)
        self.seconds += clock.stop()
        self.drawn += len(images)
        return images


def metric_rates(metrics: Metrics, data: DataModule, gan: Gan) -> dict[str, float]:
    """Return images a second of an evaluation, with the generator's work and without; empty without metrics."""
    metrics.prepare(data)
    images = TimedImages(gan, seed=0)
    images.drawn, images.seconds = 0, 0.0
    clock = Stopwatch(gan.device)
    clock.start()
    metrics.compute(images)
    whole = clock.stop()
    if not images.drawn:
        return {}
    return {
        "sampling_and_metrics_img_per_s": images.drawn / whole,
        "metrics_img_per_s": images.drawn / (whole - images.seconds),
    }


Layout = tuple[int, int]  # processes, threads of each

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
    """Train with different numbers of processes in turn; return medians over the rounds.

    Args:
        config: of `gan-lab bench`; `total_kimg` is the length of each training.
        ranks: processes, and threads of the one process on a CPU.
        rounds: of each.

    Returns:
        Images a second by "processes x threads", and the median speed-ups within a round.

    Raises:
        InputError: when there are fewer devices, or they cannot share a batch.
    """
    wanted = OmegaConf.merge(config.trainer, {"devices": ranks})
    assert isinstance(wanted, DictConfig)
    devices_here(wanted)
    check_batch(batch_size=config.batch_size, batches=config.d_steps, world_size=ranks)
    on_cpu = config.trainer.accelerator == "cpu" or not torch.accelerator.is_available()
    layouts = [(1, 1), (ranks, 1), *([(1, ranks)] if on_cpu else [])]
    say(
        f"ranks: {rounds} rounds of {' '.join(map(process_label, layouts))} processes x threads in turn"
    )
    made = [{layout: rate(config, layout) for layout in layouts} for _ in range(rounds)]
    found = {
        f"{process_label(layout)}_img_per_s": median(r[layout] for r in made) for layout in layouts
    }
    for other in layouts:
        if other != (ranks, 1):
            gain = median(r[ranks, 1] / r[other] for r in made)
            found[f"{process_label((ranks, 1))}_over_{process_label(other)}"] = gain
    return found


def process_label(layout: Layout) -> str:
    """Return "2x1" for two processes of one thread."""
    return f"{layout[0]}x{layout[1]}"


def rate(config: DictConfig, layout: Layout) -> float:
    """Return images a second of one training, in processes that begin and end with it."""
    queue: SimpleQueue[float] = get_context("spawn").SimpleQueue()
    container = OmegaConf.to_container(resolved(config))
    start_processes(
        work, args=(container, layout, free_port(), queue), nprocs=layout[0], start_method="spawn"
    )
    return queue.get()


def work(
    rank: int, container: Mapping[str, Any], layout: Layout, port: int, queue: "SimpleQueue[float]"
) -> None:
    """Entry point of a worker process."""
    processes, threads = layout
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
