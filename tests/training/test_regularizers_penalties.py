"""Penalties against manual computation for discriminators with known gradients."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorInput, DiscriminatorNetwork
from gan_lab.training.regularizers import (
    R1,
    R2,
    DiscriminatorOrthogonal,
    Dragan,
    GeneratorOrthogonal,
    GradientPenalty,
    Regularizer,
    WeightClipping,
)
from gan_lab.training.steps import DiscriminatorStep, requiring_grad
from tests.helpers.steps import discriminator_step, generator_step

SLOPE = torch.arange(1.0, 13.0).reshape(3, 2, 2)


class Linear(DiscriminatorNetwork):
    """D(x) = <slope, x>: its gradient is the slope everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(SLOPE.clone())

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return (images * self.slope).sum((1, 2, 3))


class Quadratic(DiscriminatorNetwork):
    """D(x) = a |x|^2 / 2: its gradient at x is a x."""

    def __init__(self, a: float = 3.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.a * images.square().sum((1, 2, 3)) / 2


def step_of(
    network: DiscriminatorNetwork, real: DiscriminatorInput, fake: DiscriminatorInput
) -> DiscriminatorStep:
    """Return a step whose samples can be differentiated by."""
    return discriminator_step(network, requiring_grad(real), requiring_grad(fake))


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 3, 2, 2, generator=generator), torch.randn(
        5, 3, 2, 2, generator=generator
    )


@pytest.mark.parametrize("penalty", [R1(weight=1), R2(weight=1)])
def test_zero_centered_penalties_of_a_linear_discriminator(
    penalty: Regularizer, pair: tuple[Tensor, Tensor]
) -> None:
    found = penalty(step_of(Linear(), *pair))
    torch.testing.assert_close(found, (SLOPE.square().sum() / 2).expand(5))


def test_r1_is_on_real_images_and_r2_on_generated_ones(pair: tuple[Tensor, Tensor]) -> None:
    real, fake = pair
    found = (
        R1(weight=1)(step_of(Quadratic(), real, fake)),
        R2(weight=1)(step_of(Quadratic(), real, fake)),
    )
    for penalty, images in zip(found, pair, strict=True):
        torch.testing.assert_close(penalty, 9 * images.square().sum((1, 2, 3)) / 2)


def test_r1_moves_the_discriminator_as_its_derivative_says(pair: tuple[Tensor, Tensor]) -> None:
    # d/da of a^2 |x|^2 / 2 is a |x|^2
    network = Quadratic()
    R1(weight=1)(step_of(network, *pair)).sum().backward()
    torch.testing.assert_close(network.a.grad, 3 * pair[0].square().sum())


@pytest.mark.parametrize("penalty", [GradientPenalty(weight=1), Dragan(weight=1)])
def test_one_centered_penalties_of_a_linear_discriminator(
    penalty: Regularizer, pair: tuple[Tensor, Tensor]
) -> None:
    found = penalty(step_of(Linear(), *pair))
    torch.testing.assert_close(found, (SLOPE.norm() - 1).square().expand(5))


def test_gradient_penalty_lies_between_the_pair_of_each_image() -> None:
    # real at 0 and fake at distance i: the norm is 3 u_i i, one u an image
    real = torch.zeros(64, 1, 1, 1)
    fake = torch.arange(64.0).reshape(64, 1, 1, 1)
    found = (
        GradientPenalty(weight=1, center=0)(step_of(Quadratic(), real, fake)).detach().sqrt() / 3
    )
    share = found[1:] / torch.arange(1.0, 64.0)
    assert ((share >= 0) & (share <= 1)).all()
    assert share.unique().numel() == 63
    assert abs(float(share.mean()) - 0.5) < 0.15


@pytest.mark.parametrize("penalty", [GradientPenalty(weight=1), Dragan(weight=1), R1(weight=1)])
def test_penalties_of_inputs_that_are_rows(penalty: Regularizer) -> None:
    # such as pairs of an image and its code
    class Rows(DiscriminatorNetwork):
        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            return images @ torch.tensor([3.0, 4.0])

    real, fake = torch.randn(5, 2), torch.randn(5, 2)
    expected = 5**2 / 2 if isinstance(penalty, R1) else (5 - 1) ** 2
    found = penalty(step_of(Rows(), real, fake))
    torch.testing.assert_close(found, torch.full((5,), float(expected)))


