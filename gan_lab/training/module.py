"""The alternating game, written once: every architecture is this module with its networks and, perhaps, a few hooks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from gan_lab.distributed.ranks import average_buffers, average_gradients
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork, Judgement
from gan_lab.layers.spectral_norm import normalize_discriminator
from gan_lab.seeding import seed_step
from gan_lab.training.augment.base import Augmentation
from gan_lab.training.batches import check_batches
from gan_lab.training.ema import ExponentialMovingAverage
from gan_lab.training.losses import Loss
from gan_lab.training.regularizers.base import DiscriminatorStep, GeneratorStep, Player, Regularizer
from gan_lab.training.schedules import Schedules, Settings
from gan_lab.training.stats import RunningMeans

if TYPE_CHECKING:
    from lightning.pytorch.core.optimizer import LightningOptimizer

Batch = tuple[Tensor, Tensor | None]

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

PLAYERS: tuple[Player, Player] = ("generator", "discriminator")


class AdversarialModule(LightningModule):
    """Alternating training of a generator and a discriminator by manual optimization.

    One training step takes `d_steps` batches of real images: a D step on each, then one G step, then the moving
    average. Everything random in it follows from (seed, rank, images seen), so nothing random needs saving.

    An architecture overrides hooks (`prepare_step`, `sample_latents`, `fake`, `real`, `view`, `judge`,
    `generator_loss`) and never `training_step`.

    Attributes:
        images_seen: real images shown to D by all ranks: the clock of everything.
        stats: running means of losses, penalties and logits since they were last taken.
        measure_gradients: set by whoever wants gradient norms of the next step in `stats`.
        has_encoder: whether the generator's player has a part in what D sees as real, so that its step needs both.

    Args:
        generator: `(z [N, Z], labels) -> images [N, C, H, W]`, with `z_dim` and `num_classes`.
        discriminator: `(images, labels) -> logits [N]`.
        loss: the game, of `gan_lab.training.losses`.
        regularizers: by name.
        augmentations: by name, in the order in which they change what D sees.
        generator_optimizer: takes parameters and gives the optimizer; likewise `discriminator_optimizer`.
        ema: how the generator's moving average is kept.
        schedules: setting -> schedule for "generator", "discriminator" (lr, beta1, beta2, weight_decay), "ema" and
            regularizers and augmentations by name.
        batch_size: real images of a D step over all ranks.
        total_images: length of training.
        d_steps: D steps before each G step.
        micro_batch_size: images of one backward on one rank (gradient accumulation); null for the whole batch.
        generator_clip_norm: largest L2 norm of G's gradient, null for no limit; likewise `discriminator_clip_norm`.
        discriminator_spectral_norm: whether to normalise all of D's weights by their largest singular value; those that
            its architecture normalises are left as they are.
        seed: of everything random.

    Raises:
        InputError: for arguments that do not fit together.
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
        schedules: Schedules | None = None,
        d_steps: int = 1,
        micro_batch_size: int | None = None,
        generator_clip_norm: float | None = None,
        discriminator_clip_norm: float | None = None,
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
        self._regularizers = dict(regularizers)
        self.regularizers = nn.ModuleDict(self._regularizers)
        self._augmentations = dict(augmentations or {})
        self.augmentations = nn.ModuleDict(self._augmentations)
        self.ema = ema
        self.batch_size = batch_size
        self.total_images = total_images
        self.d_steps = d_steps
        self.micro_batch_size = batch_size if micro_batch_size is None else micro_batch_size
        self.clip_norm = {
            "generator": generator_clip_norm,
            "discriminator": discriminator_clip_norm,
        }
        self.seed = seed
        self.scalers: dict[Player, torch.amp.GradScaler] = {}
        self.images_seen = 0
        self.steps_taken: dict[Player, int] = {"generator": 0, "discriminator": 0}
        self.stats = RunningMeans()
        self.measure_gradients = False
        self._factories = {
            "generator": generator_optimizer,
            "discriminator": discriminator_optimizer,
        }
        check_batches(self)
        for regularizer in self._regularizers.values():
            regularizer.check(getattr(self, regularizer.player))
        self.settings = Settings(
            schedules or {}, {"ema": ema, **self._regularizers, **self._augmentations}
        )

    # Hooks of an architecture ------------------------------------------------------------------------------------

    def prepare_step(self) -> None:
        """Set up what depends on the clock, before each training step."""

    def sample_latents(self, count: int) -> Tensor:
        """Draw latents [count, Z], standard normal."""
        return torch.randn(count, self.generator.z_dim, device=self.device)

    def fake(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Make images from latents."""
        return self.generator(z, labels)

    def real(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Make what D sees as real from a batch of images."""
        return images

    def view(self, images: Tensor) -> Tensor:
        """Change images, real or generated, before D sees them."""
        for augmentation in self._augmentations.values():
            images = augmentation(images)
        return images

    def judge(self, images: Tensor, labels: Tensor | None) -> Judgement:
        """Judge images, real or generated: logits [N] and, where D classifies, losses of the class [N]."""
        return self.discriminator.judge(self.view(images), labels)

    def generator_loss(self, fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
        """Loss of G per image [N]; real logits are there where the loss pairs images."""
        return self.loss.generator(fake_logits, real_logits)

    # The loop ----------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Show D `d_steps` batches, then move G, then the moving average."""
        images, labels = batch
        if not self.conditional:
            labels = None
        seed_step(self.device, self.seed, self.global_rank, self.images_seen)
        self.prepare_step()
        self.settings.apply(self.images_seen / 1000)
        shown_before = self.images_seen
        for real, real_labels in split(images, labels, len(images) // self.d_steps):
            self._discriminator_step(real, real_labels)
            self.images_seen += len(real) * self.trainer.world_size
        self._generator_step(real, real_labels)
        shown = self.images_seen - shown_before
        self.ema.update(
            self.generator_ema, self.generator, images_seen=self.images_seen, images=shown
        )

    def _discriminator_step(self, real: Tensor, labels: Tensor | None) -> None:
        every_step = [r for r in self._of("discriminator").values() if r.interval == 1]
        by_input = any(r.needs_input_gradient for r in every_step)
        optimizer, parts = self._begin("discriminator", real, labels)
        for images, part_labels, z in parts:
            step = self._discriminator_view(
                images, part_labels, z, differentiable=by_input and self._shares_graph
            )
            losses = self._discriminator_losses(step)
            total = self._with_penalties(losses, step)
            self._backward("discriminator", total * len(images) / len(real))
        self._finish("discriminator", optimizer)
        for name, augmentation in self._augmentations.items():
            augmentation.adapt(len(real) * self.trainer.world_size)
            for key, figure in augmentation.figures().items():
                self.stats.add(f"augment/{name}_{key}", figure)
        for name, regularizer in self._lazy("discriminator"):
            optimizer, parts = self._begin("discriminator", real, labels)
            for images, part_labels, z in parts:
                with full_precision(self.device):
                    step = self._discriminator_view(
                        images, part_labels, z, differentiable=regularizer.needs_input_gradient
                    )
                    penalty = self._penalty(name, regularizer, step)
                self._backward("discriminator", penalty * len(images) / len(real))
            self._finish("discriminator", optimizer, lazy=True)
        self.steps_taken["discriminator"] += 1

    def _discriminator_losses(self, step: DiscriminatorStep) -> Tensor:
        """Return D's losses [N], those of classes included, and note the figures."""
        losses = self.loss.discriminator(step.real_logits, step.fake_logits)
        self.stats.add("loss/d", losses)
        self.stats.add("logits/real", step.real_logits)
        self.stats.add("logits/fake", step.fake_logits)
        for augmentation in self._augmentations.values():
            augmentation.observe(step.real_logits.detach())
        judgements = {"real": step.real_judgement}
        if self.discriminator.classifies_fakes:
            judgements["fake"] = step.fake_judgement
        for name, (_, class_losses) in judgements.items():
            if class_losses is not None:
                self.stats.add(f"loss/d_class_{name}", class_losses)
                losses = losses + class_losses
        return losses

    def _generator_losses(self, fake: Tensor, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return G's losses, those of classes included: [N], or of the images that count."""
        fake_logits, class_losses = self.judge(fake, labels)
        real_logits = None
        if self.loss.paired or self.has_encoder:
            with torch.set_grad_enabled(self.has_encoder):
                real_logits, _ = self.judge(self.real(images, labels), labels)
        losses = self.generator_loss(fake_logits, real_logits)
        self.stats.add("loss/g", losses)
        if class_losses is not None:
            self.stats.add("loss/g_class", class_losses)
            losses = losses + class_losses
        for regularizer in self._of("generator").values():
            losses = regularizer.select(losses, fake_logits)
        return losses

    def _generator_step(self, real: Tensor, labels: Tensor | None) -> None:
        optimizer, parts = self._begin("generator", real, labels)
        with frozen(self.discriminator):
            for images, part_labels, z in parts:
                fake = self.fake(z, part_labels)
                losses = self._generator_losses(fake, images, part_labels)
                step = GeneratorStep(network=self.generator, z=z, labels=part_labels, fake=fake)
                total = self._with_penalties(losses, step)
                self._backward("generator", total * len(images) / len(real))
            self._finish("generator", optimizer)
        for name, regularizer in self._lazy("generator"):
            optimizer, parts = self._begin("generator", real, labels)
            for images, part_labels, z in parts:
                with full_precision(self.device):
                    step = GeneratorStep(network=self.generator, z=z, labels=part_labels)
                    penalty = self._penalty(name, regularizer, step)
                self._backward("generator", penalty * len(images) / len(real))
            self._finish("generator", optimizer, lazy=True)
        self.steps_taken["generator"] += 1

    def _begin(
        self, player: Player, real: Tensor, labels: Tensor | None
    ) -> tuple["LightningOptimizer", Iterator[tuple[Tensor, Tensor | None, Tensor]]]:
        """Clear a player's gradient; return its optimizer and the micro-batches (real, labels, z)."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        optimizer = optimizers[PLAYERS.index(player)]
        optimizer.zero_grad()
        # drawn whole, so that the number of micro-batches does not change the noise
        z = self.sample_latents(len(real)).split(self.micro_batch_size)
        parts = split(real, labels, self.micro_batch_size)
        return optimizer, (
            (images, y, latents) for (images, y), latents in zip(parts, z, strict=True)
        )

    def _backward(self, player: Player, loss: Tensor) -> None:
        """Add the gradient of a loss, scaled where the precision asks for it."""
        scaler = self.scalers.get(player)
        self.manual_backward(loss if scaler is None else scaler.scale(loss))

    def _finish(
        self, player: Player, optimizer: "LightningOptimizer", *, lazy: bool = False
    ) -> None:
        """Average over ranks, clip, measure and step a player; then let its regularizers act on the new weights."""
        network = getattr(self, player)
        average_gradients(network.parameters())
        scaler = self.scalers.get(player)
        if scaler is not None:
            scaler.unscale_(optimizer.optimizer)
        if network.half_precision:
            bound_gradients(network.parameters())
        limit = self.clip_norm[player]
        measure = self.measure_gradients and not lazy
        if limit is not None:
            norm = clip_grad_norm_(network.parameters(), limit)
        elif measure:
            norm = get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        if measure:
            self.stats.add(f"grad_norm/{player[0]}", norm)
        if scaler is None:
            optimizer.step()
        else:
            # leaves the weights alone where a gradient is not finite, and scales less from then on
            scaler.step(optimizer.optimizer)
            scaler.update()
        for regularizer in self._of(player).values():
            regularizer.after_step(network)

    def _discriminator_view(
        self, real: Tensor, labels: Tensor | None, z: Tensor, *, differentiable: bool
    ) -> DiscriminatorStep:
        def fakes() -> Tensor:
            with torch.no_grad():
                fake = self.fake(z, labels)
            return fake.requires_grad_() if differentiable else fake

        with torch.no_grad():
            real = self.real(real, labels)
        if differentiable:
            real = real.detach().requires_grad_()
        return DiscriminatorStep(
            self.discriminator, self.judge, real, fakes, labels, z=z, generate=self.fake
        )

    def _with_penalties(self, losses: Tensor, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        """Return the mean loss and the penalties of every step, a scalar."""
        player: Player = "discriminator" if isinstance(step, DiscriminatorStep) else "generator"
        total = losses.mean()
        for name, regularizer in self._of(player).items():
            if regularizer.penalizes and regularizer.interval == 1:
                total = total + self._every_step_penalty(name, regularizer, step)
        return total

    def _every_step_penalty(
        self, name: str, regularizer: Regularizer, step: DiscriminatorStep | GeneratorStep
    ) -> Tensor:
        if self._shares_graph:
            return self._penalty(name, regularizer, step)
        with full_precision(self.device):
            if isinstance(step, GeneratorStep):
                return self._penalty(name, regularizer, step)
            real, fake = (x.detach().float().requires_grad_() for x in (step.real, step.fake))
            alone = replace(step, real=real, make_fake=lambda: fake)
            return self._penalty(name, regularizer, alone)

    def _penalty(
        self, name: str, regularizer: Regularizer, step: DiscriminatorStep | GeneratorStep
    ) -> Tensor:
        penalty = regularizer(step)
        self.stats.add(f"reg/{name}", penalty)
        return penalty.mean() * (regularizer.weight * regularizer.interval)

    @property
    def _shares_graph(self) -> bool:
        """Whether penalties may differentiate the loss's own forward pass: not in reduced precision."""
        return not torch.is_autocast_enabled(self.device.type)

    def _of(self, player: Player) -> dict[str, Regularizer]:
        return {name: r for name, r in self._regularizers.items() if r.player == player}

    def _lazy(self, player: Player) -> list[tuple[str, Regularizer]]:
        """Return the penalties whose own step is due at this step of the player."""
        step = self.steps_taken[player]
        return [
            (name, r)
            for name, r in self._of(player).items()
            if r.penalizes and r.interval > 1 and step % r.interval == 0
        ]

    # State -------------------------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Make what each rank keeps for itself (running statistics) the same on all of them."""
        average_buffers(
            [
                self.generator,
                self.discriminator,
                self.generator_ema,
                self.regularizers,
                self.augmentations,
            ]
        )

    @property
    def conditional(self) -> bool:
        """Whether the generator takes class labels."""
        return self.generator.num_classes > 0

    @property
    def kimg(self) -> float:
        """Thousands of real images shown so far."""
        return self.images_seen / 1000

    def due(self, every_kimg: float) -> bool:
        """Whether the last training step crossed a multiple of `every_kimg`, or ended training."""
        every = every_kimg * 1000
        before = self.images_seen - self.batch_size * self.d_steps
        return self.finished or self.images_seen // every > before // every

    @property
    def finished(self) -> bool:
        """Whether all images have been shown."""
        return self.images_seen >= self.total_images

    def configure_optimizers(self) -> list[Optimizer]:
        """Build [generator's, discriminator's] optimizer, corrected for the steps of lazy penalties."""
        optimizers = [
            self._factories[player](
                p for p in getattr(self, player).parameters() if p.requires_grad
            )
            for player in PLAYERS
        ]
        for player, optimizer in zip(PLAYERS, optimizers, strict=True):
            self.settings.attach(player, optimizer, lazy_correction(self._of(player).values()))
        return optimizers

    def setup(self, stage: str) -> None:
        """Give each player a scaler of its own where the precision is half: their losses differ in size."""
        if self.trainer.precision == "16-mixed" and not self.scalers:
            device = self.trainer.strategy.root_device.type
            self.scalers = {player: torch.amp.GradScaler(device) for player in PLAYERS}

    def on_train_start(self) -> None:
        """Let the configuration, not the checkpoint, decide on lr and the like."""
        self.settings.reset()

    def train(self, mode: bool = True) -> "AdversarialModule":
        """Switch the players; the moving average always stays in evaluation mode."""
        super().train(mode)
        self.generator_ema.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the clock; leave out Lightning's loop counters, which count other things, and this process's alone."""
        checkpoint.pop("loops", None)
        checkpoint["global_step"] = sum(self.steps_taken.values())
        checkpoint["clock"] = {
            "images_seen": self.images_seen,
            "steps_taken": dict(self.steps_taken),
            "stats": self.stats.state_dict(),
            "scalers": {player: scaler.state_dict() for player, scaler in self.scalers.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the clock."""
        clock = checkpoint["clock"]
        self.images_seen = clock["images_seen"]
        self.steps_taken = dict(clock["steps_taken"])
        self.stats.load_state_dict(clock["stats"])
        for player, scaler in self.scalers.items():
            # a run that goes on in another precision has none
            if player in clock.get("scalers", {}):
                scaler.load_state_dict(clock["scalers"][player])


def split(images: Tensor, labels: Tensor | None, size: int) -> Iterator[Batch]:
    """Cut a batch into consecutive parts of `size` images."""
    for start in range(0, len(images), size):
        yield (
            images[start : start + size],
            None if labels is None else labels[start : start + size],
        )


def bound_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace what overflowed in half precision: one infinite gradient would end in the optimizer's averages for good.

    The published StyleGAN2-ADA and StyleGAN3 train their float16 layers so, without scaling the loss; it is the clamped
    activations that keep them in range (ADA, https://arxiv.org/abs/2006.06676, appendix D).
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Compute no gradients for the network's parameters; those that had them get them back, whatever happens."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def full_precision(device: torch.device) -> torch.autocast:
    """Leave mixed precision: penalties square gradients, which half precision cannot hold."""
    return torch.autocast(device.type, enabled=False)


def lazy_correction(regularizers: Iterable[Regularizer]) -> float:
    """Return c = 1 / (1 + sum 1/interval): the share of a player's optimizer steps that are its main ones.

    Adam's lr becomes c * lr and each beta beta^c, so that lazy penalties' steps leave its time scale as it was
    (Karras et al. 2020, appendix B, https://arxiv.org/abs/1912.04958, where c = k / (k + 1)).
    """
    return 1 / (1 + sum(1 / r.interval for r in regularizers if r.penalizes and r.interval > 1))
