"""R3GAN against the published networks' outputs and sizes, and what the paper says of its initialization."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from omegaconf import DictConfig
from torch.nn.functional import softplus
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import AuxiliaryClassifier
from gan_lab.layers.networks import Role
from gan_lab.models.r3gan import Discriminator, Generator
from tests.helpers.published import Published
from tests.helpers.resnets import parameters, small
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
CIFAR10 = {"image_size": 32, "channels": 3, "num_classes": 10}
FFHQ64 = {"image_size": 64, "channels": 3}


def test_outputs_are_the_published_ones() -> None:
    errors = Published("r3gan_cond_32").errors()
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize(
    ("arguments", "generator", "discriminator"),
    [(CIFAR10, 20_781_952, 21_280_512), (FFHQ64, 22_429_824, 22_381_440)],
)
def test_parameters_are_as_many_as_published(
    arguments: dict[str, int], generator: int, discriminator: int
) -> None:
    with torch.device("meta"):
        assert parameters(Generator(**arguments)) == generator
        assert parameters(Discriminator(**arguments)) == discriminator


def test_blocks_begin_as_the_identity_and_weights_keep_the_variance() -> None:
    torch.manual_seed(0)
    network = Generator(image_size=32, channels=3, widths=128, cardinalities=8)
    x = torch.randn(2, 128, 8, 8)
    assert torch.equal(network.stages[1](x), x)
    # L = 8 blocks of m = 3 convolutions: gain * L^(-1 / (2m - 2)) over the square root of the fan-in
    expected = (2 / 1.04) ** 0.5 * 8**-0.25
    for name, fan_in in (("conv1", 128), ("conv2", 256 // 8 * 9)):
        weight = getattr(network.stages[2][1], name).weight
        assert_close(weight.std().item(), expected / fan_in**0.5, rtol=0.02, atol=0)
    images = network(torch.randn(16, 64))
    # z, basis, three binomial doublings and a last layer of variance 1
    assert 0.2 < images.std().item() < 1.5


@pytest.mark.parametrize("role", ["real", None])
def test_a_loss_and_penalties_share_a_backward_pass(role: Role | None) -> None:
    """Logits, gradients by images, and those of a loss with R1 and a class loss by weights are the plain ones."""
    torch.manual_seed(0)
    network = Discriminator(
        image_size=8,
        channels=3,
        num_classes=3,
        label_dim=8,
        widths=8,
        cardinalities=2,
        conditioning=partial(AuxiliaryClassifier, weight=0.3),
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    found = []
    for discriminate in (network.discriminate, super(Discriminator, network).discriminate):
        x = images.clone().requires_grad_()
        # as an augmentation does
        output = discriminate(x * 0.7 + 0.1, labels, role)
        (slope,) = torch.autograd.grad(output.logits.sum(), x, create_graph=True)
        total = softplus(-output.logits).mean() + slope.square().sum()
        total = total + sum(loss.mean() for loss in output.losses.values())
        by_weights = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
        found.append((output.logits, slope, *by_weights))
    assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)


def test_labels_as_vectors_are_the_classes_they_stand_for() -> None:
    published = Published("r3gan_cond_32")
    labels = published.labels.argmax(1)
    images = published.generator(published.z, labels)
    assert torch.equal(images, published.generator(published.z, published.labels))
    other = published.generator(published.z, (labels + 1) % 5)
    assert (images - other).abs().mean() > 1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widths": [8, 8, 8]}, r"widths=\[8, 8, 8\].*each of the 4"),
        ({"cardinalities": 7}, "7 groups do not divide"),
        ({"blocks": [1, 2]}, r"blocks=\[1, 2\]"),
        ({"image_size": 50}, "set data.image_size=48 or 56"),
    ],
)
@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_what_does_not_fit_is_explained(
    network: type[Generator], given: dict[str, object], message: str
) -> None:
    arguments = {"image_size": 32, "channels": 3, "widths": 8, "cardinalities": 2, **given}
    with pytest.raises(InputError, match=message):
        network(**arguments)


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(("size", "channels"), [(4, 1), ([8, 16], 4), (24, 3)])
def test_one_loop_trains_it(
    compose: Compose, classes: int, size: int | list[int], channels: int
) -> None:
    module = small(compose, "r3gan", classes=classes, size=size, channels=channels)
    before = [p.clone() for p in module.parameters() if p.requires_grad]
    fit(module)
    after = [p for p in module.parameters() if p.requires_grad]
    assert all(p.isfinite().all() for p in after)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(after) / 2


def test_settings_follow_their_schedules(compose: Compose) -> None:
    module = small(compose, "r3gan", "total_kimg=0.04", batch_size=4, steps=10)
    module.configure_optimizers()
    seen = {}
    for kimg in (0, 0.02, 0.04):
        module.scheduled.apply(kimg)
        seen[kimg] = (module.regularizers["r1"].weight, module.ema.half_life_kimg)
    assert_close(seen[0], (0.05, 0.0))
    assert_close(seen[0.02], (0.0275, 2500.0))
    assert_close(seen[0.04], (0.005, 5000.0))
