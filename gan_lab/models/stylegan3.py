"""StyleGAN3: a generator without aliasing, equivariant to translation (-t) or to translation and rotation (-r).

Karras et al. 2021, https://arxiv.org/abs/2106.12423. The generator is built of signals of limited bandwidth: Fourier
features, convolutions, and leaky ReLUs between designed filters. The discriminator is StyleGAN2's. Configuration R has
1x1 convolutions and radially symmetric filters, twice the channels, and starts with blurred images.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.layers.equalized import LRELU_GAIN, EqualizedLinear
from gan_lab.layers.networks import StyleGeneratorNetwork
from gan_lab.layers.precision import find_fp16_dtype, to_fp16, to_fp32
from gan_lab.layers.resolutions import ImageSize, image_shape
from gan_lab.layers.stylegan import (
    demodulation,
    scale_for_fp16,
)
from gan_lab.layers.stylegan3 import FilteredLeakyReLU, FourierFeatures, lowpass
from gan_lab.training.module import AdversarialModule


@dataclass(frozen=True)
class Band:
    """The signal between two layers.

    Attributes:
        cutoff: highest frequency that is kept whole, cycles in an image side.
        half_width: from there to the middle of the transition band's end.
        rate: sampling rate, pixels in an image side.
        size: pixels in a side, margins included.
        channels: number of feature maps.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


