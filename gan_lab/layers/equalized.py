"""Equalized learning rate: weights are drawn from N(0, 1) and scaled when used.

w = w_stored * gain / sqrt(fan_in), so that an optimizer that is invariant to the scale of gradients (Adam) updates
all layers at the same relative speed. Karras et al. 2018, section 4.1, https://arxiv.org/abs/1710.10196.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear

from gan_lab.errors import InputError
from gan_lab.layers.precision import to_fp32
from gan_lab.layers.resolutions import BINOMIAL, downsample, fir_filter, smooth, upsample

LRELU_SLOPE = 0.2  # in all networks of the StyleGAN family
LRELU_GAIN = sqrt(2)  # preserves the second moment, which a ReLU halves

Resample = Literal["up", "down"]


def lrelu(x: Tensor, clamp: float | None = None) -> Tensor:
    """Apply the leaky ReLU in place and clamp to [-clamp, clamp].

    The caller applies the gain to the weights before, which is cheaper: g * lrelu(x) = lrelu(g * x).
    """
    x = leaky_relu(x, LRELU_SLOPE, inplace=True)
    return x if clamp is None else x.clamp(-clamp, clamp)


class EqualizedLinear(nn.Module):
    """Linear layer with equalized learning rate, optionally followed by the leaky ReLU.

    Args:
        inputs: input features.
        outputs: output features.
        bias: initial bias.
        lr_multiplier: of this layer's learning rate; 0.01 in mapping networks (Karras et al. 2019, appendix C).
        lrelu: whether the leaky ReLU follows, with gain sqrt(2).
        zeros: whether to initialize weights with 0.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        bias: float = 0.0,
        lr_multiplier: float = 1.0,
        lrelu: bool = False,
        zeros: bool = False,
    ) -> None:
        super().__init__()
        weight = torch.zeros(outputs, inputs) if zeros else torch.randn(outputs, inputs)
        self.weight = nn.Parameter(weight / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.lrelu = lrelu
        gain = LRELU_GAIN if lrelu else 1.0
        self.weight_gain = gain * lr_multiplier / sqrt(inputs)
        self.bias_gain = gain * lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs]."""
        x = linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return lrelu(x) if self.lrelu else x


class EqualizedConv2d(nn.Module):
    """Convolution with equalized learning rate, optionally with filtered resampling and leaky ReLU.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: kernel size, odd.
        bias: whether to add a bias.
        lrelu: whether the leaky ReLU follows, with gain sqrt(2).
        resample: "up" or "down" by 2; None for neither.
        gain: a factor of the output.
        clamp: the output is clamped to [-clamp, clamp] * gain; None for no limit.
        taps: of the low-pass filter; (1, 1) is nearest upsampling or 2x2 average pooling.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        kernel: int,
        bias: bool = True,
        lrelu: bool = True,
        resample: Resample | None = None,
        gain: float = 1.0,
        clamp: float | None = None,
        taps: Sequence[float] = BINOMIAL,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        taps_2d = fir_filter(taps) if resample else None
        self.register_buffer("resample_filter", taps_2d, persistent=False)
        self.resample = resample
        self.lrelu = lrelu
        self.gain = gain * (LRELU_GAIN if lrelu else 1.0)
        self.weight_gain = self.gain / sqrt(inputs * kernel**2)
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H', W'], in the type of `x`."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.gain).to(x.dtype)
        padding = weight.shape[-1] // 2
        if self.resample_filter is None:
            x = conv2d(x, weight, bias, padding=padding)
        elif self.resample == "up":
            if padding:
                x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
                x = smooth(x, self.resample_filter * 4, grow=-1)
            else:
                x = upsample(conv2d(x, weight), self.resample_filter)
            x = x if bias is None else x + bias[:, None, None]
        elif padding:
            x = conv2d(smooth(x, self.resample_filter, grow=1), weight, bias, stride=2)
        else:
            x = conv2d(downsample(x, self.resample_filter), weight, bias)
        if self.lrelu:
            return lrelu(x, self.clamp)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


# Minibatch standard deviation: shows D how much the images of a group vary.
#
# Karras et al. 2018, section 3, https://arxiv.org/abs/1710.10196.


class MinibatchStddev(nn.Module):
    """Minibatch standard deviation: appends channels with the mean standard deviation of features over a group.

    Images i, i + N / g, i + 2 N / g, ... of N form a group of g.

    Args:
        group_size: images per group, or the largest divisor of the batch size up to it.
        num_channels: channels to append, each from its share of the features.

    Raises:
        InputError: when either is below 1.
    """

    def __init__(self, *, group_size: int = 4, num_channels: int = 1) -> None:
        super().__init__()
        if group_size < 1 or num_channels < 1:
            raise InputError(
                f"mbstd_group_size={group_size} and mbstd_num_channels={num_channels} must be at least 1; "
                "mbstd_group_size=0 leaves the layer out"
            )
        self.group_size = group_size
        self.num_channels = num_channels

    def group_of(self, count: int) -> int:
        """Return the group size for a batch of `count` images."""
        return next(g for g in range(min(self.group_size, count), 0, -1) if count % g == 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C + num_channels, H, W]."""
        count, channels, height, width = x.shape
        group = self.group_of(count)
        shares = to_fp32(x).reshape(
            group, -1, self.num_channels, channels // self.num_channels, height, width
        )
        deviation = (shares.var(dim=0, correction=0) + 1e-8).sqrt()  # [N / g, F, C / F, H, W]
        statistic = deviation.mean(dim=(2, 3, 4)).repeat(group, 1)[:, :, None, None]  # [N, F, 1, 1]
        return torch.cat([x, statistic.to(x.dtype).expand(-1, -1, height, width)], dim=1)
