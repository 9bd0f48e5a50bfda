"""StyleGAN2: modulated convolutions, skip and residual networks, lazy R1 and path length regularization.

Karras et al. 2020, https://arxiv.org/abs/1912.04958; labels, clamping and half precision as in ADA (Karras et al. 2020,
https://arxiv.org/abs/2006.06676, appendices B and D). Figure 7 has the three architectures: "skip" sums
images of every resolution, "resnet" has residual blocks, "orig" neither. Config F is skip in G and resnet in D.
"""

from math import prod, sqrt
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.equalized import EqualizedConv2d, EqualizedLinear, MinibatchStddev, Resample
from gan_lab.layers.networks import DiscriminatorNetwork
from gan_lab.layers.precision import find_fp16_dtype, to_fp16, to_fp32
from gan_lab.layers.resnet import channels_last_on_cpu
from gan_lab.layers.resolutions import (
    ImageSize,
    downsample,
    fir_filter,
    resolution_pyramid,
    upsample,
)
from gan_lab.layers.stylegan import (
    Mapping,
    Noise,
    StyledConv,
    StyleGeneratorNetwork,
    ToRGB,
    check_noise,
)
from gan_lab.training.module import AdversarialModule

Architecture = Literal["skip", "resnet", "orig"]


class Generator(StyleGeneratorNetwork):
    """Mapping network z -> w and synthesis network w -> image.

    In training mode, `forward` mixes styles and draws new noise, and every pass updates the running mean of w, by the
    styles of z alone. In evaluation mode it takes the constant noise, so that z (and the label) alone determine the
    image.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        w_dim: length of w.
        mapping_layers: depth of the mapping network.
        channel_base: feature maps have channel_base / resolution channels ...
        channel_max: ... and no more than this.
        architecture: "skip", "resnet" or "orig".
        style_mixing: probability that an image in training has two styles (0.9 in the paper).
        w_avg_beta: of the running mean of w, for each pass.
        clamp: largest absolute value of activations; None for no limit. 256 with half precision.
        num_fp16_res: how many of the finest resolutions compute in `fp16_dtype`.
        fp16_dtype: "float16" or "bfloat16".

    Raises:
        InputError: for invalid sizes, architectures or types.
    """

    has_noise_inputs = True
    level_ends = (3, 7)  # 4 and 8 pixels; 16 and 32
    synthesis: "Synthesis"

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "skip",
        style_mixing: float = 0.0,
        w_avg_beta: float = 0.998,
        clamp: float | None = None,
        num_fp16_res: int = 0,
        fp16_dtype: str = "float16",
    ) -> None:
        synthesis = Synthesis(
            image_size=image_size,
            channels=channels,
            w_dim=w_dim,
            channel_base=channel_base,
            channel_max=channel_max,
            architecture=architecture,
            clamp=clamp,
            num_fp16_res=num_fp16_res,
            fp16_dtype=fp16_dtype,
        )
        super().__init__(
            synthesis=synthesis,
            z_dim=z_dim,
            w_dim=w_dim,
            num_ws=synthesis.num_ws,
            num_classes=num_classes,
            mapping_layers=mapping_layers,
            w_avg_beta=w_avg_beta,
            style_mixing=style_mixing,
        )
        self.half_precision = num_fp16_res > 0