class Generator(StyleGeneratorNetwork):
    """Mapping network z -> w and alias-free synthesis network w -> image.

    In training mode every pass moves the running means of w and of each layer's magnitude, and `forward` mixes styles
    where that is asked for.

    Args:
        image_size: side, a power of two from 16 on; height and width are the same.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        w_dim: length of w.
        mapping_layers: depth of the mapping network.
        channel_base: a layer of cutoff f has channel_base / (2 f) channels ...
        channel_max: ... and no more than this.
        num_layers: layers between Fourier features and image.
        num_critical: the last layers, whose filters cut off at half the sampling rate.
        kernel: side of the convolutions: 3 in configuration T, 1 in R.
        radial: whether downsampling filters are radially symmetric, as in R.
        first_cutoff: of the first layer, cycles in an image side.
        first_stopband: frequency from which its filter passes nothing.
        last_stopband: that of the last layer as a multiple of its cutoff, which is half the resolution.
        margin: pixels around the image.
        filter_size: taps of a filter for each factor of its resampling.
        output_scale: of the image.
        magnitude_decay: of the running mean magnitude, for each pass.
        w_avg_beta: of the running mean of w, for each pass.
        style_mixing: probability that an image in training has two styles (0 in the paper).
        clamp: largest absolute value of activations; None for no limit.
        num_fp16_res: layers within so many doublings of the highest rate compute in `fp16_dtype`.
        fp16_dtype: "float16" or "bfloat16".

    Raises:
        InputError: for sizes or types that there are not.
    """

    supports_transform = True
    synthesis: "Synthesis"

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 2,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        kernel: int = 3,
        radial: bool = False,
        first_cutoff: float = 2.0,
        first_stopband: float = 2**2.1,
        last_stopband: float = 2**0.3,
        margin: int = 10,
        filter_size: int = 6,
        output_scale: float = 0.25,
        magnitude_decay: float = 0.999,
        w_avg_beta: float = 0.998,
        style_mixing: float = 0.0,
        clamp: float | None = 256.0,
        num_fp16_res: int = 0,
        fp16_dtype: str = "float16",
    ) -> None:
        bands = plan_bands(
            side=power_of_two_side(image_size),
            channels=channels,
            channel_base=channel_base,
            channel_max=channel_max,
            num_layers=num_layers,
            num_critical=num_critical,
            first_cutoff=first_cutoff,
            first_stopband=first_stopband,
            last_stopband=last_stopband,
            margin=margin,
        )
        synthesis = Synthesis(
            bands=bands,
            num_critical=num_critical,
            w_dim=w_dim,
            kernel=kernel,
            radial=radial,
            filter_size=filter_size,
            output_scale=output_scale,
            magnitude_decay=magnitude_decay,
            clamp=clamp,
            num_fp16_res=num_fp16_res,
            fp16_dtype=fp16_dtype,
        )
        num_ws = len(bands) + 1
        super().__init__(
            synthesis=synthesis,
            z_dim=z_dim,
            w_dim=w_dim,
            num_ws=num_ws,
            num_classes=num_classes,
            mapping_layers=mapping_layers,
            w_avg_beta=w_avg_beta,
            style_mixing=style_mixing,
        )
        self.half_precision = num_fp16_res > 0
        # thirds: here all layers lie close in resolution
        self.level_ends = (round(num_ws / 3), round(num_ws * 2 / 3))

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        transform: Tensor | None = None,
    ) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W], roughly in [-1, 1]."""
        return self.synthesis(self.styles(z, labels, truncation), transform=transform)


class Synthesis(nn.Module):
    """Fourier features -> layers -> image. Arguments as `Generator`'s, and the `bands` between the layers."""

    def __init__(
        self,
        *,
        bands: list[Band],
        num_critical: int,
        w_dim: int,
        kernel: int,
        radial: bool,
        filter_size: int,
        output_scale: float,
        magnitude_decay: float,
        clamp: float | None,
        num_fp16_res: int,
        fp16_dtype: str,
    ) -> None:
        super().__init__()
        half = find_fp16_dtype(fp16_dtype)
        first, last = bands[0], bands[-1]
        self.output_scale = output_scale
        self.input = FourierFeatures(
            features=first.channels,
            size=first.size,
            rate=first.rate,
            bandwidth=first.cutoff,
            w_dim=w_dim,
        )
        self.names = [f"L{i}_{band.size}_{band.channels}" for i, band in enumerate(bands)]
        for i, (name, band) in enumerate(zip(self.names, bands, strict=True)):
            is_torgb = i == len(bands) - 1
            layer = Layer(
                before=bands[max(i - 1, 0)],
                after=band,
                w_dim=w_dim,
                kernel=1 if is_torgb else kernel,
                is_torgb=is_torgb,
                radial=radial and i < len(bands) - 1 - num_critical,
                filter_size=filter_size,
                magnitude_decay=magnitude_decay,
                clamp=clamp,
                dtype=half if band.rate << num_fp16_res > last.rate else None,
            )
            self.add_module(name, layer)

    @property
    def layers(self) -> list["Layer"]:
        """`L0_36_512`, ...: named after index, size and channels, so that a name means the same in another network."""
        return [cast(Layer, getattr(self, name)) for name in self.names]

    def forward(self, w: Tensor, noise: str = "none", transform: Tensor | None = None) -> Tensor:
        """Make images [N, C, H, W] in float32.

        Args:
            w: [N, L, w_dim].
            noise: taken, as other style generators take it, and left aside: this one has no noise inputs.
            transform: of the image plane, [3, 3] or [N, 3, 3]: where in the unchanged image, in units of its side and
                from its centre, the new one looks. None for the stored one.
        """
        x = self.input(w[:, 0], transform)
        for layer, style in zip(self.layers, w[:, 1:].unbind(1), strict=True):
            x = layer(x, style)
        return to_fp32(x) * self.output_scale

    def affines(self) -> list[list[EqualizedLinear]]:
        """Return the affine maps that read each of the L styles."""
        return [[self.input.affine], *([layer.affine] for layer in self.layers)]


