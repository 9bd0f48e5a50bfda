"""Penalties by finite differences: their closed form, and R1 as their mean."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork
from gan_lab.models import sngan, stylegan2
from gan_lab.training.augment.diffaugment import DiffAugment
from gan_lab.training.module import AdversarialModule
from gan_lab.training.regularizers import R1, Approximate, ApproximateR1, ApproximateR2
from gan_lab.training.steps import DiscriminatorStep, requiring_grad
from tests.helpers.steps import discriminator_step
from tests.models.conftest import Make, fit, make

__all__ = ["make"]

SLOPE = torch.arange(1.0, 13.0).reshape(3, 2, 2)


class Linear(DiscriminatorNetwork):
    """D(x) = <slope, x>."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return (images * SLOPE.to(images)).sum((1, 2, 3))


@pytest.mark.parametrize("noise", [1e-3, 0.01, 10.0])
@pytest.mark.parametrize("penalty", [ApproximateR1, ApproximateR2])
def test_linear_discriminator_with_any_noise(penalty: type[Approximate], noise: float) -> None:
    images = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    step = discriminator_step(Linear(), images, images + 1)
    torch.manual_seed(7)
    found = penalty(weight=1, noise=noise)(step)
    torch.manual_seed(7)
    moved = (torch.randn_like(images) * SLOPE).sum((1, 2, 3))
    torch.testing.assert_close(found.double(), moved.square() / 2, rtol=1e-3, atol=0)


def test_its_mean_is_half_of_the_squared_norm_and_its_deviation_that_of_one_normal() -> None:
    images = torch.randn(20_000, 3, 2, 2)
    found = ApproximateR1(weight=1)(discriminator_step(Linear(), images, images))
    exact = SLOPE.square().sum() / 2
    torch.testing.assert_close(found.mean(), exact, rtol=0.05, atol=0)
    torch.testing.assert_close(found.std(), exact * 2**0.5, rtol=0.05, atol=0)


NETWORKS: dict[str, Callable[[], DiscriminatorNetwork]] = {
    # the power method moves the weights in each pass, and each sample's deviation depends on others
    "sngan": lambda: sngan.Discriminator(image_size=8, channels=1, width=4),
    "stylegan2": lambda: stylegan2.Discriminator(
        image_size=8, channels=1, channel_base=64, channel_max=8, mbstd_group_size=0
    ),
}


def augmented(network: DiscriminatorNetwork, images: Tensor) -> DiscriminatorStep:
    augment = DiffAugment()
    step = discriminator_step(network, requiring_grad(images), requiring_grad(images))
    plain = step.discriminate
    step.discriminate = lambda x, role: plain(augment(x), role)  # type: ignore[arg-type]
    return step


@pytest.mark.parametrize("name", list(NETWORKS))
def test_bias_and_variance_against_r1_of_a_real_discriminator(name: str) -> None:
    """Under augmentation, and spectral norm in training mode: both passes see one view and one version of weights."""
    torch.manual_seed(0)
    network = NETWORKS[name]().double()
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64).repeat(100, 1, 1, 1)
    with parametrize.cached():
        step = augmented(network, images)
        exact = R1(weight=1)(step).detach()
        ratios = {}
        for noise in (1e-3, 1e-2, 1.0):
            found = ApproximateR1(weight=1, noise=noise)(step).detach() / exact
            ratios[noise] = float(found.mean())
            if noise < 0.1:
                assert 1 < float(found.std()) < 2, "sqrt(2) for one normal number"
    assert abs(ratios[1e-3] - 1) < 0.2 and abs(ratios[1e-2] - 1) < 0.2
    assert abs(ratios[1.0] - 1) > abs(ratios[1e-2] - 1) or ratios[1.0] < 0.9


class OnceDifferentiable(torch.autograd.Function):
    """A square without a second derivative, as compiled code."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        assert not torch.is_grad_enabled(), "to be differentiated once more"
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2 * x * gradient


class Squares(DiscriminatorNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return OnceDifferentiable.apply(images * self.scale).sum((1, 2, 3))  # type: ignore[no-untyped-call]


def test_it_needs_no_second_derivative() -> None:
    network, images = Squares(), torch.randn(4, 1, 4, 4)
    ApproximateR1(weight=1)(discriminator_step(network, images, images)).mean().backward()
    assert network.scale.grad is not None and network.scale.grad != 0
    step = discriminator_step(network, requiring_grad(images), images)
    with pytest.raises(AssertionError, match="once more"):
        R1(weight=1)(step).mean().backward()


def test_an_image_repeated_for_several_stages_is_perturbed_once() -> None:
    class Sum(DiscriminatorNetwork):
        def forward(self, x: tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return sum(part.flatten(1).sum(1) for part in x)  # type: ignore[return-value]

    image = torch.randn(20_000, 1, 1, 1)
    step = discriminator_step(Sum(), (image, image), (image, image + 1))
    real, fake = (made(weight=1)(step).mean() for made in (ApproximateR1, ApproximateR2))
    torch.testing.assert_close(real, torch.tensor(2.0), rtol=0.05, atol=0)  # (1 + 1)^2 / 2
    torch.testing.assert_close(fake, torch.tensor(1.0), rtol=0.05, atol=0)  # (1^2 + 1^2) / 2
    leaf = requiring_grad((image, image))
    exact = R1(weight=1)(discriminator_step(Sum(), leaf, leaf))
    torch.testing.assert_close(exact, torch.full_like(exact, 2.0))


@pytest.mark.parametrize("overrides", [(), ("regularizer.approximate_r1.interval=2",)])
def test_weight_interval_and_size_by_configuration(make: Make, overrides: tuple[str, ...]) -> None:
    module: AdversarialModule = make(
        "dcgan",
        "regularizer=[approximate_r1,approximate_r2]",
        "regularizer.approximate_r2.weight=3",
        "regularizer.approximate_r2.noise=0.1",
        *overrides,
    )
    fit(module)
    found = module.stats.take()
    assert found["reg/approximate_r1"] > 0 and found["reg/approximate_r2"] > 0
    assert module.regularizers["approximate_r2"].noise == 0.1


def test_the_random_state_is_restored() -> None:
    images = torch.randn(4, 1, 8, 8)
    drawn = []
    for penalize in (False, True):
        torch.manual_seed(0)
        step = augmented(NETWORKS["stylegan2"](), images)
        torch.manual_seed(1)
        first = step.real_logits
        if penalize:
            state = torch.get_rng_state()
            assert torch.equal(step.replayed(step.real, "real"), first)
            assert torch.equal(torch.get_rng_state(), state)
        drawn.append(torch.rand(()))
    assert torch.equal(*drawn)


def test_zero_noise_is_rejected() -> None:
    with pytest.raises(InputError, match="noise=0"):
        ApproximateR1(weight=1, noise=0)
