"""Self-attention against its formula, and its place in a network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.resnet import SelfAttention, attention_stages


def by_the_formula(layer: SelfAttention, x: Tensor) -> Tensor:
    """Position by position, as the paper writes it."""
    theta, phi, g = (
        layer.theta(x),
        max_pool2d(layer.phi(x), 2),
        max_pool2d(layer.g(x), 2),
    )
    mixed = torch.zeros(x.shape[0], g.shape[1], *x.shape[2:])
    for n in range(x.shape[0]):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                scores = (theta[n, :, i, j, None, None] * phi[n]).sum(0)
                share = scores.exp() / scores.exp().sum()
                mixed[n, :, i, j] = (share * g[n]).sum((1, 2))
    return x + layer.gamma * layer.o(mixed)


def test_it_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(SelfAttention(width=16)(x), x)


@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 4), (2, 6)])
def test_it_matches_the_formula(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(width=16), torch.randn(2, 16, *size)
    nn.init.constant_(layer.gamma, 0.7)
    assert_close(layer(x), by_the_formula(layer, x))


def test_gradients(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    layer = SelfAttention(width=8)
    nn.init.constant_(layer.gamma, 0.7)
    check_gradients(layer, torch.randn(1, 8, 2, 4))


def test_each_resolution_has_attention_once_and_larger_ones_are_ignored() -> None:
    sizes = [(8, 16), (16, 32), (16, 32), (32, 64)]
    assert attention_stages([16, 64], sizes) == [False, True, False, False]
    assert attention_stages([], sizes) == [False] * 4
    with pytest.raises(InputError, match=r"has resolutions of \[8, 16, 32\]"):
        attention_stages([24], sizes)


def test_too_few_channels_are_rejected() -> None:
    with pytest.raises(InputError, match="at least 8"):
        SelfAttention(width=4)
