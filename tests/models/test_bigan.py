"""BiGAN: pairs of image and code, losses with swapped roles, and the encoder as part of the generator."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn.functional import softplus

from gan_lab.config import build
from gan_lab.data.sample import Batch
from gan_lab.models.bigan import BiGAN
from gan_lab.training.augment import Augmentation
from gan_lab.training.building import describe_samples
from gan_lab.training.losses import (
    Hinge,
    LeastSquares,
    Loss,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from gan_lab.training.steps import GeneratorStep
from tests.helpers.samples import images_of
from tests.helpers.small import BIGAN
from tests.models.conftest import fit

Make = Callable[..., BiGAN]


@pytest.fixture(scope="module")
def make(compose: Callable[..., DictConfig]) -> Make:
    """Build a tiny BiGAN: `make("loss=hinge", classes=3, augmentations={...})`."""

    def made(*overrides: str, classes: int = 0, size: Any = 8, **extra: Any) -> BiGAN:
        config = compose(*BIGAN, *overrides)
        describe_samples(config, images_of(size, channels=2, classes=classes))
        torch.manual_seed(0)
        return build(config.model, total_images=8, **extra)

    return made


def swapped(loss: Loss, module: BiGAN, fake: Tensor, real: Tensor) -> Tensor:
    module.loss = loss
    z = torch.zeros(len(fake), 6)
    step = GeneratorStep(module.generator, Batch(z), z, lambda z: z)
    return module.generator_loss(step, fake, real)


# what G wants of its pairs, and E of its own, written out
CLOSED_FORMS: list[tuple[Loss, Callable[[Tensor, Tensor], Tensor]]] = [
    (Minimax(), lambda fake, real: -softplus(fake) - softplus(-real)),
    (NonSaturating(), lambda fake, real: softplus(-fake) + softplus(real)),
    (LeastSquares(), lambda fake, real: ((fake - 1) ** 2 + real**2) / 2),
    (Hinge(), lambda fake, real: -fake + real),
    (Wasserstein(), lambda fake, real: -fake + real),
    (Relativistic(), lambda fake, real: softplus(real - fake)),
]


@pytest.mark.parametrize(("loss", "expected"), CLOSED_FORMS)
def test_losses_with_swapped_roles(
    make: Make, loss: Loss, expected: Callable[[Tensor, Tensor], Tensor]
) -> None:
    fake, real = torch.tensor([-2.0, 0.5, 3.0]), torch.tensor([1.0, -0.5, 4.0])
    torch.testing.assert_close(swapped(loss, make(), fake, real), expected(fake, real))


@pytest.mark.parametrize("loss", [Minimax(), Wasserstein()])
def test_zero_sum_losses_stay_zero_sum(make: Make, loss: Loss) -> None:
    fake, real = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(swapped(loss, make(), fake, real), -loss.discriminator(real, fake))


@pytest.mark.parametrize("loss", [loss for loss, _ in CLOSED_FORMS])
def test_generator_and_encoder_follow_the_other_side(make: Make, loss: Loss) -> None:
    # whatever D says while it is not yet certain, G's pairs go up and E's go down
    middle = loss.neutral_logit
    logits = (torch.randn(2, 20, generator=torch.Generator().manual_seed(0)) / 10 + middle).clamp(
        middle - 0.4, middle + 0.4
    )
    logits.requires_grad_()
    swapped(loss, make(), *logits).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[0] < 0).all() and (logits.grad[1] > 0).all()


@pytest.mark.parametrize("loss", [loss for loss, _ in CLOSED_FORMS if not loss.paired])
def test_the_neutral_logit_costs_the_discriminator_least_when_both_sides_get_it(loss: Loss) -> None:
    middle = torch.tensor(loss.neutral_logit)
    at = float(loss.discriminator(middle, middle))
    for beside in (middle - 0.1, middle + 0.1):
        assert float(loss.discriminator(beside, beside)) >= at - 1e-6


def test_pairs_of_generator_and_encoder(make: Make) -> None:
    module = make(classes=3).eval()
    images, z, labels = torch.randn(3, 2, 8, 8), torch.randn(3, 6), torch.tensor([2, 0, 1])
    batch = Batch(images, labels)
    real, code = module.real(batch)
    assert torch.equal(real, images)
    assert torch.equal(code, module.generator.encode(images))
    fake, latents = module.fake(z, batch)
    assert torch.equal(fake, module.generator(z, labels))
    assert torch.equal(latents, z)


def test_augmentations_change_images_and_not_codes(make: Make) -> None:
    class Negative(Augmentation):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[1:] == (2, 8, 8)
            return -images

    module = make(augmentations={"negative": Negative()})
    images, codes = torch.randn(3, 2, 8, 8), torch.randn(3, 6)
    changed, kept = module.augment((images, codes))
    assert torch.equal(changed, -images) and torch.equal(kept, codes)


def test_the_discriminator_depends_on_image_and_code(make: Make) -> None:
    module = make("model.discriminator.batch_norm=false")
    pair = torch.randn(4, 2, 8, 8, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    module.discriminate(pair, Batch(pair[0]), None).logits.sum().backward()
    for part in pair:
        assert part.grad is not None
        assert (part.grad != 0).float().mean() > 0.99


@pytest.mark.parametrize("loss", ["nonsaturating", "least_squares", "relativistic"])
def test_the_encoder_learns_with_the_generator(make: Make, loss: str) -> None:
    module = make(f"loss={loss}")
    before = {name: p.clone() for name, p in module.generator.named_parameters()}
    fit(module)
    for part in ("encoder.", "layers."):
        names = [name for name in before if name.startswith(part) and "weight" in name]
        now, kept = (dict(n.named_parameters()) for n in (module.generator, module.generator_ema))
        assert names
        for name in names:
            assert not torch.equal(before[name], now[name])
            assert not torch.equal(before[name], kept[name])  # and its average follows
    [g_optimizer, d_optimizer] = module.configure_optimizers()
    ids = {id(p) for group in g_optimizer.param_groups for p in group["params"]}
    assert all(id(p) in ids for p in module.generator.encoder.parameters())
    assert not ids & {id(p) for group in d_optimizer.param_groups for p in group["params"]}


def test_the_discriminators_step_does_not_change_the_encoder(make: Make) -> None:
    module = make("~model.generator_optimizer.betas", "~model.generator_optimizer.fused",
                  "model.generator_optimizer._target_=torch.optim.SGD", "model.generator_optimizer.lr=0")  # fmt: skip
    before = [p.clone() for p in module.generator.encoder.parameters()]
    d_before = [p.clone() for p in module.discriminator.parameters()]
    fit(module)
    after = list(module.generator.encoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(d_before, module.discriminator.parameters(), strict=True)
    )


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(
    "regularizers",
    [
        "r1,r2,gradient_penalty,dragan",
        "lecam,consistency,latent_consistency,latent_diversity,top_k",
        "weight_clipping,orthogonal",
    ],
)
def test_two_steps_with_penalties(make: Make, regularizers: str, classes: int) -> None:
    module = make(f"regularizer=[{regularizers}]", "total_kimg=0.008", classes=classes)
    fit(module)
    assert [player.steps_taken for player in module.players.values()] == [2, 2]
    assert all(torch.isfinite(p).all() for p in module.parameters())
    logged = {name for name in module.stats.take() if name.startswith("reg/")}
    silent = ("weight_clipping", "top_k")
    assert logged == {f"reg/{name}" for name in regularizers.split(",") if name not in silent}


@pytest.mark.parametrize("size", [4, 7, 12, [8, 16]])
def test_sizes(make: Make, size: Any) -> None:
    module = make(size=size).eval()
    z = torch.randn(3, 6)
    codes = module.generator.encode(module.generator(z))
    assert codes.shape == z.shape
    batch = Batch(torch.zeros(3, 1))
    assert module.discriminate(module.fake(z, batch), batch, None).logits.shape == (3,)
