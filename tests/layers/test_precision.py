"""Under autocast the first and last layers compute in float32 for samples with more than 8 bits."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from gan_lab.layers.precision import keep_ends_in_float32
from gan_lab.models import dcgan, gan, r3gan, stylegan2

SHAPE = (1, 32, 32)
IMAGE = {"image_size": (32, 32), "channels": 1, "num_classes": 0}
PAIRS: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "dcgan": lambda: (
        dcgan.Generator(**IMAGE, width=4, z_dim=8),
        dcgan.Discriminator(**IMAGE, width=4),
    ),
    "gan": lambda: (
        gan.Generator(**IMAGE, z_dim=8, width=16),
        gan.Discriminator(**IMAGE, width=16),
    ),
    "r3gan": lambda: (
        r3gan.Generator(**IMAGE, z_dim=8, widths=8, cardinalities=2, blocks=1),
        r3gan.Discriminator(**IMAGE, widths=8, cardinalities=2, blocks=1),
    ),
    "stylegan2": lambda: (
        stylegan2.Generator(**IMAGE, z_dim=8, w_dim=8, channel_max=8),
        stylegan2.Discriminator(**IMAGE, channel_max=8),
    ),
}


def types_in(network: nn.Module) -> list[torch.dtype]:
    """What layers with weights are given, in the order in which they compute."""
    seen: list[torch.dtype] = []
    for part in network.modules():
        if isinstance(getattr(part, "weight", None), Tensor):
            part.register_forward_pre_hook(
                lambda module, given: seen.append(
                    torch.get_autocast_dtype("cpu")
                    if torch.is_autocast_enabled("cpu")
                    else given[0].dtype
                )
            )
    return seen


@pytest.mark.parametrize("name", PAIRS)
def test_first_and_last_layers_compute_in_float32(name: str) -> None:
    torch.manual_seed(0)
    generator, discriminator = PAIRS[name]()
    keep_ends_in_float32(generator, discriminator, SHAPE)
    copy = deepcopy(generator)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    z = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made, zeros = generator(z), copy(z)
        assert torch.is_autocast_enabled("cpu"), "the others stay in half precision"
        seen = types_in(discriminator)
        discriminator(made)
    assert made.dtype == torch.float32 and (made.bfloat16().float() != made).any()
    assert zeros.abs().max() == 0, "a copy computes with its own weights"
    assert seen[0] == torch.float32 and torch.bfloat16 in seen


def test_an_error_in_such_a_layer_restores_autocast() -> None:
    generator, discriminator = PAIRS["dcgan"]()
    keep_ends_in_float32(generator, discriminator, SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError):
            discriminator(torch.zeros(1, 1, 1, 32, 32, 2))
        assert torch.is_autocast_enabled("cpu")
