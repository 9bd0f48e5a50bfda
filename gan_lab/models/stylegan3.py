"""StyleGAN3: a generator without aliasing, equivariant to translation (-t) or to translation and rotation (-r).

Karras et al. 2021, https://arxiv.org/abs/2106.12423. The generator processes bandlimited signals: Fourier features,
convolutions, and leaky ReLUs between designed low-pass filters. The discriminator is StyleGAN2's. Configuration R has
1x1 convolutions, radially symmetric filters and twice the channels, and blurs D's input at first.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.layers.equalized import LRELU_GAIN, EqualizedLinear, lrelu
from gan_lab.layers.precision import find_fp16_dtype, to_fp16, to_fp32
from gan_lab.layers.resolutions import ImageSize, convolve, convolve_transposed, image_shape
from gan_lab.layers.stylegan import (
    StyleGeneratorNetwork,
    demodulation,
    scale_for_fp16,
)
from gan_lab.training.module import AdversarialModule

# Low-pass filters: a Kaiser window (Kaiser 1974) times a sinc, or a jinc for radial symmetry. Appendix C. Frequencies
# are in cycles per image, lengths in taps.


def lowpass(
    *, num_taps: int, cutoff: float, width: float, rate: float, radial: bool = False
) -> Tensor:
    """Design a filter with unit gain at frequency 0.

    Args:
        num_taps: length.
        cutoff: frequency at which the amplitude is one half.
        width: of the transition band.
        rate: sampling rate.
        radial: whether to return a filter that is the same in all directions.

    Returns:
        [T] for a separable filter, [T, T] for a radial one, in float64. One tap is the identity.
    """
    if num_taps == 1:
        return torch.ones((1, 1) if radial else 1, dtype=torch.float64)
    window = kaiser_window(num_taps, width=width, rate=rate)
    t = (torch.arange(num_taps, dtype=torch.float64) - (num_taps - 1) / 2) / rate
    if radial:
        # no tap lies at the center, where the jinc would be 0 / 0, as the number of taps is even
        assert num_taps % 2 == 0
        r = torch.hypot(t[:, None], t[None, :])
        ideal = torch.special.bessel_j1(2 * math.pi * cutoff * r) / r
        taps = ideal * torch.outer(window, window)
    else:
        taps = torch.sinc(2 * cutoff * t) * window
    return taps / taps.sum()


def kaiser_window(num_taps: int, *, width: float, rate: float) -> Tensor:
    """Return the window [T] whose sinc has a transition band of `width` at sampling rate `rate`."""
    attenuation = 2.285 * math.pi * (num_taps - 1) * width / (rate / 2) + 7.95  # dB
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    x = torch.linspace(-1, 1, num_taps, dtype=torch.float64)
    argument = beta * (1 - x.square()).clamp(min=0).sqrt()
    return torch.special.i0(argument) / torch.special.i0(torch.tensor(beta, dtype=torch.float64))


# Filtered leaky ReLU: a nonlinearity without aliasing.


class FilteredLeakyReLU(nn.Module):
    """Leaky ReLU at a higher sampling rate: upsample, leaky ReLU, clamp, downsample.

    Args:
        up: upsampling factor before the leaky ReLU.
        up_filter: [T], separable; symmetric.
        down: downsampling factor after it.
        down_filter: [T], separable, or [T, T]; symmetric.
        size: of the input.
        out_size: of the output.
        clamp: largest absolute value after the leaky ReLU; None for no limit.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self,
        *,
        up: int,
        up_filter: Tensor,
        down: int,
        down_filter: Tensor,
        size: int,
        out_size: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.up, self.down, self.clamp = up, down, clamp
        self.register_buffer("up_filter", (up_filter * up).float(), persistent=False)
        self.register_buffer("down_filter", down_filter.float(), persistent=False)
        # the upsampled image is as long as the filter behind it needs for `out_size` pixels, and centered
        taps = len(up_filter)
        self.length = (out_size - 1) * down + len(down_filter)
        lead = self.length - size * up + taps - 1
        self.start = taps - 1 - (lead + up) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, size, size] to [N, C, out_size, out_size]."""
        x = self._upsample(self._upsample(x, dim=3), dim=2)
        return self._downsample(lrelu(x, self.clamp))

    def _upsample(self, x: Tensor, dim: int) -> Tensor:
        if len(self.up_filter) > 1:
            stride = (self.up, 1) if dim == 2 else (1, self.up)
            x = convolve_transposed(x, along(self.up_filter, dim), stride=stride)
        margins = (-self.start, self.start + self.length - x.shape[dim])
        return pad(x, (*margins, 0, 0) if dim == 3 else (0, 0, *margins))

    def _downsample(self, x: Tensor) -> Tensor:
        if self.down_filter.ndim == 2:
            return convolve(x, self.down_filter, stride=(self.down, self.down))
        if len(self.down_filter) == 1:
            return x
        x = convolve(x, along(self.down_filter, 3), stride=(1, self.down))
        return convolve(x, along(self.down_filter, 2), stride=(self.down, 1))


def along(taps: Tensor, dim: int) -> Tensor:
    """Return taps [T] as a kernel along one dimension of [N, C, H, W]."""
    return taps[None, :] if dim == 3 else taps[:, None]


# Fourier features: the input, translated and rotated by a style.


class FourierFeatures(nn.Module):
    """Fourier features: sinusoids of random frequency and phase on a transformed grid, mixed by a 1x1 convolution.

    Attributes:
        transform: [3, 3], default transform of the image plane; initially the identity.

    Args:
        features: number of sinusoids and of channels.
        size: of the output, margins included.
        rate: sampling rate, pixels in an image side.
        bandwidth: highest frequency, cycles in an image side.
        w_dim: length of w.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(
        self, *, features: int, size: int, rate: float, bandwidth: float, w_dim: int
    ) -> None:
        super().__init__()
        self.size = size
        self.rate = rate
        self.bandwidth = bandwidth
        self.affine = EqualizedLinear(inputs=w_dim, outputs=4, zeros=True)
        with torch.no_grad():
            self.affine.bias[0] = 1  # (cos, sin, x, y) of the identity
        self.weight = nn.Parameter(torch.randn(features, features))
        # uniform in the disc of frequencies below the bandwidth
        radius = bandwidth * torch.rand(features).sqrt()
        angle = 2 * math.pi * torch.rand(features)
        frequencies = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
        self.register_buffer("freqs", frequencies)
        self.register_buffer("phases", torch.rand(features) - 0.5)
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """Map w [N, w_dim], and a transform [3, 3] or [N, 3, 3], to features [N, F, size, size], in float32."""
        transform = self.transform if transform is None else transform.to(self.transform)
        motion = self.motion(w) @ transform  # [N, 3, 3]
        phases = self.phases + (self.freqs @ motion[:, :2, 2:]).squeeze(2)  # [N, F]
        frequencies = self.freqs @ motion[:, :2, :2]  # [N, F, 2]
        # a transform that shrinks the image raises frequencies, and those beyond the rate would alias
        excess = (frequencies.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)
        waves = self.grid() @ frequencies.transpose(1, 2) + phases[:, None]  # [N, size^2, F]
        waves = torch.sin(2 * math.pi * waves) * amplitudes[:, None]
        features = waves @ (self.weight / math.sqrt(len(self.weight))).T
        return features.transpose(1, 2).unflatten(2, (self.size, self.size))

    def motion(self, w: Tensor) -> Tensor:
        """Return the rotation and translation [N, 3, 3] of styles [N, w_dim]."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1)
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1)
        return rotation.unflatten(1, (3, 3)) @ translation.unflatten(1, (3, 3))

    def grid(self) -> Tensor:
        """Return the positions (x, y) of the pixels in units of the image side, centered, [size^2, 2]."""
        # made on the device: a copy from the host would synchronize
        positions = torch.arange(self.size, device=self.weight.device, dtype=self.weight.dtype)
        line = (positions - (self.size - 1) / 2) / self.rate
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y], dim=-1).flatten(0, 1)


# Networks


@dataclass(frozen=True)
class Band:
    """A bandlimited signal between two layers.

    Attributes:
        cutoff: frequency, in cycles per image side, up to which nothing is attenuated.
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

    In training mode every pass updates the running means of w and of each layer's magnitude, and `forward` mixes styles
    where requested.

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
        num_fp16_res: layers within this many doublings of the highest rate compute in `fp16_dtype`.
        fp16_dtype: "float16" or "bfloat16".

    Raises:
        InputError: for invalid sizes or types.
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
        # thirds of the layers, since most have similar resolutions
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
    """Synthesis network: Fourier features and filtered layers. Arguments as `Generator`'s, and `bands` of signals."""

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
            noise: ignored: this generator has no noise inputs.
            transform: of the image plane, [3, 3] or [N, 3, 3]: where in the unchanged image, in units of its side and
                from its center, the new one looks. None for the stored one.
        """
        x = self.input(w[:, 0], transform)
        for layer, style in zip(self.layers, w[:, 1:].unbind(1), strict=True):
            x = layer(x, style)
        return to_fp32(x) * self.output_scale

    def affines(self) -> list[list[EqualizedLinear]]:
        """Return the affine maps that read each of the L styles."""
        return [[self.input.affine], *([layer.affine] for layer in self.layers)]


class Layer(nn.Module):
    """Modulated convolution and filtered leaky ReLU; the last layer is a modulated 1x1 convolution to the image.

    Attributes:
        magnitude_ema: running mean square of the input, by whose root it is divided (section 3.2).

    Args:
        before: the input signal.
        after: the output signal.
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
        # padding by more than half a kernel adds pixels, which the filters consume
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
    """Design the filtered leaky ReLU between two signals, at twice the higher of their sampling rates."""
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
    """Plan the band after each layer: cutoff and stopband grow geometrically (section 3.2, "flexible layers").

    Returns:
        `num_layers` + 1 bands, the image's last.

    Raises:
        InputError: when `num_critical` is not less than `num_layers`.
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
            f"image_size={image_size}: StyleGAN3 makes square images whose side is a power of two from 16 on, since "
            "its filters have one sampling rate; stylegan2 takes rectangles, or "
            f"set data.image_size={max(16, 1 << min(height, width).bit_length() - 1)}"
        )
    return height


class StyleGAN3(AdversarialModule):
    """The training loop with these networks; it overrides no hook. Configuration R blurs D's input (`augment.blur`)."""