class Synthesis(nn.Module):
    """Synthesis network: a learned constant and one block per resolution. Arguments as `Generator`'s."""

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        w_dim: int,
        channel_base: int,
        channel_max: int,
        architecture: Architecture,
        clamp: float | None,
        num_fp16_res: int,
        fp16_dtype: str,
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        (height, width), doublings = resolution_pyramid(image_size)
        features = widths(doublings, channel_base, channel_max)
        types = precisions(doublings, num_fp16_res, fp16_dtype)
        self.num_ws = 2 * doublings + 2
        self.resolutions = [min(height, width) << i for i in range(doublings + 1)]
        for i, resolution in enumerate(self.resolutions):
            block = SynthesisBlock(
                inputs=features[i - 1] if i else None,
                outputs=features[i],
                channels=channels,
                w_dim=w_dim,
                shape=(height << i, width << i),
                architecture=architecture,
                last=i == doublings,
                clamp=clamp,
                dtype=types[i],
            )
            self.add_module(f"b{resolution}", block)

    @property
    def blocks(self) -> list["SynthesisBlock"]:
        """`b4`, `b8`, ...: named after the shorter side."""
        return [cast(SynthesisBlock, getattr(self, f"b{r}")) for r in self.resolutions]

    def forward(self, w: Tensor, noise: Noise = "random") -> Tensor:
        """Make images [N, C, H, W] in float32.

        Args:
            w: [N, L, w_dim].
            noise: "random" draws it, "const" takes the stored one, "none" leaves it out; or a function that gives it.
        """
        check_noise(noise)
        x = image = None
        for i, block in enumerate(self.blocks):
            # a block's last style (of toRGB) is also the next block's first
            x, image = block(x, image, w[:, max(2 * i - 1, 0) : 2 * i + 2], noise)
        assert image is not None
        return image

    def affines(self) -> list[list[EqualizedLinear]]:
        """Return the affine maps that read each of the L styles."""
        found: list[list[EqualizedLinear]] = [[] for _ in range(self.num_ws)]
        for i, block in enumerate(self.blocks):
            for layer, style in (
                (block.conv0, 2 * i - 1),
                (block.conv1, 2 * i),
                (block.torgb, 2 * i + 1),
            ):
                if layer is not None:
                    found[style].append(layer.affine)
        return found


