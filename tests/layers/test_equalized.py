from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import conv2d, leaky_relu
from torch.testing import assert_close

from gan_lab.layers.equalized import EqualizedConv2d, EqualizedLinear
from tests.helpers.resampling import resample


def test_outputs_have_the_variance_of_inputs_whatever_the_width() -> None:
    torch.manual_seed(0)
    for width in (16, 512):
        x = torch.randn(256, width)
        plain = EqualizedLinear(inputs=width, outputs=256)(x)
        lrelu = EqualizedLinear(inputs=width, outputs=256, lrelu=True)(x)
        assert plain.square().mean().item() == pytest.approx(1, rel=0.1)
        # E[lrelu(x)^2] = (1 + 0.04) / 2 for standard normal x
        assert lrelu.square().mean().item() == pytest.approx(1.04, rel=0.1)


def test_the_learning_rate_multiplier_changes_steps_and_not_outputs() -> None:
    torch.manual_seed(0)
    layer = EqualizedLinear(inputs=8, outputs=4, bias=1.0, lr_multiplier=0.01)
    x = torch.randn(5, 8)
    weight = layer.weight * 0.01 / 8**0.5
    assert_close(layer(x), x @ weight.T + 1)
    assert layer.weight.std() > 50


@pytest.mark.parametrize(("kernel", "resampling"), [(3, None), (3, "down"), (1, "up"), (1, "down")])
def test_convolution_is_filter_then_convolution_then_lrelu(
    kernel: int, resampling: str | None
) -> None:
    torch.manual_seed(0)
    layer = EqualizedConv2d(
        inputs=3, outputs=5, kernel=kernel, resample=resampling, gain=0.5, clamp=0.9
    )
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 8, 8)
    weight = layer.weight / (3 * kernel**2) ** 0.5
    if resampling == "down":
        margins = (2, 2) if kernel == 3 else (1, 1)
        y = resample(x, layer.resample_filter, margins=margins)
        y = conv2d(y, weight, stride=2)
    elif resampling == "up":
        y = resample(conv2d(x, weight), layer.resample_filter * 4, up=2, margins=(2, 1))
    else:
        y = conv2d(x, weight, padding=1)
    y = leaky_relu(y + layer.bias[:, None, None], 0.2) * 2**0.5 * 0.5
    assert_close(layer(x), y.clamp(-0.45, 0.45))


@pytest.mark.parametrize("taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0)])
def test_upsampling_is_zero_insertion_filter_and_convolution(taps: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    layer = EqualizedConv2d(inputs=3, outputs=5, kernel=3, resample="up", taps=taps)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 6, 8)
    # the convolution, which commutes with the filter, behind it; the image ends after all that
    width = len(taps) // 2
    y = resample(x, layer.resample_filter * 4, up=2, margins=(width + 1, width))
    y = conv2d(y, layer.weight.flip(2, 3) / 27**0.5)
    y = leaky_relu(y + layer.bias[:, None, None], 0.2) * 2**0.5
    assert_close(layer(x), y)


@pytest.mark.parametrize(
    ("kernel", "resampling"), [(3, None), (3, "up"), (3, "down"), (1, "up"), (1, "down")]
)
def test_gradients(
    kernel: int, resampling: str | None, check_gradients: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    layer = EqualizedConv2d(inputs=2, outputs=2, kernel=kernel, resample=resampling, clamp=2.0)
    check_gradients(layer, torch.randn(1, 2, 4, 4))


def test_gradients_of_linear_layers(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    check_gradients(EqualizedLinear(inputs=3, outputs=2, lrelu=True), torch.randn(2, 3))
