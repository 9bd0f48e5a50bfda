"""StyleGAN's base class and blocks: noise inputs, mapping network, style mixing, AdaIN, modulated convolution.

Karras et al. 2019, https://arxiv.org/abs/1812.04948; Karras et al. 2020, https://arxiv.org/abs/1912.04958.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.layers.equalized import LRELU_GAIN, EqualizedLinear, lrelu
from gan_lab.layers.networks import GeneratorNetwork, label_vectors
from gan_lab.layers.precision import to_fp32
from gan_lab.layers.resolutions import fir_filter, smooth

# Noise inputs (Karras et al. 2019, section 3.2): random, constant, none, or by a function.

NOISE = ("random", "const", "none")

# a function maps a layer's constant noise [H, W] (its shape, type and device) to noise [N, 1, H, W]
Noise = str | Callable[[Tensor], Tensor]


def check_noise(noise: Noise) -> None:
    """Check the name of a kind of noise.

    Raises:
        InputError: naming the known ones.
    """
    if not callable(noise) and noise not in NOISE:
        raise InputError(f"noise={noise!r} must be one of {', '.join(NOISE)}")


def layer_noise(kind: Noise, constant: Tensor, count: int) -> Tensor:
    """Return a layer's noise for `count` images, [N, 1, H, W], or [H, W] if constant.

    Args:
        kind: anything but "none".
        constant: the layer's own, [H, W].
        count: N.
    """
    if callable(kind):
        return kind(constant)
    if kind == "const":
        return constant
    return torch.randn(count, 1, *constant.shape, device=constant.device, dtype=constant.dtype)


# The mapping network z -> w of the StyleGAN family, truncation, and style mixing.


def pixel_norm(x: Tensor) -> Tensor:
    """Scale vectors [N, D] to a mean square of 1 (pixel norm; Karras et al. 2018, section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class Mapping(nn.Module):
    """Mapping network z -> w with the running mean of w for truncation; or a network that embeds labels.

    z and the label's embedding, each normalized, go through fully connected layers `fc0`, `fc1`, ... with a hundredth
    of the learning rate (Karras et al. 2019, section 2 and appendix C).

    Attributes:
        w_avg: running mean of w, [w_dim], updated by every forward pass in training mode.

    Args:
        z_dim: length of z; 0 to map labels alone.
        num_classes: 0 to map z alone.
        w_dim: length of w, and of every layer's output.
        num_layers: number of layers.
        num_ws: L, how many layers of the synthesis network take a style; None for one w without a running mean.
        w_avg_beta: decay of the running mean, for each pass.
        lr_multiplier: of the layers' learning rate.
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        z_dim: int,
        num_classes: int,
        w_dim: int,
        num_layers: int,
        num_ws: int | None,
        w_avg_beta: float = 0.998,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.num_ws = num_ws
        self.num_layers = num_layers
        self.w_avg_beta = w_avg_beta
        self.embed = EqualizedLinear(inputs=num_classes, outputs=w_dim) if num_classes else None
        for i in range(num_layers):
            layer = EqualizedLinear(
                inputs=w_dim if i else z_dim + (w_dim if num_classes else 0),
                outputs=w_dim,
                lr_multiplier=lr_multiplier,
                lrelu=True,
            )
            self.add_module(f"fc{i}", layer)
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        truncated_layers: int | None = None,
    ) -> Tensor:
        """Map latents to styles.

        Args:
            z: [N, Z]; None where `z_dim` is 0.
            labels: int64 [N], vectors [N, K], or None.
            truncation: psi; w' = w_avg + psi (w - w_avg).
            truncated_layers: number of first layers to truncate; None for all.

        Returns:
            w [N, L, w_dim], or [N, w_dim] where `num_ws` is None.
        """
        if self.num_ws is None:
            return self.to_w(z, labels)
        w = self.styles(z, labels)
        if self.training:
            mean = mean_over_ranks(w[:, 0].detach().mean(dim=0))
            self.w_avg.lerp_(mean.to(self.w_avg.dtype), 1 - self.w_avg_beta)
        return truncated(w, self.w_avg, truncation, truncated_layers)

    def styles(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """Map latents to w [N, L, w_dim] without updating the running mean, for style mixing."""
        assert self.num_ws is not None
        return self.to_w(z, labels).unsqueeze(1).expand(-1, self.num_ws, -1)

    def to_w(self, z: Tensor | None, labels: Tensor | None) -> Tensor:
        """Map latents to w [N, w_dim], in float32."""
        if z is None:
            assert self.embed is not None
            like: Tensor = self.embed.weight
        else:
            like = to_fp32(z)
        with torch.autocast(like.device.type, enabled=False):
            parts = [] if z is None else [pixel_norm(like)]
            vectors = label_vectors(labels, self.num_classes, like)
            if self.embed is not None:
                parts.append(pixel_norm(self.embed(vectors)))
            x = torch.cat(parts, dim=1)
            for i in range(self.num_layers):
                x = getattr(self, f"fc{i}")(x)
        return x


def truncated(styles: Tensor, center: Tensor, psi: float, layers: int | None = None) -> Tensor:
    """Truncate styles towards a center: w' = center + psi (w - center).

    Karras et al. 2019, appendix B.

    Args:
        styles: w [N, L, D].
        center: [D], [N, 1, D] or [N, L, D].
        psi: 1 changes nothing, 0 gives the center.
        layers: number of first layers to truncate; None for all.
    """
    if psi == 1:
        return styles
    near = torch.lerp(center, styles, psi)
    if layers is None:
        return near
    return torch.cat([near[:, :layers], styles[:, layers:]], dim=1)


def replace_styles(w: Tensor, other: Tensor, layers: range) -> Tensor:
    """Replace the styles of `layers` by those of `other`; both are [N, L, D].

    With `levels(...)["coarse"]` and so on this is the style control of Karras et al. 2019, section 3.1.
    """
    index = torch.arange(w.shape[1], device=w.device)
    chosen = (index >= layers.start) & (index < layers.stop)
    return torch.where(chosen[None, :, None], other, w)


def mix_styles(
    w: Tensor, other: Tensor, probability: float, *, in_use: int | None = None
) -> Tensor:
    """Mix styles [N, L, D] for training: with `probability`, an image takes `other` from a random layer on.

    Karras et al. 2019, section 3.1. Each image draws its own layer, from 1 to L - 1, all equally likely; where only
    the first `in_use` layers are computed, from 1 to `in_use` - 1.
    """
    count, layers, _ = w.shape
    last = layers if in_use is None else in_use
    if last < 2:
        return w
    start = torch.randint(1, last, (count, 1), device=w.device)
    start = start.where(torch.rand(count, 1, device=w.device) < probability, layers)
    chosen = torch.arange(layers, device=w.device) >= start  # [N, L]
    return torch.where(chosen[:, :, None], other, w)


# Adaptive instance normalization: the style sets mean and standard deviation of every feature map.

ADAIN_EPSILON = 1e-8


class AdaIN(nn.Module):
    """AdaIN: instance norm, then scale and shift by an affine map of the style.

    Args:
        features: channels.
        w_dim: length of w.
    """

    def __init__(self, *, features: int, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(inputs=w_dim, outputs=2 * features)
        with torch.no_grad():
            self.affine.bias[:features] = 1.0  # of y_s; appendix C

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [N, C, H, W] and w [N, w_dim] to [N, C, H, W], statistics in single precision."""
        scale, offset = to_fp32(self.affine(w))[:, :, None, None].chunk(2, dim=1)
        values = to_fp32(x)
        variance, mean = torch.var_mean(values, dim=(2, 3), correction=0, keepdim=True)
        # equation 1: y_s (x - mu(x)) / sigma(x) + y_b
        scale = scale * (variance + ADAIN_EPSILON).rsqrt()
        return torch.addcmul(offset, values - mean, scale).to(x.dtype)


# Modulated convolution: styles scale the input channels, demodulation restores unit variance of the outputs.

EPSILON = 1e-8


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Return the demodulation factors [N, O] of weights [O, I, K, K] and styles [N, I], in float32."""
    with torch.autocast(style.device.type, enabled=False):
        # equation 3: 1 / sqrt(sum of (s_i w_ijk)^2 + epsilon)
        return (to_fp32(style).square() @ weight.square().sum((2, 3)).T + EPSILON).rsqrt()


def scale_for_fp16(weight: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """Scale weights and styles so that their products do not overflow in half precision; demodulation cancels it.

    The largest weight of an output channel becomes 1 / sqrt(fan_in), the largest style of an image 1 (Karras et al.
    2020, ADA, appendix D, https://arxiv.org/abs/2006.06676).
    """
    fan_in = weight[0].numel()
    largest = weight.abs().amax((1, 2, 3), keepdim=True)
    return weight / (largest * sqrt(fan_in)), style / style.abs().amax(1, keepdim=True)


class StyledConv(nn.Module):
    """StyleGAN2's styled layer: modulated and demodulated 3x3 convolution, noise, bias, leaky ReLU.

    Attributes:
        noise_const: the constant noise [H, W] of `noise="const"`.

    Args:
        inputs: input channels.
        outputs: output channels.
        w_dim: length of w.
        shape: height and width of the output.
        up: whether to upsample by 2: a transposed convolution, then the low-pass filter.
        gain: a factor of the output.
        clamp: the output is clamped to [-clamp, clamp] * gain; None for no limit.
    """

    noise_const: Tensor
    resample_filter: Tensor | None

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        w_dim: int,
        shape: tuple[int, int],
        up: bool = False,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(inputs=w_dim, outputs=inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise_const", torch.randn(shape))
        self.register_buffer("resample_filter", fir_filter() if up else None, persistent=False)
        self.gain = gain * LRELU_GAIN
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        """Map [N, inputs, H, W] and w [N, w_dim] to [N, outputs, H', W'], in the type of `x`."""
        weight: Tensor = self.weight
        style = self.affine(w)
        if x.dtype == torch.float16:
            weight, style = scale_for_fp16(weight, style)
        scale = demodulation(weight, style) * self.gain
        # equation 1, applied to the input instead of the weights
        x = x * style.to(x.dtype)[:, :, None, None]
        weight = weight.to(x.dtype)
        if self.resample_filter is None:
            x = conv2d(x, weight, padding=1)
        else:
            x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            x = smooth(x, self.resample_filter * 4, grow=-1)
        offset = (self.bias * self.gain)[:, None, None]
        if noise != "none":
            offset = offset + layer_noise(noise, self.noise_const, x.shape[0]) * (
                self.noise_strength * self.gain
            )
        x = torch.addcmul(offset.to(x.dtype), x, scale.to(x.dtype)[:, :, None, None])
        return lrelu(x, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation (section 2.2) or activation.

    Args:
        inputs: input channels.
        channels: of the image.
        w_dim: length of w.
        clamp: the output is clamped to [-clamp, clamp]; None for no limit.
    """

    def __init__(
        self, *, inputs: int, channels: int, w_dim: int, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(inputs=w_dim, outputs=inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.weight_gain = 1 / sqrt(inputs)
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [N, inputs, H, W] and w [N, w_dim] to [N, channels, H, W], in float32."""
        # with so few outputs, weights per image are cheaper than another pass over the input
        style = self.affine(w) * self.weight_gain
        weights = style[:, None, :] * self.weight[None, :, :, 0, 0]  # [N, channels, inputs]
        x = torch.baddbmm(
            self.bias[:, None].to(x.dtype), weights.to(x.dtype), x.flatten(2)
        ).unflatten(2, x.shape[2:])
        return to_fp32(x if self.clamp is None else x.clamp(-self.clamp, self.clamp))


class StyleGeneratorNetwork(GeneratorNetwork):
    """A generator of the StyleGAN family: a mapping network z -> w and a synthesis network w -> image.

    In training mode styles are mixed where requested, noise is random, and every pass updates `w_avg`. In
    evaluation mode noise is constant, so that z (and the label) alone determine the image.

    Attributes:
        w_dim: length of w.
        num_ws: L, how many styles `synthesis` takes.
        mapping: `mapping(z, labels=None, truncation=1.0, truncated_layers=None) -> w [N, L, w_dim]`.
        synthesis: `synthesis(w [N, L, w_dim], noise="random" | "const" | "none") -> images`; also with `transform=`
            where `supports_transform` is set.
        truncation_cutoff: how many of the first styles are truncated; None for all.
        level_ends: where "coarse" and "middle" end, for `levels`.
        twice_differentiable: whether path length regularization can differentiate the gradient by w.

    Args:
        synthesis: the synthesis network.
        z_dim: length of z.
        w_dim: length of w.
        num_ws: L.
        num_classes: 0 for an unconditional generator.
        mapping: the mapping network; None for StyleGAN's, of the two following arguments.
        mapping_layers: depth of the mapping network.
        w_avg_beta: decay of the running mean of w, for each pass.
        style_mixing: probability that an image in training has two styles.
        truncation_cutoff: see above.

    Raises:
        InputError: for a probability or a number of layers out of range.
    """

    mapping: Mapping
    synthesis: Callable[..., Tensor]
    level_ends: tuple[int, int]
    twice_differentiable: bool = True

    def __init__(
        self,
        *,
        synthesis: nn.Module,
        z_dim: int,
        w_dim: int,
        num_ws: int,
        num_classes: int,
        mapping: Mapping | None = None,
        mapping_layers: int = 8,
        w_avg_beta: float = 0.998,
        style_mixing: float = 0.0,
        truncation_cutoff: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= style_mixing <= 1:
            raise InputError(f"style_mixing={style_mixing} must lie between 0 and 1")
        if truncation_cutoff is not None and truncation_cutoff < 0:
            raise InputError(
                f"truncation_cutoff={truncation_cutoff} must be a number of layers, or null for all"
            )
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_classes = num_classes
        self.style_mixing = style_mixing
        self.truncation_cutoff = truncation_cutoff
        self.synthesis = synthesis
        self.mapping = mapping or Mapping(
            z_dim=z_dim,
            num_classes=num_classes,
            w_dim=w_dim,
            num_layers=mapping_layers,
            num_ws=num_ws,
            w_avg_beta=w_avg_beta,
        )

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W], roughly in [-1, 1]."""
        return self.synthesis(self.styles(z, labels, truncation), noise=self.noise_mode)

    def styles(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z [N, Z] to w [N, L, w_dim] as `forward` does: in training mode, mixed."""
        w = self.mapping(z, labels, truncation, self.truncation_cutoff)
        if self.training and self.style_mixing:
            other = self.mapping.styles(torch.randn_like(z), labels)
            w = mix_styles(w, other, self.style_mixing, in_use=self.num_ws_in_use)
        return w

    @property
    def w_avg(self) -> Tensor:
        """Running mean of w, [w_dim]."""
        return self.mapping.w_avg

    def center(self, labels: Tensor | None = None) -> Tensor:
        """Return the center of truncation, [1, 1, w_dim], or [N, 1, w_dim] if it depends on labels."""
        return self.w_avg[None, None]

    @property
    def noise_mode(self) -> str:
        """The noise of `forward`."""
        return "random" if self.training else "const"

    @property
    def num_ws_in_use(self) -> int:
        """How many of the L styles the image depends on; fewer than L while a network grows."""
        return self.num_ws

    def levels(self) -> dict[str, range]:
        """Return which of the L styles are "coarse", "middle" and "fine" (Karras et al. 2019, section 3.1)."""
        ends = [0, *(min(end, self.num_ws) for end in self.level_ends), self.num_ws]
        names = ("coarse", "middle", "fine")
        return {name: range(ends[i], ends[i + 1]) for i, name in enumerate(names)}