class SynthesisBlock(nn.Module):
    """The generator's layers at one resolution.

    Args:
        inputs: channels from the resolution below; None at the lowest, which has one convolution.
        outputs: channels.
        channels: of the image.
        w_dim: length of w.
        shape: height and width.
        architecture: "skip", "resnet" or "orig".
        last: whether this is the highest resolution.
        clamp: of activations.
        dtype: type of activations; None for that of the weights.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        *,
        inputs: int | None,
        outputs: int,
        channels: int,
        w_dim: int,
        shape: tuple[int, int],
        architecture: Architecture,
        last: bool,
        clamp: float | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        residual = inputs is not None and architecture == "resnet"
        gain = sqrt(0.5) if residual else 1.0
        self.const = self.conv0 = self.skip = self.torgb = None
        if inputs is None:
            self.const = nn.Parameter(torch.randn(outputs, *shape))
        else:
            self.conv0 = StyledConv(
                inputs=inputs,
                outputs=outputs,
                w_dim=w_dim,
                shape=shape,
                up=True,
                clamp=clamp,
            )
        self.conv1 = StyledConv(
            inputs=outputs,
            outputs=outputs,
            w_dim=w_dim,
            shape=shape,
            gain=gain,
            clamp=clamp,
        )
        if residual:
            assert inputs is not None
            self.skip = shortcut(inputs, outputs, resample="up", gain=gain)
        if last or architecture == "skip":
            self.torgb = ToRGB(inputs=outputs, channels=channels, w_dim=w_dim, clamp=clamp)
        upsamples = inputs is not None and architecture == "skip"
        taps = fir_filter() if upsamples else None
        self.register_buffer("resample_filter", taps, persistent=False)

    def forward(
        self, x: Tensor | None, image: Tensor | None, w: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor | None]:
        """Map features and the image so far, with the block's styles w [N, 2 or 3, w_dim], to this resolution's."""
        if self.const is not None:
            x = self.const.expand(
                w.shape[0], -1, -1, -1
            )  # len() would fix the batch of an exported program
        assert x is not None
        x = to_fp16(x, self.dtype)
        shortcut = None if self.skip is None else self.skip(x)
        if self.conv0 is not None:
            x = self.conv0(x, w[:, 0], noise)
        x = self.conv1(x, w[:, -2], noise)
        if shortcut is not None:
            x = shortcut + x
        if self.torgb is None:
            return x, None
        below = None
        if image is not None and self.resample_filter is not None:
            below = upsample(image, self.resample_filter)
        image = self.torgb(x, w[:, -1])
        return x, image if below is None else image + below


class Discriminator(DiscriminatorNetwork):
    """One block per resolution, minibatch standard deviation, and a logit that projects on the label's embedding.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        channel_base: feature maps have channel_base / resolution channels ...
        channel_max: ... and no more than this.
        architecture: "resnet", "skip" or "orig".
        label_dim: length of the label's embedding; None for the channels at the lowest resolution.
        label_layers: depth of the embedding's network.
        mbstd_group_size: images per group of the minibatch standard deviation; 0 leaves the layer out.
        mbstd_num_channels: channels that it appends.
        clamp: largest absolute value of activations; None for no limit. 256 with half precision.
        num_fp16_res: how many of the finest resolutions compute in `fp16_dtype`.
        fp16_dtype: "float16" or "bfloat16".
        frozen_layers: how many layers, from the image on, are not trained (Freeze-D, Mo et al. 2020,
            https://arxiv.org/abs/2002.10964).

    Raises:
        InputError: for invalid sizes, architectures or types.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "resnet",
        label_dim: int | None = None,
        label_layers: int = 8,
        mbstd_group_size: int = 4,
        mbstd_num_channels: int = 1,
        clamp: float | None = None,
        num_fp16_res: int = 0,
        fp16_dtype: str = "float16",
        frozen_layers: int = 0,
    ) -> None:
        super().__init__()
        check_architecture(architecture)
        shape, count = resolution_pyramid(image_size)
        features = widths(count, channel_base, channel_max)
        types = precisions(count, num_fp16_res, fp16_dtype)
        self.num_classes = num_classes
        self.half_precision = num_fp16_res > 0
        self.resolutions = [min(shape) << i for i in reversed(range(1, count + 1))]
        for i, resolution in zip(reversed(range(1, count + 1)), self.resolutions, strict=True):
            block = DiscriminatorBlock(
                inputs=features[i],
                outputs=features[i - 1],
                channels=channels if i == count or architecture == "skip" else None,
                architecture=architecture,
                clamp=clamp,
                dtype=types[i],
            )
            self.add_module(f"b{resolution}", block)
        label_dim = (label_dim or features[0]) if num_classes else 0
        self.epilogue_name = f"b{min(shape)}"
        epilogue = DiscriminatorEpilogue(
            inputs=features[0],
            shape=shape,
            channels=channels if architecture == "skip" or not count else None,
            mbstd_group_size=mbstd_group_size,
            mbstd_num_channels=mbstd_num_channels,
            clamp=clamp,
        )
        self.mapping = None
        if num_classes:
            self.mapping = Mapping(
                z_dim=0,
                num_classes=num_classes,
                w_dim=label_dim,
                num_layers=label_layers,
                num_ws=None,
            )
        epilogue.out = EqualizedLinear(inputs=features[0], outputs=label_dim or 1)
        self.add_module(self.epilogue_name, epilogue)
        self._freeze(frozen_layers)

    @property
    def blocks(self) -> list["DiscriminatorBlock"]:
        """`b1024`, `b512`, ..., `b8`: named after the shorter side."""
        return [cast(DiscriminatorBlock, getattr(self, f"b{r}")) for r in self.resolutions]

    @property
    def epilogue(self) -> "DiscriminatorEpilogue":
        """`b4`, the layers at the lowest resolution."""
        return cast(DiscriminatorEpilogue, getattr(self, self.epilogue_name))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to logits [N], in float32."""
        image: Tensor | None = images
        x: Tensor | None = None
        for block in self.blocks:
            x, image = block(x, image)
        logits = self.epilogue(x, image)  # [N, 1 or label_dim]
        if self.mapping is None:
            if labels is not None:
                raise ValueError("labels given to a network of 0 classes")
            return logits.squeeze(1)
        # the projection of Miyato and Koyama 2018, on the label's embedding (ADA, appendix B)
        return (logits * self.mapping(None, labels)).sum(1) / sqrt(logits.shape[1])

    def _freeze(self, count: int) -> None:
        layers = [m for b in self.blocks for m in b.modules() if isinstance(m, EqualizedConv2d)]
        if count > len(layers):
            raise InputError(f"frozen_layers={count}: there are {len(layers)} that can be frozen")
        for layer in layers[:count]:
            layer.requires_grad_(False)


class DiscriminatorBlock(nn.Module):
    """The discriminator's layers at one resolution, ending in downsampling.

    Args:
        inputs: channels at this resolution.
        outputs: channels at the next lower one.
        channels: of the image, where this block reads it; else None.
        architecture: "skip", "resnet" or "orig".
        clamp: of activations.
        dtype: type of activations; None for that of the weights.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        channels: int | None,
        architecture: Architecture,
        clamp: float | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        gain = sqrt(0.5) if architecture == "resnet" else 1.0
        self.fromrgb = None if channels is None else fromrgb(channels, inputs, clamp)
        self.conv0 = EqualizedConv2d(inputs=inputs, outputs=inputs, kernel=3, clamp=clamp)
        self.conv1 = EqualizedConv2d(
            inputs=inputs, outputs=outputs, kernel=3, resample="down", gain=gain, clamp=clamp
        )
        self.skip = None
        if architecture == "resnet":
            self.skip = shortcut(inputs, outputs, resample="down", gain=gain)
        taps = fir_filter() if architecture == "skip" else None
        self.register_buffer("resample_filter", taps, persistent=False)

    def forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map features and the image (both, or one of them None) to those at half the resolution."""
        if self.fromrgb is not None:
            assert image is not None
            seen = self.fromrgb(to_fp16(image, self.dtype))
            x = seen if x is None else to_fp16(x, self.dtype) + seen
        assert x is not None
        x = channels_last_on_cpu(to_fp16(x, self.dtype))
        below = None
        if image is not None and self.resample_filter is not None:
            below = downsample(image, self.resample_filter)
        shortcut = None if self.skip is None else self.skip(x)
        x = self.conv1(self.conv0(x))
        return x if shortcut is None else shortcut + x, below


class DiscriminatorEpilogue(nn.Module):
    """The layers at the lowest resolution: minibatch standard deviation, convolution, two fully connected layers.

    Args:
        inputs: input channels.
        shape: height and width.
        channels: of the image, where this reads it; else None.
        mbstd_group_size: as `Discriminator`'s, likewise `mbstd_num_channels` and `clamp`.
    """

    out: EqualizedLinear

    def __init__(
        self,
        *,
        inputs: int,
        shape: tuple[int, int],
        channels: int | None,
        mbstd_group_size: int,
        mbstd_num_channels: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.fromrgb = None if channels is None else fromrgb(channels, inputs)
        self.mbstd = None
        if mbstd_group_size:
            self.mbstd = MinibatchStddev(
                group_size=mbstd_group_size, num_channels=mbstd_num_channels
            )
        appended = mbstd_num_channels if mbstd_group_size else 0
        self.conv = EqualizedConv2d(inputs=inputs + appended, outputs=inputs, kernel=3, clamp=clamp)
        self.fc = EqualizedLinear(inputs=inputs * prod(shape), outputs=inputs, lrelu=True)

    def forward(self, x: Tensor | None, image: Tensor | None) -> Tensor:
        """Map features and the image (both, or one of them None) to [N, 1 or label_dim], in float32."""
        if self.fromrgb is not None:
            assert image is not None
            seen = self.fromrgb(to_fp32(image))
            x = seen if x is None else to_fp32(x) + seen
        assert x is not None
        x = to_fp32(x)
        x = self.conv(x if self.mbstd is None else self.mbstd(x))
        return self.out(self.fc(x.flatten(1)))


def fromrgb(channels: int, features: int, clamp: float | None = None) -> EqualizedConv2d:
    """Return the 1x1 convolution that reads an image."""
    return EqualizedConv2d(inputs=channels, outputs=features, kernel=1, clamp=clamp)


def shortcut(inputs: int, outputs: int, *, resample: Resample, gain: float) -> EqualizedConv2d:
    """Return the 1x1 convolution beside the layers of a residual block."""
    return EqualizedConv2d(
        inputs=inputs,
        outputs=outputs,
        kernel=1,
        bias=False,
        lrelu=False,
        resample=resample,
        gain=gain,
    )


def widths(doublings: int, channel_base: int, channel_max: int) -> list[int]:
    """Return channels of each resolution, the lowest (which counts as 4) first."""
    return [min(channel_base // (4 << i), channel_max) for i in range(doublings + 1)]


def precisions(doublings: int, num_fp16_res: int, fp16_dtype: str) -> list[torch.dtype | None]:
    """Return the type of each resolution's activations, the lowest first; None for full precision.

    Raises:
        InputError: for a type that is not half as wide as float32.
    """
    half = find_fp16_dtype(fp16_dtype)
    first = max(doublings + 1 - num_fp16_res, 0)
    return [half if i >= first else None for i in range(doublings + 1)]


def check_architecture(name: str) -> None:
    """Check the name of an architecture.

    Raises:
        InputError: naming the known ones.
    """
    if name not in get_args(Architecture):
        raise InputError(
            f"architecture={name!r} must be one of {', '.join(get_args(Architecture))}"
        )


class StyleGAN2(AdversarialModule):
    """The training loop with these networks; it overrides no hook: style mixing is part of the generator."""
