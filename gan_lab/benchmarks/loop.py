"""What the training framework costs: the loop in a Trainer against a plain PyTorch loop on the same networks."""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from lightning import Trainer
from torch import Tensor

from gan_lab.benchmarks.clock import Stopwatch
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.images import to_float
from gan_lab.layers.networks import DiscriminatorNetwork
from gan_lab.training.module import AdversarialModule
from gan_lab.training.regularizers.base import DiscriminatorStep

HOOKS = ("prepare_step", "sample_latents", "fake", "real", "view", "judge", "generator_loss")


def beyond_plain(module: AdversarialModule, precision: str) -> list[str]:
    """Return what a module has that the plain loop leaves out; where there is anything, the two do not compare."""
    beyond = [
        f"{'lazy ' if r.interval > 1 else ''}{name}"
        for name, r in module._regularizers.items()
        if r.interval > 1 or r.player == "generator"
    ]
    beyond += module._augmentations
    kind = type(module)
    beyond += [f"{kind.__name__}.{n}" for n in HOOKS if n in vars(kind)]
    if type(module.discriminator).judge is not DiscriminatorNetwork.judge:
        beyond.append("a classifying discriminator")
    conditions = {
        "schedules": bool(module.settings.schedules),
        "micro-batches": module.micro_batch_size != module.batch_size,
        "clipping": any(module.clip_norm.values()),
        f"precision {precision}": precision not in ("32", "32-true"),
    }
    return beyond + [name for name, met in conditions.items() if met]


def compare(
    make_module: Callable[[], AdversarialModule],
    make_trainer: Callable[[], Trainer],
    data: ImageDataModule,
    *,
    rounds: int,
) -> dict[str, float]:
    """Run both loops to the end of the data in turn, with one round to warm up; return medians and their ratio.

    Args:
        make_module: gives a fresh module, on the device for the plain loop already or not.
        make_trainer: gives a fresh Trainer of one epoch.
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


def trainer_rate(module: AdversarialModule, trainer: Trainer, data: ImageDataModule) -> float:
    """Return images a second of the loop in the Trainer."""
    clock = Stopwatch(trainer.strategy.root_device)
    module.on_train_start = clock.start  # type: ignore[method-assign]
    trainer.fit(module, datamodule=data)
    return module.images_seen / clock.stop()


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


def given(images: Tensor) -> Tensor:
    """Return what is there already."""
    return images


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
        z = torch.randn(len(real), g.z_dim, device=real.device)
        with torch.no_grad():
            fake = g(z, y_part)
        if any(r.needs_input_gradient for r in penalties):
            real, fake = real.detach().requires_grad_(), fake.requires_grad_()
        step = DiscriminatorStep(d, d.judge, real, partial(given, fake), y_part, z=z, generate=g)
        total = loss.discriminator(step.real_logits, step.fake_logits).mean()
        for r in penalties:
            total = total + r.weight * r(step).mean()
        d_optimizer.zero_grad()
        total.backward()
        d_optimizer.step()
        for r in module._regularizers.values():
            r.after_step(d)
    d.requires_grad_(False)
    fake_logits = d(g(torch.randn(len(real), g.z_dim, device=real.device), y_part), y_part)
    with torch.no_grad():
        real_logits = d(real, y_part) if loss.paired else None
    g_optimizer.zero_grad()
    loss.generator(fake_logits, real_logits).mean().backward()
    g_optimizer.step()
    d.requires_grad_(True)
    module.ema.update(module.generator_ema, g, images_seen=len(images), images=len(images))
