"""Modulated convolution: styles scale the input channels, demodulation brings the outputs back to unit variance.

Karras et al. 2020, section 2.2, https://arxiv.org/abs/1912.04958. Equations 1 and 3 scale the weights, once for every
image. As convolution is linear, the same follows from scaling the activations, with one set of weights for all:

    y_n = d_n * conv(w, s_n * x_n),  d_n,o = (sum_i s_n,i^2 sum_k w_o,i,k^2 + eps)^-1/2

where the demodulation d is one matrix product.
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from gan_lab.layers.equalized import RECTIFIER_GAIN, EqualizedLinear, rectify
from gan_lab.layers.noise import Noise, noise_of
from gan_lab.layers.precision import raised
from gan_lab.layers.resampling import FirFilter, smooth

EPSILON = 1e-8


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Return d [N, O] for weights [O, I, K, K] and styles [N, I], never in half precision."""
    with torch.autocast(style.device.type, enabled=False):
        return (raised(style).square() @ weight.square().sum((2, 3)).T + EPSILON).rsqrt()


def within_half_range(weight: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """Scale weights and styles so that half precision can hold sums of their products; demodulation undoes both.

    The largest weight of an output channel becomes 1 / sqrt(fan_in), the largest style of an image 1 (Karras et al.
    2020, ADA, appendix D, https://arxiv.org/abs/2006.06676).
    """
    fan_in = weight[0].numel()
    largest = weight.abs().amax((1, 2, 3), keepdim=True)
    return weight / (largest * sqrt(fan_in)), style / style.abs().amax(1, keepdim=True)


class StyledConv(nn.Module):
    """Modulated and demodulated 3x3 convolution, noise, bias, leaky rectifier.

    Attributes:
        noise: the constant noise [H, W] of `noise="const"`.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        style_dim: length of w.
        shape: height and width of the output.
        up: whether to double the resolution: a transposed convolution, then the low-pass filter.
        gain: a factor of the output.
        clamp: the output is cut to [-clamp, clamp] * gain; None for no limit.
    """

    noise: Tensor

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        style_dim: int,
        shape: tuple[int, int],
        up: bool = False,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(inputs=style_dim, outputs=inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.randn(shape))
        self.fir = FirFilter() if up else None
        self.gain = gain * RECTIFIER_GAIN
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        """Map [N, inputs, H, W] and w [N, style_dim] to [N, outputs, H', W'], in the type of `x`."""
        weight: Tensor = self.weight
        style = self.affine(w)
        if x.dtype == torch.float16:
            weight, style = within_half_range(weight, style)
        scale = demodulation(weight, style) * self.gain
        x = x * style.to(x.dtype)[:, :, None, None]
        weight = weight.to(x.dtype)
        if self.fir is None:
            x = conv2d(x, weight, padding=1)
        else:
            x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = smooth(x, self.fir() * 4, grow=-1)
        offset = (self.bias * self.gain)[:, None, None]
        if noise != "none":
            offset = offset + noise_of(noise, self.noise, x.shape[0]) * (
                self.noise_strength * self.gain
            )
        x = torch.addcmul(offset.to(x.dtype), x, scale.to(x.dtype)[:, :, None, None])
        return rectify(x, self.clamp)


class ToImage(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation (section 2.2) and activation.

    Args:
        inputs: channels that come in.
        channels: of the image.
        style_dim: length of w.
        clamp: the output is cut to [-clamp, clamp]; None for no limit.
    """

    def __init__(
        self, *, inputs: int, channels: int, style_dim: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(inputs=style_dim, outputs=inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.weight_gain = 1 / sqrt(inputs)
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [N, inputs, H, W] and w [N, style_dim] to [N, channels, H, W], in float32."""
        # so few outputs that weights for each image are cheaper than another pass over the input
        style = self.affine(w) * self.weight_gain
        weights = style[:, None, :] * self.weight[None, :, :, 0, 0]  # [N, channels, inputs]
        x = torch.baddbmm(
            self.bias[:, None].to(x.dtype), weights.to(x.dtype), x.flatten(2)
        ).unflatten(2, x.shape[2:])
        return raised(x if self.clamp is None else x.clamp(-self.clamp, self.clamp))
