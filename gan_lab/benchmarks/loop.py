"""What the training framework costs: the loop in a Trainer against a plain PyTorch loop on the same networks."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch
from lightning import Trainer
from torch import Tensor

from gan_lab.benchmarks.clock import Stopwatch
from gan_lab.data.datamodule import DataModule
from gan_lab.data.sample import Batch
from gan_lab.layers.networks import DiscriminatorNetwork, DiscriminatorOutput
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
    """Return what a module has that the plain loop leaves out; where there is anything, the two do not compare."""
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
    for batch in loader:
        on_device = data.on_after_batch_transfer(batch.to(device), 0)
        plain_step(module, on_device, *optimizers)
        shown += len(on_device)
    return shown / clock.stop()


def plain_view(
    module: AdversarialModule, batch: Batch, y: Tensor | None, z: Tensor, fake: Tensor
) -> DiscriminatorStep:
    """Return what penalties ask for, without hooks."""
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
    """Take D steps and a G step as one would write them by hand."""
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
