"""Adversarial training: the training loop of all architectures."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from gan_lab.data.sample import Batch
from gan_lab.distributed.ranks import RunningMeans, average_buffers
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
)
from gan_lab.layers.precision import full_precision
from gan_lab.layers.spectral_norm import normalize_discriminator
from gan_lab.seeding import seed_step
from gan_lab.training.augment import Augmentation, Augmentations
from gan_lab.training.checks import check_batch_sizes
from gan_lab.training.ema import ExponentialMovingAverage
from gan_lab.training.losses import Loss, mean_per_sample
from gan_lab.training.player import OptimizerFactory, ParameterGroups, Player, build_players, frozen
from gan_lab.training.regularizers import Regularizer
from gan_lab.training.schedules import ScheduledParameters
from gan_lab.training.steps import DiscriminatorStep, GeneratorStep


class AdversarialModule(LightningModule):
    """Alternating training of a generator and a discriminator by manual optimization.

    One training step takes `d_steps` batches of real samples: a D step on each, then one G step, then the moving
    average. Everything random in it follows from (seed, rank, images seen), so nothing random needs saving.

    An architecture overrides hooks, the methods from `prepare_step` to `generator_loss`, and never `training_step`.

    Attributes:
        players: "generator" and "discriminator".
        images_seen: real samples shown to D by all ranks: the clock of everything.
        stats: running means of losses, penalties and logits since they were last taken.
        step_ended: end of the last training step, callbacks included, by `time.perf_counter`.
        measure_gradients: set to True to have the next step's gradient norms in `stats`.
        has_encoder: whether D's real input depends on the generator's network, so that G's step needs real logits.

    Args:
        generator: `(z [N, Z], labels) -> samples [N, ...]`.
        discriminator: `(samples, labels) -> logits [N]`, or [N, K].
        loss: of both players.
        regularizers: by name, of both players.
        augmentations: by name, in the order in which they are applied to D's input.
        generator_optimizer: maps parameter groups to the optimizer; likewise D's `discriminator_...`.
        ema: how the generator's moving average is kept.
        schedules: nested by path -> schedule, of the players, "ema", "loss", and regularizers and augmentations by
            name; see `gan_lab.training.schedules.ScheduledParameters`.
        batch_size: real samples of a D step over all ranks.
        total_images: length of training.
        d_steps: D steps before each G step.
        micro_batch_size: samples of one backward on one rank (gradient accumulation); None for the whole batch.
        generator_clip_norm: largest L2 norm of G's gradient, None for no limit.
        generator_parameters: which of G's parameters its optimizer treats differently.
        discriminator_spectral_norm: whether to apply spectral norm to all of D's weights that do not have it yet.
        seed: of all randomness.

    Raises:
        InputError: for inconsistent arguments.
    """

    has_encoder: bool = False

    def __init__(
        self,
        *,
        generator: GeneratorNetwork,
        discriminator: DiscriminatorNetwork,
        loss: Loss,
        regularizers: Mapping[str, Regularizer],
        generator_optimizer: OptimizerFactory,
        discriminator_optimizer: OptimizerFactory,
        ema: ExponentialMovingAverage,
        batch_size: int,
        total_images: int,
        augmentations: Mapping[str, Augmentation] | None = None,
        schedules: Mapping[str, Any] | None = None,
        d_steps: int = 1,
        micro_batch_size: int | None = None,
        generator_clip_norm: float | None = None,
        discriminator_clip_norm: float | None = None,
        generator_parameters: ParameterGroups | None = None,
        discriminator_parameters: ParameterGroups | None = None,
        discriminator_spectral_norm: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if discriminator_spectral_norm:
            normalize_discriminator(discriminator)
        self.generator: GeneratorNetwork = generator
        self.discriminator = discriminator
        self.generator_ema: GeneratorNetwork = deepcopy(generator).requires_grad_(False).eval()
        self.loss = loss
        self.regularizers = nn.ModuleDict(dict(regularizers))
        self.augmentations = Augmentations(augmentations or {})
        self.ema = ema
        self.batch_size = batch_size
        self.total_images = total_images
        self.d_steps = d_steps
        self.micro_batch_size = batch_size if micro_batch_size is None else micro_batch_size
        self.seed = seed
        self.images_seen = 0
        self.stats = RunningMeans()
        self.step_ended: float | None = None
        self.measure_gradients = False
        check_batch_sizes(self)
        self.players = build_players(
            networks=(generator, discriminator),
            optimizers=(generator_optimizer, discriminator_optimizer),
            groups=(generator_parameters, discriminator_parameters),
            clip_norms=(generator_clip_norm, discriminator_clip_norm),
            averages=(self.generator_ema, None),
            regularizers=regularizers,
        )
        parts: dict[str, Any] = {
            **self.players,
            "ema": ema,
            "loss": loss,
            **regularizers,
            **self.augmentations,
        }
        self.scheduled = ScheduledParameters(schedules or {}, parts)

    # Hooks of an architecture ------------------------------------------------------------------------------------

    def prepare_step(self) -> None:
        """Hook before each training step, for what depends on the clock."""

    def sample_latents(self, count: int) -> Tensor:
        """Draw latents [count, Z], standard normal or uniform in [-1, 1], as the generator says."""
        shape = count, self.generator.z_dim
        if self.generator.z_distribution == "uniform":
            return torch.rand(shape, device=self.device) * 2 - 1
        return torch.randn(shape, device=self.device)

    def fake(self, z: Tensor, batch: Batch) -> DiscriminatorInput:
        """Make D's fake input from latents [N, Z]; `batch` has the labels and, for paired data, the source."""
        if self.generator.translates:
            return self.generator(z, batch.labels, batch.source)
        return self.generator(z, batch.labels)

    def real(self, batch: Batch) -> DiscriminatorInput:
        """Make D's real input from a batch of the data."""
        return batch.real

    def augment(self, x: DiscriminatorInput) -> DiscriminatorInput:
        """Augment D's input, real or fake; each tensor of a tuple separately, except vectors [N, Z]."""
        return self.augmentations(x)

    def discriminate(
        self, x: DiscriminatorInput, batch: Batch, role: Role | None
    ) -> DiscriminatorOutput:
        """Return D's output for real or fake input, with the further losses of a role; None for logits only."""
        return self.discriminator.discriminate(self.augment(x), batch.labels, role)

    def generator_loss(
        self, step: GeneratorStep, fake_logits: Tensor, real_logits: Tensor | None
    ) -> Tensor:
        """Return G's loss per sample [N]; real logits are given for paired losses and generators with an encoder."""
        return mean_per_sample(self.loss.generator(fake_logits, real_logits))

    # The loop ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take `d_steps` D steps, one G step, and update the moving average."""
        if not self.conditional:
            batch = replace(batch, labels=None)
        seed_step(self.device, self.seed, self.global_rank, self.images_seen)
        self.prepare_step()
        self.scheduled.apply(self.kimg)
        generator, discriminator = self.players.values()
        for part in batch.split(len(batch) // self.d_steps):
            shown = len(part) * self.trainer.world_size
            self._step(discriminator, part)
            for name, value in self.augmentations.adapt(shown).items():
                self.stats.add(name, value)
            self._lazy_steps(discriminator, part)
            self.images_seen += shown
        self._step(generator, part)
        self._lazy_steps(generator, part)
        shown = len(batch) * self.trainer.world_size
        networks = self.generator_ema, self.generator
        self.ema.update(*networks, images_seen=self.images_seen, images=shown)

    def _lazy_steps(self, player: Player, batch: Batch) -> None:
        """Take the steps of lazy penalties that are due, and count the player's step."""
        for name in player.lazy_penalties_due():
            self._step(player, batch, lazy=name)
        player.steps_taken += 1

    def _step(self, player: Player, batch: Batch, lazy: str | None = None) -> None:
        """Take an optimizer step of a player: on its loss with the penalties of every step, or on one lazy penalty."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        optimizer = optimizers[list(self.players).index(player.name)]
        optimizer.zero_grad()
        # drawn at once, so that latents do not depend on the number of micro-batches
        latents = self.sample_latents(len(batch)).split(self.micro_batch_size)
        parts = zip(batch.split(self.micro_batch_size), latents, strict=True)
        with frozen(self.discriminator) if player.name == "generator" else nullcontext():
            for part, z in parts:
                with nullcontext() if lazy is None else full_precision(self.device):
                    total = self._total_loss(player, part, z, lazy)
                # under the Trainer's autocast, backward would be in reduced precision where forward was not
                with full_precision(self.device):
                    self.manual_backward(player.scaled(total * len(part) / len(batch)))
        norm = player.update(optimizer, measure=self.measure_gradients and lazy is None)
        if norm is not None:
            self.stats.add(f"grad_norm/{player.name[0]}", norm)

    def _total_loss(self, player: Player, batch: Batch, z: Tensor, lazy: str | None) -> Tensor:
        """Return a player's objective on a micro-batch: its mean loss and penalties, or one lazy penalty."""
        penalties = player.penalties(lazy)
        replays = any(penalty.replays for penalty in penalties.values())
        # passes that are compared need the same weights, which spectral norm's power method would change
        with parametrize.cached() if replays else nullcontext():
            step: DiscriminatorStep | GeneratorStep
            terms = []
            if player.name == "generator":
                step = GeneratorStep(self.generator, batch, z, lambda z: self.fake(z, batch))
                if lazy is None:
                    terms.append(self._generator_losses(step).mean())
            else:
                step = DiscriminatorStep.of(
                    self, batch, z, penalties.values(), logits_only=lazy is not None
                )
                if lazy is None:
                    terms.append(self._discriminator_losses(step).mean())
            for name, regularizer in penalties.items():
                penalty = regularizer.evaluate(step)
                self.stats.add(f"reg/{name}", penalty)
                terms.append(penalty.mean() * (regularizer.weight * regularizer.interval))
        return sum(terms[1:], start=terms[0])

    def _discriminator_losses(self, step: DiscriminatorStep) -> Tensor:
        losses = mean_per_sample(self.loss.discriminator(step.real_logits, step.fake_logits))
        self.stats.add("loss/d", losses)
        self.stats.add("logits/real", step.real_logits)
        self.stats.add("logits/fake", step.fake_logits)
        self.augmentations.observe(step.real_logits)
        for role, output in (("real", step.real_output), ("fake", step.fake_output)):
            for name, further in output.losses.items():
                self.stats.add(f"loss/d_{name}_{role}", further)
                losses = losses + further
        return losses

    def _generator_losses(self, step: GeneratorStep) -> Tensor:
        output = self.discriminate(step.fake, step.batch, "generator")
        real_logits = None
        if self.loss.paired or self.has_encoder:
            with torch.set_grad_enabled(self.has_encoder):
                real_logits = self.discriminate(self.real(step.batch), step.batch, None).logits
        losses = self.generator_loss(step, output.logits, real_logits)
        self.stats.add("loss/g", losses)
        for name, further in output.losses.items():
            self.stats.add(f"loss/g_{name}", further)
            losses = losses + further
        for regularizer in self.players["generator"].regularizers.values():
            losses = regularizer.select(losses, output.logits)
        return losses

    # State -------------------------------------------------------------------------------------------------------

    @property
    def conditional(self) -> bool:
        """Whether the generator takes labels."""
        return self.generator.num_classes > 0

    @property
    def kimg(self) -> float:
        """Thousands of real samples shown so far."""
        return self.images_seen / 1000

    @property
    def finished(self) -> bool:
        """Whether all samples have been shown."""
        return self.images_seen >= self.total_images

    def due(self, every_kimg: float) -> bool:
        """Whether the last training step crossed a multiple of `every_kimg`, or ended training."""
        every = every_kimg * 1000
        before = self.images_seen - self.batch_size * self.d_steps
        return self.finished or self.images_seen // every > before // every

    def synchronize(self) -> None:
        """Average running statistics over ranks."""
        average_buffers([self])

    def configure_optimizers(self) -> list[Optimizer]:
        """Build [generator's, discriminator's] optimizer."""
        optimizers = [player.build_optimizer() for player in self.players.values()]
        self.scheduled.check_optimizers()
        return optimizers

    def setup(self, stage: str) -> None:
        """Give each player a loss scaler in float16."""
        if self.trainer.precision == "16-mixed":
            for player in self.players.values():
                device = self.trainer.strategy.root_device.type
                player.scaler = player.scaler or torch.amp.GradScaler(device)

    def on_train_start(self) -> None:
        """Restore the configured lr and other settings, which loading a checkpoint has overwritten."""
        for player in self.players.values():
            player.reset_optimizer()

    def train(self, mode: bool = True) -> "AdversarialModule":
        """Set the players' mode; the moving average always stays in evaluation mode."""
        super().train(mode)
        self.generator_ema.eval()
        return self

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the time, from which the next step waits for data."""
        self.step_ended = time.perf_counter()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the clock; drop Lightning's loop counters, which only count this process's batches."""
        checkpoint.pop("loops", None)
        checkpoint["global_step"] = sum(p.steps_taken for p in self.players.values())
        checkpoint["clock"] = {
            "images_seen": self.images_seen,
            "players": {name: player.state_dict() for name, player in self.players.items()},
            "stats": self.stats.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the clock."""
        clock = checkpoint["clock"]
        self.images_seen = clock["images_seen"]
        self.stats.load_state_dict(clock["stats"])
        for name, player in self.players.items():
            player.load_state_dict(clock["players"][name])
