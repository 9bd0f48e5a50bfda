"""The training loop with sources, tuples, patches and label vectors."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torch.utils.data import DataLoader

from gan_lab.data.sample import Batch
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
)
from gan_lab.training.augment import Augmentation
from gan_lab.training.augment.ada import ADA
from gan_lab.training.ema import ExponentialMovingAverage
from gan_lab.training.losses import Hinge, LeastSquares, Loss, NonSaturating, Relativistic
from gan_lab.training.module import AdversarialModule
from gan_lab.training.regularizers import (
    R1,
    R2,
    Consistency,
    Dragan,
    Drift,
    GradientPenalty,
    LatentConsistency,
    LatentDiversity,
    LeCam,
    Regularizer,
    TopK,
)
from gan_lab.training.steps import GeneratorStep
from tests.helpers.steps import discriminator_step

STEPS, BATCH, SIDE = 2, 4, 8


class Decoder(GeneratorNetwork):
    """z (and a label vector) -> an image, linearly."""

    z_dim = 3

    def __init__(self, *, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layer = nn.Linear(3 + num_classes, SIDE * SIDE)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = z if labels is None else torch.cat([z, labels], dim=1)
        return self.layer(x).unflatten(1, (1, SIDE, SIDE))


class Patches(DiscriminatorNetwork):
    """A logit for each of 16 patches, of any number of channels."""

    num_classes = 0

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 1, 2, stride=2)

    def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
        assert isinstance(x, Tensor)
        return self.layer(x.tanh()).flatten(1)  # [N, 16]


def module(
    kind: type[AdversarialModule],
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    *,
    regularizers: Mapping[str, Regularizer] | None = None,
    augmentations: Mapping[str, Augmentation] | None = None,
    loss: Loss | None = None,
    **settings: Any,
) -> AdversarialModule:
    def adam(groups: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=1e-2)

    return kind(
        generator=generator,
        discriminator=discriminator,
        loss=loss or NonSaturating(),
        regularizers=regularizers or {},
        augmentations=augmentations,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema=ExponentialMovingAverage(half_life_kimg=1),
        batch_size=BATCH,
        total_images=STEPS * BATCH,
        **settings,
    )


def fit(made: AdversarialModule, batches: list[Batch], **settings: Any) -> dict[str, float]:
    """Train on batches; return the metrics."""
    loader = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    trainer.fit(made, loader)
    assert all(p.isfinite().all() for p in made.parameters())
    for network in (made.generator, made.discriminator):
        assert all(p.grad is not None for p in network.parameters())
    return made.stats.take()


def batches(**more: Any) -> list[Batch]:
    """Random images, with whatever comes with them as functions of the generator of random numbers."""
    draws = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.rand(BATCH, 1, SIDE, SIDE, generator=draws) * 2 - 1,
            **{name: draw(draws) for name, draw in more.items()},
        )
        for _ in range(STEPS)
    ]


def every_penalty() -> dict[str, Regularizer]:
    return {
        "r1": R1(weight=1),
        "r2": R2(weight=1, interval=2),
        "gradient_penalty": GradientPenalty(weight=1),
        "dragan": Dragan(weight=1),
        "drift": Drift(weight=1),
        "consistency": Consistency(weight=1),
        "lecam": LeCam(weight=1, start=1),
        "latent_consistency": LatentConsistency(weight=1),
        "latent_diversity": LatentDiversity(weight=0.1),
        "top_k": TopK(share=0.5),
    }


# Patches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [NonSaturating(), Hinge(), LeastSquares(), Relativistic()])
def test_a_discriminator_of_patches_with_everything(loss: Loss) -> None:
    ada = ADA(interval=1, speed_kimg=0.1, pipe="color")
    made = module(
        AdversarialModule,
        Decoder(),
        Patches(),
        loss=loss,
        regularizers=every_penalty(),
        augmentations={"ada": ada},
        micro_batch_size=2,
    )
    found = fit(made, batches())
    assert {f"reg/{name}" for name in every_penalty() if name != "top_k"} <= set(found)


def test_the_loss_is_the_mean_over_a_samples_logits() -> None:
    torch.manual_seed(0)
    generator, discriminator, data = Decoder(), Patches(), batches()
    made = module(AdversarialModule, generator, discriminator)
    seen: list[tuple[Tensor, Tensor]] = []

    class Watching(NonSaturating):
        def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
            seen.append((real.detach(), fake.detach()))
            return super().discriminator(real, fake)

    made.loss = Watching()
    found = fit(made, data[:1])
    [(real, fake)] = seen
    assert real.shape == fake.shape == (BATCH, 16)
    expected = NonSaturating().discriminator(real, fake).mean()
    assert found["loss/d"] == pytest.approx(float(expected), rel=1e-5)


def test_gradient_penalties_are_of_a_samples_mean_logit() -> None:
    torch.manual_seed(0)
    patches, images = Patches(), torch.randn(3, 1, SIDE, SIDE, requires_grad=True)
    (gradient,) = torch.autograd.grad(patches(images).mean(1).sum(), images)
    penalty = R1(weight=1)(discriminator_step(patches, images, images))
    torch.testing.assert_close(penalty, gradient.square().sum((1, 2, 3)) / 2)


def test_ada_counts_the_signs_of_all_logits() -> None:
    ada = ADA(interval=1, speed_kimg=1)
    ada.observe(torch.tensor([[1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, 1.0]]))
    ada.adapt(2)
    assert ada.metrics()["r"].item() == pytest.approx(4 / 8)


class Reconstructing(Patches):
    """D that also has to reconstruct real images from half their resolution (as FastGAN's does)."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Conv2d(1, 1, 3, padding=1)
        self.roles: list[Role | None] = []

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        assert isinstance(x, Tensor)
        self.roles.append(role)
        if role != "real":
            return DiscriminatorOutput(self(x))
        again = self.decoder(interpolate(avg_pool2d(x, 2), scale_factor=2))
        return DiscriminatorOutput(
            self(x), {"reconstruction": (again - x).square().flatten(1).mean(1)}
        )


def test_a_reconstruction_loss_on_real_images_only() -> None:
    discriminator = Reconstructing()
    before = discriminator.decoder.weight.detach().clone()
    penalties = {"r1": R1(weight=1, interval=2), "drift": Drift(weight=1)}
    made = module(AdversarialModule, Decoder(), discriminator, regularizers=penalties)
    found = fit(made, batches())
    assert found["loss/d_reconstruction_real"] > 0
    assert not [name for name in found if "reconstruction" in name and "real" not in name]
    assert not torch.equal(discriminator.decoder.weight, before)
    # the penalty's own step wants logits alone
    assert discriminator.roles == ["real", "fake", None, "generator", "real", "fake", "generator"]


# Several things of a sample ----------------------------------------------------------------------------------------


class Stages(Decoder):
    """An image at two resolutions, each of its own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Linear(3, SIDE * SIDE // 4)

    def both(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self(z), self.small(z).unflatten(1, (1, SIDE // 2, SIDE // 2))


class TwoHeads(DiscriminatorNetwork):
    """One logit for each resolution."""

    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(n, 1) for n in (SIDE**2, SIDE**2 // 4))

    def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
        assert isinstance(x, tuple)
        logits = [head(part.flatten(1).tanh()) for head, part in zip(self.heads, x, strict=True)]
        return torch.cat(logits, dim=1)  # [N, 2]


class MultiStage(AdversarialModule):
    """D sees both resolutions."""

    generator: Stages

    def fake(self, z: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.generator.both(z)

    def real(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.real, avg_pool2d(batch.real, 2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_generator_of_two_resolutions_with_everything(precision: str) -> None:
    ada = ADA(interval=1, speed_kimg=0.1, pipe="color")
    made = module(
        MultiStage,
        Stages(),
        TwoHeads(),
        regularizers=every_penalty(),
        augmentations={"ada": ada},
        micro_batch_size=2,
    )
    found = fit(made, batches(), precision=precision)
    assert {f"reg/{name}" for name in every_penalty() if name != "top_k"} <= set(found)
    assert found["reg/latent_diversity"] < 0


def test_r1_of_a_tuple_is_that_of_all_its_tensors() -> None:
    class Weighted(DiscriminatorNetwork):
        def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
            image, code = x
            return 3 * image.flatten(1).sum(1) + 2 * code.sum(1)

    pair = torch.randn(5, 1, 2, 2, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    step = discriminator_step(Weighted(), pair, pair)
    expected = (4 * 3**2 + 3 * 2**2) / 2
    torch.testing.assert_close(R1(weight=1)(step), torch.full((5,), expected))
    norm = (2 * expected) ** 0.5
    penalty = GradientPenalty(weight=1)(step)
    torch.testing.assert_close(penalty, torch.full((5,), (norm - 1) ** 2))


def test_a_gradient_penalty_mixes_all_tensors_of_a_sample_equally() -> None:
    seen: list[DiscriminatorInput] = []

    class Watching(TwoHeads):
        def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
            seen.append(x)
            return super().forward(x, labels)

    zeros = torch.zeros(6, 1, SIDE, SIDE), torch.zeros(6, 1, SIDE // 2, SIDE // 2)
    ones = torch.ones_like(zeros[0]), torch.ones_like(zeros[1])
    GradientPenalty(weight=1)(discriminator_step(Watching(), zeros, ones))
    large, small = seen[-1]
    torch.testing.assert_close(large[:, 0, 0, 0], small[:, 0, 0, 0])
    assert large[:, 0, 0, 0].unique().numel() == 6


# Paired data -------------------------------------------------------------------------------------------------------


class Translator(Decoder):
    """Source image -> image; z is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)  # type: ignore[assignment]

    def translate(self, source: Tensor) -> Tensor:
        return self.layer(source)


