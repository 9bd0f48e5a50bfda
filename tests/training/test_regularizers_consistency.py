"""Consistency penalties against manual computation, and their transformations."""

import pytest
import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorInput, DiscriminatorNetwork
from gan_lab.training.regularizers import Consistency, LatentConsistency, LatentDiversity
from tests.helpers.steps import discriminator_step, generator_step


class Left(DiscriminatorNetwork):
    """D(x) = a times the mean of the left half less that of the right half: mirroring turns its sign."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        left, right = images.flatten(1, 2).chunk(2, dim=2)
        return self.a * (left - right).mean((1, 2))


class Scale(nn.Module):
    """G(z): an image [1, 2, 2] of the sum of z, times b."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(3.0))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.b * z.sum(1)[:, None, None, None].expand(-1, 1, 2, 2)


class Mean(DiscriminatorNetwork):
    """D(x) = a times the mean of x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.a * images.flatten(1).mean(1)


def images(count: int, *, seed: int = 0, size: int = 8) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def test_mirrored_images_cost_the_square_of_the_change() -> None:
    torch.manual_seed(0)
    real, fake = images(64), images(64, seed=1)
    network = Left()
    penalty = Consistency(weight=1, flip=True, shift=0, fakes=False)(
        discriminator_step(network, real, fake)
    )
    whole = (2 * network(real)).square()  # D(x) - D(mirror of x) = 2 D(x)
    mirrored = penalty > 0
    assert 16 < int(mirrored.sum()) < 48  # about one half
    torch.testing.assert_close(penalty[mirrored], whole[mirrored])


def test_generated_images_count_with_fakes_only() -> None:
    found = {}
    for fakes in (False, True):
        torch.manual_seed(0)
        penalty = Consistency(weight=1, shift=0, fakes=fakes)
        same = torch.ones(64, 1, 8, 8)  # of which every mirror image is itself
        found[fakes] = penalty(discriminator_step(Left(), same, images(64)))
    assert found[False].abs().max() == 0
    assert 16 < int((found[True] > 0).sum()) < 48


def test_both_sides_of_the_difference_are_learned_from() -> None:
    torch.manual_seed(0)
    network, real = Left(), images(8)
    penalty = Consistency(weight=1, shift=0, fakes=False)(discriminator_step(network, real, real))
    penalty.sum().backward()
    # each term is a^2 times something that does not depend on a: its derivative is 2 / a times itself
    torch.testing.assert_close(network.a.grad, 2 * penalty.detach().sum() / 2.0)


def test_images_are_shifted_separately_within_the_limit() -> None:
    torch.manual_seed(0)
    # a pixel at (4, 4) of 8x8 tells where it has gone
    dots = torch.zeros(500, 2, 8, 8)
    dots[:, :, 4, 4] = 1
    moved = Consistency(weight=1, flip=False, shift=0.25).transform(dots)
    assert moved.shape == dots.shape
    assert torch.equal(moved[:, 0], moved[:, 1])
    places = moved[:, 0].flatten(1).argmax(1)
    rows, columns = places // 8, places % 8
    assert sorted(set(rows.tolist())) == sorted(set(columns.tolist())) == [2, 3, 4, 5, 6]
    assert len(set(places.tolist())) == 25


def test_shifts_have_edge_padding() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    rows = Consistency(weight=1, flip=False, shift=0.25).transform(ramp.repeat(100, 1, 1, 1))
    for row in rows[:, 0, 0]:
        by = int(row[3]) - 3
        torch.testing.assert_close(row, (torch.arange(8.0) + by).clamp(0, 7))


def test_settings_without_effect_are_rejected() -> None:
    with pytest.raises(InputError, match="flip=false"):
        Consistency(weight=1, flip=False, shift=0)
    with pytest.raises(InputError, match=r"shift=1\.5"):
        Consistency(weight=1, shift=1.5)
    with pytest.raises(InputError, match="noise=0"):
        LatentConsistency(weight=1, noise=0)
    with pytest.raises(InputError, match="noise=-1"):
        LatentDiversity(weight=1, noise=-1)


def test_latent_consistency_is_the_square_of_the_step_in_z() -> None:
    # D(G(z)) = 2 * 3 * sum(z): the change is 6 * 0.1 times a normal number of variance Z
    generator, network = Scale(), Mean()
    z = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    step = discriminator_step(network, z, generator(z).detach(), z=z, generate=generator)
    penalty = LatentConsistency(weight=1, noise=0.1)(step)
    assert float(penalty.detach().mean()) == pytest.approx((6 * 0.1) ** 2 * 4, rel=0.05)
    penalty.mean().backward()
    assert network.a.grad is not None and network.a.grad > 0
    assert generator.b.grad is None  # D's penalty leaves the generator alone


@pytest.mark.parametrize("with_code", [False, True])
def test_latent_diversity_rewards_the_step_in_the_image(with_code: bool) -> None:
    generator = Scale()

    def generate(z: Tensor) -> DiscriminatorInput:
        return (generator(z), z) if with_code else generator(z)

    z = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    penalty = LatentDiversity(weight=1, noise=0.1)(generator_step(generator, z, generate))
    # every pixel changes by 3 * 0.1 times a normal number of variance Z
    assert float(penalty.detach().mean()) == pytest.approx(-((3 * 0.1) ** 2) * 4, rel=0.05)
    penalty.mean().backward()
    # d/db of -b^2 s is -2 b s: descending makes b larger, and the images differ more
    torch.testing.assert_close(generator.b.grad, 2 * penalty.detach().mean() / 3)
