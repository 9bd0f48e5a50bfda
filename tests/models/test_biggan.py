"""BigGAN and BigGAN-deep against the published networks' outputs and sizes, and in training."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from omegaconf import DictConfig
from torch import nn
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.models import biggan, biggan_deep
from tests.helpers.published import Published
from tests.helpers.resnets import parameters, small
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
IMAGENET = {"image_size": 128, "channels": 3, "num_classes": 1000}
FAMILY = ["biggan", "biggan_deep"]


@pytest.mark.parametrize("name", ["biggan_32", "biggan_128", "biggan_deep_128"])
def test_outputs_are_the_published_ones(name: str) -> None:
    errors = Published(name).errors()
    assert max(errors.values()) < 1e-4, errors


def test_parameters_are_as_many_as_published() -> None:
    with torch.device("meta"):
        assert parameters(biggan.Generator(**IMAGENET)) == 70_433_988
        assert parameters(biggan.Discriminator(**IMAGENET)) == 87_982_370


@pytest.mark.parametrize("network", [biggan, biggan_deep])
def test_the_networks_of_large_images(network: ModuleType) -> None:
    arguments = {"image_size": 512, "channels": 3, "num_classes": 2, "width": 4}
    generator = network.Generator(**arguments, z_dim=16, shared_dim=4).eval()
    labels = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        images = generator(torch.randn(1, 16), labels)
        assert images.shape == (1, 3, 512, 512)
        assert network.Discriminator(**arguments)(images, labels).shape == (1,)


def test_labels_as_vectors_are_the_classes_they_stand_for() -> None:
    published = Published("biggan_32")
    vectors = nn.functional.one_hot(published.labels, 10).float()
    by_class = published.generator(published.z, published.labels)
    assert_close(published.generator(published.z, vectors), by_class)
    assert_close(
        published.discriminator(by_class, vectors),
        published.discriminator(by_class, published.labels),
    )


def test_each_chunk_reaches_its_block() -> None:
    torch.manual_seed(0)
    network = biggan.Generator(image_size=16, channels=1, z_dim=11, width=2).eval()
    assert network.z_dim == 9  # three chunks of three
    features: list[torch.Tensor] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: features.append(output))
    z = torch.randn(1, 9)
    network(z)
    before = list(features)
    z[:, 6:] += 1
    features.clear()
    network(z)
    assert torch.equal(features[0], before[0])
    assert not torch.equal(features[1], before[1])


def test_weights_are_initialized_orthogonally() -> None:
    torch.manual_seed(0)
    network = biggan.Generator(image_size=8, channels=1, num_classes=3, z_dim=8, width=2)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            rows = layer.weight.detach().flatten(1)
            rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
            assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", FAMILY)
@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(("size", "channels"), [(4, 1), ([8, 16], 4), (24, 3)])
def test_it_trains(
    compose: Compose, model: str, classes: int, size: int | list[int], channels: int
) -> None:
    module = small(compose, model, classes=classes, size=size, channels=channels)
    before = [p.clone() for p in module.parameters() if p.requires_grad]
    fit(module)
    after = [p for p in module.parameters() if p.requires_grad]
    assert all(p.isfinite().all() for p in after)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(after) / 2


@pytest.mark.parametrize("model", FAMILY)
def test_attention_and_any_loss(compose: Compose, model: str) -> None:
    game = ("loss=relativistic", "regularizer=[r1,r2,gradient_penalty]", "d_steps=1")
    module = small(compose, model, *game, "model.generator.attention=[8]", size=16, classes=10)
    for player in (module.generator, module.discriminator):
        assert sum(name.endswith("gamma") for name, _ in player.named_parameters()) == 1
    fit(module)
    assert all(p.isfinite().all() for p in module.parameters())


def test_the_average_copies_statistics_and_normalizes_its_own_weights(compose: Compose) -> None:
    module = fit(small(compose, "biggan", classes=10, steps=4))
    live, average = module.generator, module.generator_ema
    for kept, buffer in zip(average.buffers(), live.buffers(), strict=True):
        assert torch.equal(kept, buffer)
    for layer in average.modules():
        if isinstance(layer, nn.Conv2d):
            norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
            assert_close(norm.item(), 1.0, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z_dim": 2}, "z_dim=2 cannot be split into 3 chunks"),
        ({"shared_dim": 0}, "set shared_dim"),
        ({"attention": [6]}, r"has resolutions of \[8, 16\]"),
        ({"image_size": 50}, "set data.image_size=48 or 56"),
    ],
)
def test_invalid_arguments_are_rejected(given: dict[str, object], message: str) -> None:
    arguments = {"image_size": 16, "channels": 1, "num_classes": 3, "width": 2, **given}
    with pytest.raises(InputError, match=message):
        biggan.Generator(**arguments)


def test_missing_labels_are_an_error() -> None:
    network = biggan.Generator(image_size=8, channels=1, num_classes=3, width=2)
    with pytest.raises(ValueError, match="no labels given to a network of 3 classes"):
        network(torch.randn(2, network.z_dim))