class Pix2Pix(AdversarialModule):
    """Isola et al. 2017, https://arxiv.org/abs/1611.07004: G translates, D sees the source, too, and L1 holds G."""

    generator: Translator

    def fake(self, z: Tensor, batch: Batch) -> Tensor:
        assert batch.source is not None
        return self.generator.translate(batch.source)

    def discriminate(
        self, x: DiscriminatorInput, batch: Batch, role: Role | None
    ) -> DiscriminatorOutput:
        assert batch.source is not None and isinstance(x, Tensor)
        return super().discriminate(torch.cat([x, batch.source], dim=1), batch, role)

    def generator_loss(
        self, step: GeneratorStep, fake_logits: Tensor, real_logits: Tensor | None
    ) -> Tensor:
        assert isinstance(step.fake, Tensor)
        l1 = (step.fake - step.batch.real).abs().flatten(1).mean(1)
        self.stats.add("loss/g_l1", l1)
        return super().generator_loss(step, fake_logits, real_logits) + 100 * l1


def test_pix2pix_is_three_hooks() -> None:
    data = batches(source=lambda draws: torch.randn(BATCH, 1, SIDE, SIDE, generator=draws))
    made = module(
        Pix2Pix, Translator(), Patches(channels=2), micro_batch_size=2, regularizers={"r1": R1(weight=1)}
    )  # fmt: skip
    with torch.no_grad():
        expected = (made.generator.translate(data[0].source) - data[0].real).abs().mean()  # type: ignore[operator]
    found = fit(made, data[:1])
    assert found["loss/g_l1"] == pytest.approx(float(expected), rel=1e-4)
    assert found["loss/g"] > 100 * found["loss/g_l1"]


# Label vectors -----------------------------------------------------------------------------------------------------


class OfAttributes(Patches):
    """The logits of patches, and a product with the attributes."""

    num_classes = 5

    def __init__(self) -> None:
        super().__init__()
        self.attributes = nn.Linear(5, 16, bias=False)

    def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return super().forward(x) * self.attributes(labels)


def test_attribute_vectors_reach_both_players() -> None:
    data = batches(labels=lambda draws: torch.rand(BATCH, 5, generator=draws))
    made = module(AdversarialModule, Decoder(num_classes=5), OfAttributes(), micro_batch_size=2)
    fit(made, data)


def test_an_unconditional_model_gets_no_labels() -> None:
    data = batches(labels=lambda draws: torch.randint(3, (BATCH,), generator=draws))
    fit(module(AdversarialModule, Decoder(), Patches()), data)
