from collections.abc import Callable

import pytest
import torch

from gan_lab.data.images import image_spec
from gan_lab.explore.studio import Studio
from gan_lab.models import biggan, stylegan2
from gan_lab.sampling.gan import Gan


@pytest.fixture(scope="session")
def styled() -> Gan:
    """A StyleGAN2 of three classes whose styles differ from each other."""
    torch.manual_seed(0)
    generator = stylegan2.Generator(
        image_size=16,
        channels=1,
        num_classes=3,
        z_dim=8,
        w_dim=8,
        mapping_layers=2,
        channel_base=64,
        channel_max=8,
    )
    return Gan(
        generator.eval().requires_grad_(False),
        spec=image_spec(channels=1, image_size=(16, 16), class_names=["cat", "dog", "<owl>"]),
    )


@pytest.fixture(scope="session")
def unstyled() -> Gan:
    """A BigGAN of three classes."""
    torch.manual_seed(0)
    generator = biggan.Generator(
        image_size=32, channels=3, num_classes=3, z_dim=20, shared_dim=8, width=4, attention=()
    )
    return Gan(
        generator.eval().requires_grad_(False),
        spec=image_spec(channels=3, image_size=(32, 32), class_names=["cat", "dog", "owl"]),
    )


@pytest.fixture
def studio() -> Callable[[Gan], Studio]:
    return lambda gan: Studio(gan, name="run")
