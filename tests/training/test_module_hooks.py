"""Hooks for architectures, augmentations and penalties, on networks with one parameter."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_lab.data.sample import Batch
from gan_lab.distributed.ranks import Float16Precision
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
)
from gan_lab.training.augment import Augmentation
from gan_lab.training.ema import ExponentialMovingAverage
from gan_lab.training.losses import NonSaturating, Wasserstein
from gan_lab.training.module import AdversarialModule
from gan_lab.training.regularizers import (
    DiscriminatorRegularizer,
    GeneratorRegularizer,
    Regularizer,
)
from gan_lab.training.steps import GeneratorStep
from tests.models.conftest import fit


class Shift(GeneratorNetwork):
    """G(z) = z + shift, as an image of one pixel; `code` belongs to G's player and to no image."""

    z_dim = 1
    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))
        self.code = nn.Parameter(torch.zeros(()))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return (z + self.shift)[:, :, None, None]


class Slope(DiscriminatorNetwork):
    """D(x) = slope x, and in some roles a class loss of `classes` times x."""

    num_classes = 3

    def __init__(self, *roles: Role) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))
        self.classes = nn.Parameter(torch.ones(()))
        self.roles = roles

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.slope * images.flatten()

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        assert isinstance(x, Tensor)
        losses = {"class": self.classes * x.flatten()} if role in self.roles else {}
        return DiscriminatorOutput(self(x, labels), losses)


def module(
    kind: type[AdversarialModule] = AdversarialModule,
    *,
    discriminator: DiscriminatorNetwork | None = None,
    augmentations: Mapping[str, Augmentation] | None = None,
    regularizers: Mapping[str, Regularizer] | None = None,
    **settings: Any,
) -> AdversarialModule:
    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1.0)

    return kind(
        generator=Shift(),
        discriminator=discriminator or Slope(),
        loss=settings.pop("loss", Wasserstein()),
        regularizers=regularizers or {},
        augmentations=augmentations,
        generator_optimizer=sgd,
        discriminator_optimizer=sgd,
        ema=ExponentialMovingAverage(half_life_kimg=1),
        batch_size=4,
        total_images=4,
        **settings,
    )


class Recording(Augmentation):
    """Maps x to factor x + 1 and records its calls."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.seen: list[Tensor] = []
        self.observed: list[Tensor] = []
        self.adapted: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        return self.factor * images + 1

    def observe(self, real_logits: Tensor) -> None:
        assert not real_logits.requires_grad
        self.observed.append(real_logits)

    def adapt(self, images: int) -> None:
        self.adapted.append(images)

    def metrics(self) -> Mapping[str, Tensor]:
        return {"factor": torch.tensor(self.factor)}


def test_augmentations_are_applied_in_order_to_all_inputs_of_the_discriminator() -> None:
    first, second = Recording(2.0), Recording(3.0)
    made = fit(module(augmentations={"first": first, "second": second}, micro_batch_size=2))
    # two micro-batches of real and of generated images in the D step, two of generated ones in the G step
    assert len(first.seen) == len(second.seen) == 6
    for before, after in zip(first.seen, second.seen, strict=True):
        assert torch.equal(after, 2 * before + 1)
    for images, logits in zip((second.seen[0], second.seen[2]), second.observed, strict=True):
        torch.testing.assert_close(logits, (3 * images + 1).flatten())
    assert first.adapted == second.adapted == [4]
    assert [player.steps_taken for player in made.players.values()] == [1, 1]


def test_an_augmentation_is_scheduled_by_name() -> None:
    recording = Recording(2.0)
    schedules = {"mine": {"factor": lambda kimg: 5.0 + kimg}}
    made = fit(module(augmentations={"mine": recording}, schedules=schedules))
    assert recording.factor == 5.0
    assert made.stats.take()["augment/mine_factor"] == 5.0
    with pytest.raises(ValueError, match=r"schedules\.mine\.strength is unknown"):
        module(augmentations={"mine": recording}, schedules={"mine": {"strength": lambda k: 1.0}})


@pytest.mark.parametrize("fakes", [False, True])
def test_class_losses_are_added_to_both_losses(fakes: bool) -> None:
    augmentation = Recording(1.0)
    made = fit(
        module(
            discriminator=Slope("real", "generator", *(["fake"] if fakes else [])),
            augmentations={"watch": augmentation},
        )
    )
    real, fake, _ = (x.flatten() + 1 for x in augmentation.seen)
    expected = 1 - real.mean() - (fake.mean() if fakes else 0)
    torch.testing.assert_close(made.discriminator.classes.detach(), expected)
    metrics = made.stats.take()
    assert metrics["loss/d_class_real"] == pytest.approx(float(real.mean()), rel=1e-5)
    assert ("loss/d_class_fake" in metrics) == fakes
    # d/d shift of -slope x + classes x, with the slopes as the D step left them
    slope, classes = made.discriminator.slope.detach(), made.discriminator.classes.detach()
    torch.testing.assert_close(made.generator.shift.detach(), slope - classes)


class Encoding(AdversarialModule):
    """What D sees as real depends on a parameter of G's player."""

    has_encoder = True

    def real(self, batch: Batch) -> Tensor:
        return batch.real + self.generator.code

    def generator_loss(
        self, step: GeneratorStep, fake_logits: Tensor, real_logits: Tensor | None
    ) -> Tensor:
        assert real_logits is not None
        return real_logits - fake_logits


