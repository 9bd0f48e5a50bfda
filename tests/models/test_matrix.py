"""Every loss with every regularizer on every model takes two steps that move both players."""

import itertools
from typing import Any

import pytest
import torch

from tests.models.conftest import SMALL, Make, fit

LOSSES = ["minimax", "nonsaturating", "least_squares", "hinge", "wasserstein", "relativistic"]
REGULARIZERS = ["none", "r1", "r2", "gradient_penalty", "dragan", "weight_clipping", "orthogonal"]
MODELS = list(SMALL)


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


@pytest.mark.parametrize(
    ("model", "loss", "regularizer"), list(itertools.product(MODELS, LOSSES, REGULARIZERS))
)
def test_two_steps(make: Make, model: str, loss: str, regularizer: str) -> None:
    # unconditional for half of them, so that both ways are met with every loss and every model
    classes = 10 if REGULARIZERS.index(regularizer) % 2 else 0
    module = make(
        model, f"loss={loss}", f"regularizer=[{regularizer}]", "d_steps=1", classes=classes
    )
    before = weights(module.generator), weights(module.discriminator)
    fit(module)
    after = weights(module.generator), weights(module.discriminator)
    for old, new in zip(before, after, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
        assert all(torch.isfinite(p).all() for p in new)
    assert module.images_seen == module.total_images
    assert module.steps_taken == {"generator": 2, "discriminator": 2}


def test_all_regularizers_at_once(make: Make) -> None:
    module = make("wgan_gp", f"regularizer=[{','.join(REGULARIZERS[1:])}]", "d_steps=1")
    fit(module)
    named = {name for name in module.stats.take() if name.startswith("reg/")}
    assert named == {f"reg/{name}" for name in REGULARIZERS[1:] if name != "weight_clipping"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [4, 7, 8, 12, [8, 16], [24, 16]])
def test_sizes_and_channels(make: Make, model: str, channels: int, size: Any) -> None:
    module = make(model, channels=channels, size=size, classes=3)
    height, width = (size, size) if isinstance(size, int) else size
    labels = torch.tensor([0, 2, 1])
    images = module.generator(torch.randn(3, module.generator.latent_dim), labels)
    assert images.shape == (3, channels, height, width)
    assert images.abs().max() <= 1
    assert module.discriminator(images, labels).shape == (3,)


@pytest.mark.parametrize("model", ["dcgan", "lsgan", "wgan_gp"])
@pytest.mark.parametrize(
    ("size", "remedy"), [(50, "48 or 56"), (3, "=4"), ([8, 9], "=8"), (36, "32 or 40")]
)
def test_a_size_that_the_network_cannot_make(
    make: Make, model: str, size: Any, remedy: str
) -> None:
    with pytest.raises(ValueError, match=r"set data.image_size=.*") as caught:
        make(model, size=size)
    assert remedy in str(caught.value.__cause__ or caught.value)