def test_gradient_penalty_survives_a_gradient_of_zero() -> None:
    network = Quadratic()
    zeros = torch.zeros(2, 3, 2, 2)
    GradientPenalty(weight=1)(step_of(network, zeros, zeros.clone())).sum().backward()
    assert torch.isfinite(network.a.grad).all()


def test_dragan_is_evaluated_near_real_images() -> None:
    torch.manual_seed(0)
    seen = []

    class Watched(Quadratic):
        def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
            seen.append(images.detach())
            return super().forward(images, labels)

    real = torch.randn(4000, 1, 1, 1) * 2 + 5
    step = step_of(Watched(), real, torch.zeros_like(real))
    found = Dragan(weight=1, noise=0.5)(step).detach()
    torch.testing.assert_close(found, (3 * seen[0].abs().flatten() - 1).square())
    delta = seen[0] - real
    assert float(delta.std()) == pytest.approx(0.5 * float(real.std()), rel=0.05)
    assert abs(float(delta.mean())) < 0.1


def test_weight_clipping_clamps_and_penalizes_nothing() -> None:
    network = Linear()
    clipping = WeightClipping(limit=2.5)
    clipping.after_step(network)
    torch.testing.assert_close(network.slope.detach(), SLOPE.clamp(max=2.5))
    assert not clipping.penalizes


def test_orthogonal_is_zero_for_orthogonal_filters_of_any_length() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Linear(8, 5), nn.ConvTranspose2d(5, 3, 2))
    with torch.no_grad():
        nn.init.orthogonal_(network[0].weight).mul_(7)
        nn.init.orthogonal_(network[1].weight)
        rows = nn.init.orthogonal_(torch.empty(3, 20))
        network[2].weight.copy_(rows.reshape(3, 5, 2, 2).transpose(0, 1))
    step = generator_step(network, torch.zeros(1, 1))
    assert float(GeneratorOrthogonal(weight=1)(step).detach()) == pytest.approx(0, abs=1e-6)


def test_orthogonal_counts_every_pair_of_filters_twice() -> None:
    network = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    step = generator_step(network, torch.zeros(1, 1))
    assert float(GeneratorOrthogonal(weight=1)(step).detach()) == pytest.approx(
        2 * (1 * 3 + 2 * 4) ** 2
    )


def test_orthogonal_is_on_the_weights_that_are_trained() -> None:
    plain = nn.Linear(3, 4)
    normalized = spectral_norm(nn.Linear(3, 4))
    with torch.no_grad():
        normalized.parametrizations.weight.original.copy_(plain.weight)  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in normalized.state_dict().items()}
    penalties = [
        float(GeneratorOrthogonal(weight=1)(generator_step(network, torch.zeros(1, 1))).detach())
        for network in (plain, normalized)
    ]
    assert penalties[0] == penalties[1] > 0
    assert all(torch.equal(before[n], v) for n, v in normalized.state_dict().items()), (
        "no power step is taken"
    )


def test_orthogonal_is_the_same_for_both_players() -> None:
    class Filters(DiscriminatorNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

    network, x = Filters(), torch.zeros(1, 1)
    ours = DiscriminatorOrthogonal(weight=1)(discriminator_step(network, x, x))
    assert ours == GeneratorOrthogonal(weight=1)(generator_step(network, x)) > 0


@pytest.mark.parametrize("kind", [GeneratorOrthogonal, DiscriminatorOrthogonal])
def test_orthogonal_without_filters(kind: type[GeneratorOrthogonal]) -> None:
    with pytest.raises(InputError, match=f"the {kind.player} has neither convolutions nor linear"):
        kind(weight=1).check(nn.BatchNorm2d(2))


@pytest.mark.parametrize("wrong", [{"weight": -1}, {"weight": 1, "interval": 0}])
def test_impossible_weights_and_intervals(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="weight must be >= 0 and interval >= 1"):
        R1(**wrong)  # type: ignore[arg-type]


def test_a_limit_of_zero_is_rejected() -> None:
    with pytest.raises(InputError, match="limit=0"):
        WeightClipping(limit=0)