def test_an_encoder_is_trained_in_the_generators_step_only() -> None:
    made = fit(module(Encoding))
    slope = made.discriminator.slope.detach()
    torch.testing.assert_close(made.generator.code.detach(), -slope)
    torch.testing.assert_close(made.generator.shift.detach(), slope)
    left_alone = fit(module())
    assert float(left_alone.generator.code.detach()) == 0


class Largest(GeneratorRegularizer):
    """Keeps the image with the largest logit."""

    penalizes = False

    def select(self, losses: Tensor, fake_logits: Tensor) -> Tensor:
        return losses[fake_logits.argmax()][None]


def test_a_regularizer_can_select_images() -> None:
    watch = Recording(1.0)
    made = fit(
        module(
            loss=NonSaturating(),
            augmentations={"watch": watch},
            regularizers={"largest": Largest(weight=0)},
        )
    )
    slope = made.discriminator.slope.detach()
    logits = slope * (watch.seen[-1].flatten() + 1)
    torch.testing.assert_close(made.generator.shift.detach(), slope * torch.sigmoid(-logits.max()))


def test_prepare_step_runs_first() -> None:
    calls = []

    class Watching(AdversarialModule):
        def prepare_step(self) -> None:
            calls.append(("prepare", self.images_seen))

        def sample_latents(self, count: int) -> Tensor:
            calls.append(("sample", self.images_seen))
            return super().sample_latents(count)

    fit(module(Watching))
    assert calls[0] == ("prepare", 0)
    assert [name for name, _ in calls] == ["prepare", "sample", "sample"]


class OnReals(DiscriminatorRegularizer):
    """Looks at real images alone."""

    def forward(self, step: Any) -> Tensor:
        return step.real_logits.square()


def test_a_lazy_penalty_on_real_images_generates_none() -> None:
    made: list[int] = []

    class Watching(AdversarialModule):
        def fake(self, z: Tensor, batch: Batch) -> DiscriminatorInput:
            made.append(len(z))
            return super().fake(z, batch)

    trained = fit(module(Watching, regularizers={"mine": OnReals(weight=1, interval=2)}))
    assert "reg/mine" in trained.stats.take()
    assert made == [4, 4]  # one for D's step, one for G's


@pytest.mark.parametrize("half", [False, True])
def test_overflowed_gradients_of_half_precision_are_bounded(half: bool) -> None:
    class Overflowing(Slope):
        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().forward(images) * torch.tensor([float("inf"), 1, 1, 1])

    discriminator = Overflowing()
    discriminator.half_precision = half
    trained = fit(module(discriminator=discriminator))
    assert bool(trained.discriminator.slope.isfinite()) == half


def half(made: AdversarialModule) -> AdversarialModule:
    return fit(made, plugins=[Float16Precision(device="cpu")])


def test_half_precision_has_a_scaler_for_each_player() -> None:
    made, plain = half(module()), fit(module())
    first, second = (player.scaler for player in made.players.values())
    assert first is not None and second is not None and first is not second
    # the scale is a power of two and cancels
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(made.state_dict()[name], value, rtol=2e-3, atol=2e-3)
    assert not any(player.scaler for player in plain.players.values())


def test_an_overflow_skips_the_step_and_lowers_the_scale_of_one_player_only() -> None:
    class Overflowing(Slope):
        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            # the gradient of the slope is infinite, that of the images is not
            return super().forward(images) + self.slope * (float("inf") if self.training else 0)

    class Quiet(AdversarialModule):
        def discriminate(
            self, x: DiscriminatorInput, batch: Batch, role: Role | None
        ) -> DiscriminatorOutput:
            self.discriminator.train(self.discriminator.slope.requires_grad)
            logits = super().discriminate(x, batch, role).logits
            return DiscriminatorOutput(torch.where(logits.isfinite(), logits, logits.detach() * 0))

    made = half(module(Quiet, discriminator=Overflowing()))
    scales = {name: player.scaler.get_scale() for name, player in made.players.items()}
    assert scales["discriminator"] == scales["generator"] / 2
    assert float(made.discriminator.slope.detach()) == 1
    assert float(made.generator.shift.detach()) != 0
