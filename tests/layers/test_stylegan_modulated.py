from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu
from torch.testing import assert_close

from gan_lab.layers.stylegan import StyledConv, ToRGB
from tests.helpers.resampling import resample


def styled(up: bool, **settings: float) -> StyledConv:
    torch.manual_seed(0)
    layer = StyledConv(
        inputs=3, outputs=4, w_dim=5, shape=(8, 8) if up else (4, 4), up=up, **settings
    )
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    return layer


@pytest.mark.parametrize("up", [False, True])
def test_scaling_activations_equals_scaling_weights(up: bool) -> None:
    """Equations 1 and 3 of the paper, with weights of their own for every image."""
    layer = styled(up, gain=0.7, clamp=1.5)
    x, w = torch.randn(2, 3, 4, 4), torch.randn(2, 5)
    rows = []
    for image, style in zip(x, layer.affine(w), strict=True):
        weight = layer.weight * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            y = conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
            y = resample(y, layer.resample_filter * 4, margins=(1, 1))
        else:
            y = conv2d(image[None], weight, padding=1)
        y = y + 0.3 * layer.noise_const + layer.bias[:, None, None]
        rows.append(leaky_relu(y, 0.2) * 2**0.5 * 0.7)
    assert_close(layer(x, w, "const"), torch.cat(rows).clamp(-1.5 * 0.7, 1.5 * 0.7))


def test_noise_modes() -> None:
    layer = styled(False)
    x, w = torch.randn(1, 3, 4, 4).expand(2, -1, -1, -1), torch.randn(1, 5).expand(2, -1)
    drawn, kept, none = (layer(x, w, kind) for kind in ("random", "const", "none"))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(kept[0], kept[1]) and torch.equal(none[0], none[1])
    assert not torch.equal(kept, none)
    torch.nn.init.zeros_(layer.noise_strength)
    assert_close(layer(x, w, "random"), none)


def test_images_are_modulated_without_demodulation() -> None:
    torch.manual_seed(0)
    layer = ToRGB(inputs=3, channels=2, w_dim=5)
    torch.nn.init.normal_(layer.bias)
    x, w = torch.randn(2, 3, 4, 6), torch.randn(2, 5)
    style = layer.affine(w)[:, :, None, None] / 3**0.5
    assert_close(layer(x, w), conv2d(x * style, layer.weight, layer.bias))


@pytest.mark.parametrize("up", [False, True])
def test_gradients(up: bool, check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    layer = StyledConv(
        inputs=2, outputs=2, w_dim=2, shape=(4, 4) if up else (2, 2), up=up, clamp=3.0
    )
    torch.nn.init.constant_(layer.noise_strength, 0.3)
    check_gradients(layer, torch.randn(1, 2, 2, 2), torch.randn(1, 2), noise="const")


def test_gradients_of_images(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    layer = ToRGB(inputs=2, channels=2, w_dim=2)
    check_gradients(layer, torch.randn(2, 2, 2, 2), torch.randn(2, 2))


@pytest.mark.parametrize("up", [False, True])
def test_half_precision_does_not_overflow(up: bool) -> None:
    """Activations at the clamp, times styles and sums over channels, would pass 65504."""
    torch.manual_seed(0)
    layer = StyledConv(
        inputs=64, outputs=8, w_dim=5, shape=(8, 8) if up else (4, 4), up=up, clamp=256.0
    )
    layer.affine.bias.data.mul_(1000.0)
    layer.weight.data.mul_(50.0)
    x, w = torch.randn(2, 64, 4, 4) * 200, torch.randn(2, 5)
    exact, half = layer(x, w, "none"), layer(x.half(), w, "none")
    assert half.dtype == torch.float16
    assert_close(half.float(), exact, rtol=0.02, atol=1.0)
