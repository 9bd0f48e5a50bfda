from collections.abc import Callable

import torch
from torch.testing import assert_close

from gan_lab.layers.stylegan import AdaIN


def test_the_style_sets_mean_and_deviation() -> None:
    """Karras et al. 2019, equation 1."""
    torch.manual_seed(0)
    layer = AdaIN(features=3, w_dim=5)
    torch.nn.init.normal_(layer.affine.bias)
    x, w = torch.randn(4, 3, 6, 5) * 7 + 2, torch.randn(4, 5)
    y = w @ layer.affine.weight.T / 5**0.5 + layer.affine.bias
    mean = x.mean((2, 3), keepdim=True)
    deviation = x.std((2, 3), correction=0, keepdim=True)
    by_hand = y[:, :3, None, None] * (x - mean) / deviation + y[:, 3:, None, None]
    made = layer(x, w)
    assert_close(made, by_hand, rtol=1e-4, atol=1e-5)
    assert_close(made.mean((2, 3)), y[:, 3:], rtol=1e-4, atol=1e-5)
    assert_close(made.std((2, 3), correction=0), y[:, :3].abs(), rtol=1e-4, atol=1e-5)


def test_it_starts_with_scale_one_and_offset_zero() -> None:
    layer = AdaIN(features=3, w_dim=5)
    made = layer(torch.randn(2, 3, 8, 8), torch.zeros(2, 5))
    assert_close(made.mean((2, 3)), torch.zeros(2, 3), rtol=0, atol=1e-6)
    assert_close(made.var((2, 3), correction=0), torch.ones(2, 3))


def test_a_constant_feature_map_is_finite() -> None:
    layer, w = AdaIN(features=2, w_dim=5), torch.randn(3, 5)
    x = torch.ones(3, 2, 4, 4, requires_grad=True)
    made = layer(x, w)
    assert_close(made, layer.affine(w)[:, 2:, None, None].expand_as(made))
    made.sum().backward()
    assert x.grad.isfinite().all()


def test_statistics_of_half_precision_are_single() -> None:
    layer, w = AdaIN(features=2, w_dim=5), torch.zeros(1, 5)
    x = 100 + torch.randn(1, 2, 32, 32)
    made = layer(x.bfloat16(), w)
    assert made.dtype == torch.bfloat16
    assert_close(made.float().mean((2, 3)), torch.zeros(1, 2), rtol=0, atol=1e-2)


def test_gradients(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    check_gradients(AdaIN(features=2, w_dim=3), torch.randn(2, 2, 3, 2), torch.randn(2, 3))