class Layer(nn.Module):
    """Modulated convolution and filtered leaky ReLU; or, last, the modulated 1x1 convolution to the image.

    Attributes:
        magnitude_ema: running mean square of the input, by whose root it is divided (section 3.2).

    Args:
        before: the signal that comes in.
        after: the signal that goes out.
        w_dim: length of w.
        kernel: side of the convolution.
        is_torgb: whether this is the last.
        radial: whether the downsampling filter is radially symmetric.
        filter_size: taps of a filter for each factor of its resampling.
        magnitude_decay: of `magnitude_ema`, for each pass in training mode.
        clamp: of activations; None for no limit.
        dtype: type of activations; None for that of the weights.
    """

    magnitude_ema: Tensor

    def __init__(
        self,
        *,
        before: Band,
        after: Band,
        w_dim: int,
        kernel: int,
        is_torgb: bool,
        radial: bool,
        filter_size: int,
        magnitude_decay: float,
        clamp: float | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.magnitude_decay = magnitude_decay
        self.clamp = clamp
        self.dtype = dtype
        self.affine = EqualizedLinear(inputs=w_dim, outputs=before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        self.activation = None
        if not is_torgb:
            self.activation = filtered_lrelu(
                before, after, kernel=kernel, radial=radial, filter_size=filter_size, clamp=clamp
            )

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [N, C, H, W] and w [N, w_dim] to [N, C', H', W']."""
        if self.training:
            with torch.no_grad():
                square = mean_over_ranks(to_fp32(x).square().mean())
                self.magnitude_ema.lerp_(square, 1 - self.magnitude_decay)
        weight: Tensor = self.weight
        style = self.affine(w)
        x = to_fp16(x, self.dtype)
        if self.activation is None:
            style = style * self.magnitude_ema.rsqrt() / math.sqrt(weight.shape[1])
            x = conv2d(x * per_channel(style, x), weight.to(x.dtype), self.bias.to(x.dtype))
            return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)
        if x.dtype == torch.float16:
            weight, style = scale_for_fp16(weight, style)
        scale = demodulation(weight, style) * self.magnitude_ema.rsqrt() * LRELU_GAIN
        bias = (self.bias * LRELU_GAIN)[:, None, None].to(x.dtype)
        # the filters use up the surplus that padding by more than half a kernel gives
        x = conv2d(x * per_channel(style, x), weight.to(x.dtype), padding=weight.shape[-1] - 1)
        return self.activation(torch.addcmul(bias, x, per_channel(scale, x)))


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return values [N, C] as [N, C, 1, 1] in the type of `x`."""
    return values[:, :, None, None].to(x.dtype)


def filtered_lrelu(
    before: Band,
    after: Band,
    *,
    kernel: int,
    radial: bool,
    filter_size: int,
    clamp: float | None,
) -> FilteredLeakyReLU:
    """Design the leaky ReLU between two signals; it works at twice the higher of their rates."""
    rate = 2 * max(before.rate, after.rate)
    up, down = rate // before.rate, rate // after.rate
    return FilteredLeakyReLU(
        up=up,
        up_filter=lowpass(
            num_taps=filter_size * up,
            cutoff=before.cutoff,
            width=2 * before.half_width,
            rate=rate,
        ),
        down=down,
        down_filter=lowpass(
            num_taps=filter_size * down,
            cutoff=after.cutoff,
            width=2 * after.half_width,
            rate=rate,
            radial=radial,
        ),
        size=before.size + kernel - 1,
        out_size=after.size,
        clamp=clamp,
    )


def plan_bands(
    *,
    side: int,
    channels: int,
    channel_base: int,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband: float,
    margin: int,
) -> list[Band]:
    """Lay out the signal after each layer: cutoff and stopband grow geometrically (section 3.2, "flexible layers").

    Returns:
        `num_layers` + 1 bands, the image's last.

    Raises:
        InputError: when there are not more layers than critically sampled ones.
    """
    if not 0 < num_critical < num_layers:
        raise InputError(
            f"num_critical={num_critical} must lie between 0 and num_layers={num_layers}"
        )
    last_cutoff = side / 2
    bands = []
    for i in range(num_layers + 1):
        progress = min(i / (num_layers - num_critical), 1.0)
        cutoff = first_cutoff * (last_cutoff / first_cutoff) ** progress
        stopband = first_stopband * (last_cutoff * last_stopband / first_stopband) ** progress
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, side)))
        last = i == num_layers
        bands.append(
            Band(
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
                rate=rate,
                size=side if i >= num_layers - 1 else rate + 2 * margin,
                channels=channels if last else round(min(channel_base / 2 / cutoff, channel_max)),
            )
        )
    return bands


def power_of_two_side(image_size: ImageSize) -> int:
    """Return the side of a square image.

    Raises:
        InputError: when it is not a power of two from 16 on.
    """
    height, width = image_shape(image_size)
    if height != width or height < 16 or height & (height - 1):
        raise InputError(
            f"image_size={image_size}: StyleGAN3 makes squares with a power of two from 16 on as side: its filters are "
            "designed for one rate in all directions; stylegan2 takes rectangles, or "
            f"set data.image_size={max(16, 1 << min(height, width).bit_length() - 1)}"
        )
    return height


class StyleGAN3(AdversarialModule):
    """The loop with these networks; every hook is the default. Configuration R blurs what D sees (`augment.blur`)."""
