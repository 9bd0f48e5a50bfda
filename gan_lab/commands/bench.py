"""gan-lab bench: speed in ratios within one run, so that they hold on any machine.

Three questions: what the training framework costs beside a plain PyTorch loop on the same networks, how much faster the
data come than they are consumed, and what measuring costs.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning import Trainer
from omegaconf import DictConfig
from rich.table import Table
from torch import Tensor

from gan_lab.commands.evaluate import write
from gan_lab.commands.generate import pick_device
from gan_lab.commands.train import build_data, build_model, describe_images, quiet
from gan_lab.config import build
from gan_lab.console import say
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.errors import InputError
from gan_lab.images import to_float
from gan_lab.models.adversarial import AdversarialModule
from gan_lab.regularizers.base import DiscriminatorStep
from gan_lab.sampling import Gan


def run(config: DictConfig) -> None:
    """Measure, print a table and write `out` where it is given.

    Raises:
        InputError: for what cannot be trained, and for regularizers that the plain loop does not have.
    """
    quiet()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    data = build_data(config)
    describe_images(config, data)
    module = build_model(config).to(device)
    check_plain(module)
    steps = config.total_kimg * 1000 / (config.batch_size * config.d_steps)
    say(
        f"{config.rounds} rounds of {steps:g} steps in turn, on {device}, {torch.get_num_threads()} threads"
    )
    pairs = [
        (lightning_rate(config, data, device), plain_rate(module, data, device))
        for _ in range(config.rounds + 1)
    ][1:]  # the first round warms up
    training, loading = statistics.median(ours for ours, _ in pairs), data_rate(data)
    result: dict[str, object] = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "plain_img_per_s": statistics.median(plain for _, plain in pairs),
        "lightning_img_per_s": training,
        "time_lightning_over_plain": statistics.median(plain / ours for ours, plain in pairs),
        "data_img_per_s": loading,
        "data_over_training": loading / training,
    }
    result |= metric_rate(config, data, module)
    if device.type == "cuda":
        result["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    say(as_table(result))
    if config.out:
        write(result, Path(config.out))


def check_plain(module: AdversarialModule) -> None:
    """Refuse what the plain loop leaves out.

    Raises:
        InputError: naming it.
    """
    beyond = [
        name
        for name, r in module._regularizers.items()
        if r.interval > 1 or r.player == "generator"
    ]
    beyond += module._augmentations
    if beyond or module.settings.schedules or module.micro_batch_size != module.batch_size:
        raise InputError(
            f"bench compares with a plain loop, which has no {', '.join(beyond) or 'schedules or micro-batches'}; "
            "leave these out"
        )


def lightning_rate(config: DictConfig, data: ImageDataModule, device: torch.device) -> float:
    """Return images a second of the loop in the Trainer, a fresh model each time."""
    module = build_model(config)
    trainer = Trainer(
        accelerator=device.type,
        devices=1,
        max_epochs=1,
        logger=False,
        callbacks=[build(config.callbacks.report)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    clock = Stopwatch(device)
    module.on_train_start = clock.start  # type: ignore[method-assign]
    trainer.fit(module, datamodule=data)
    return module.images_seen / clock.stop()


class Stopwatch:
    """Seconds, with the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin = 0.0

    def start(self) -> None:
        """Begin."""
        self._wait()
        self.begin = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since `start`."""
        self._wait()
        return time.perf_counter() - self.begin

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def plain_rate(module: AdversarialModule, data: ImageDataModule, device: torch.device) -> float:
    """Return images a second of the same steps in a loop without a framework."""
    players = (module.generator, module.discriminator)
    factories = module._factories
    optimizers = [
        factories[n](p.parameters())
        for n, p in zip(("generator", "discriminator"), players, strict=True)
    ]
    data.trainer = None
    loader = data.train_dataloader()
    clock = Stopwatch(device)
    clock.start()
    shown = 0
    for images, labels in loader:
        plain_step(module, to_float(images.to(device)), labels.to(device), *optimizers)
        shown += len(images)
    return shown / clock.stop()


def plain_step(
    module: AdversarialModule,
    images: Tensor,
    labels: Tensor,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
) -> None:
    """Take D steps and a G step as one would write them by hand."""
    g, d, loss = module.generator, module.discriminator, module.loss
    penalties = [r for r in module._regularizers.values() if r.penalizes]
    y = labels if module.conditional else None
    for part, real in enumerate(images.chunk(module.d_steps)):
        y_part = None if y is None else y.chunk(module.d_steps)[part]
        z = torch.randn(len(real), g.latent_dim, device=real.device)
        with torch.no_grad():
            fake = g(z, y_part)
        if any(r.needs_input_gradient for r in penalties):
            real, fake = real.detach().requires_grad_(), fake.requires_grad_()
        step = DiscriminatorStep(d, d.judge, real, fake, y_part, z=z, generate=g)
        total = loss.discriminator(step.real_logits, step.fake_logits).mean()
        for r in penalties:
            total = total + r.weight * r(step).mean()
        d_optimizer.zero_grad()
        total.backward()
        d_optimizer.step()
        for r in module._regularizers.values():
            r.after_step(d)
    d.requires_grad_(False)
    fake_logits = d(g(torch.randn(len(real), g.latent_dim, device=real.device), y_part), y_part)
    with torch.no_grad():
        real_logits = d(real, y_part) if loss.paired else None
    g_optimizer.zero_grad()
    loss.generator(fake_logits, real_logits).mean().backward()
    g_optimizer.step()
    d.requires_grad_(True)
    module.ema.update(module.generator_ema, g, images_seen=len(images), images=len(images))


def data_rate(data: ImageDataModule) -> float:
    """Return images a second of the loader alone."""
    data.trainer = None
    begin = time.perf_counter()
    shown = sum(len(images) for images, _ in data.train_dataloader())
    return shown / (time.perf_counter() - begin)


def metric_rate(
    config: DictConfig, data: ImageDataModule, module: AdversarialModule
) -> dict[str, float]:
    """Return images a second of an evaluation, with the generator's and without, empty without metrics."""
    metrics = build(config.metrics)
    metrics.prepare(data)
    gan = Gan(module.generator_ema, class_counts=data.class_counts)
    kept: list[tuple[Tensor, Tensor | None]] = []

    def drawn(count: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        kept.extend(gan.batches(count))
        return iter(kept)

    seconds = {}
    for name, source in (("sampling_and_metrics", drawn), ("metrics", lambda count: iter(kept))):
        seconds[name] = timed(metrics.compute, source)
    count = sum(len(images) for images, _ in kept)
    return {f"{name}_img_per_s": count / took for name, took in seconds.items()} if count else {}


def timed(function: Callable[..., object], *arguments: object) -> float:
    """Return the seconds of a call."""
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def as_table(result: dict[str, object]) -> Table:
    """Return the figures as a table."""
    table = Table(title="bench", title_justify="left", show_header=False)
    for name, value in result.items():
        table.add_row(
            name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)
        )
    return table
