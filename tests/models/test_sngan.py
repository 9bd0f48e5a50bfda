"""SNGAN and SAGAN: the papers' sizes, spectral norm, and training."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import nn
from torch.testing import assert_close

from gan_lab.models import sagan, sngan
from tests.helpers.resnets import parameters, small
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
FAMILY = ["sngan", "sagan"]


def convolution(inputs: int, outputs: int, kernel: int = 3) -> int:
    return inputs * outputs * kernel**2 + outputs


def test_the_networks_of_table_4() -> None:
    """Written out from Miyato et al. 2018, table 4: 256 channels in G, 128 in D, for 32x32x3."""
    generator = sngan.Generator(image_size=32, channels=3)
    block = 2 * convolution(256, 256) + convolution(256, 256, 1) + 2 * 2 * 256
    first, last = 128 * 4 * 4 * 256 + 4 * 4 * 256, 2 * 256 + convolution(256, 3)
    assert parameters(generator) == first + 3 * block + last
    discriminator = sngan.Discriminator(image_size=32, channels=3)
    opening = convolution(3, 128) + convolution(128, 128) + convolution(3, 128, 1)
    halving = 2 * convolution(128, 128) + convolution(128, 128, 1)
    assert parameters(discriminator) == opening + halving + 2 * 2 * convolution(128, 128) + 129


def test_layers_with_spectral_norm() -> None:
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)

    def normalized(network: nn.Module) -> list[bool]:
        return [hasattr(m, "parametrizations") for m in network.modules() if isinstance(m, kinds)]

    arguments = {"image_size": 16, "channels": 1, "num_classes": 3, "width": 4}
    assert not any(normalized(sngan.Generator(**arguments)))
    assert all(normalized(sngan.Discriminator(**arguments)))
    assert all(normalized(sagan.Discriminator(**arguments)))
    generator = sagan.Generator(**arguments)
    tables = sum(isinstance(m, nn.Embedding) for m in generator.modules())
    assert normalized(generator).count(False) == tables > 0


def test_initial_logits_prefer_no_class() -> None:
    torch.manual_seed(0)
    generator = sngan.Generator(image_size=8, channels=1, num_classes=4, width=4).eval()
    z = torch.randn(1, 128).expand(4, -1)
    images = generator(z, torch.arange(4))
    assert_close(images, images[:1].expand(4, -1, -1, -1))


@pytest.mark.parametrize("model", FAMILY)
@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize(("size", "channels"), [(4, 1), ([8, 16], 4), (24, 3)])
def test_it_trains(
    compose: Compose, model: str, classes: int, size: int | list[int], channels: int
) -> None:
    module = small(compose, model, "d_steps=2", classes=classes, size=size, channels=channels)
    before = [p.clone() for p in module.parameters() if p.requires_grad]
    fit(module)
    after = [p for p in module.parameters() if p.requires_grad]
    assert all(p.isfinite().all() for p in after)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(after) / 2


def test_attention_and_any_loss(compose: Compose) -> None:
    game = ("loss=wasserstein", "regularizer=[r1,gradient_penalty]")
    module = small(compose, "sagan", *game, "model.generator.attention=[8]", size=16, classes=10)
    fit(module)
    gammas = [p for name, p in module.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 3 and all(gamma.isfinite() for gamma in gammas)
    assert any(gamma != 0 for gamma in gammas)


def test_the_scale_of_weights_does_not_matter(compose: Compose) -> None:
    module = small(compose, "sngan", size=16, classes=10)
    images, labels = torch.randn(2, 1, 16, 16), torch.tensor([0, 1])
    network = module.discriminator.eval()
    before = network(images, labels)
    with torch.no_grad():
        network.blocks[1].conv2.parametrizations.weight.original.mul_(100)
    assert_close(network(images, labels), before)
