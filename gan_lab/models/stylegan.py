"""StyleGAN: a mapping network gives styles, which modulate a synthesis network that starts from a learned constant.

Karras et al. 2019, https://arxiv.org/abs/1812.04948: figure 1b for the synthesis network, section 3.1 for mixing of
styles, 3.2 for noise, appendix B for truncation, appendix C for filtered resampling and initialization. The
discriminator and progressive growing are ProGAN's. With classes, the mapping network sees an embedding of the label,
and D has a logit for each class, as in the authors' code.
"""

import torch
from torch import Tensor, nn

from gan_lab.layers.equalized import (
    LRELU_GAIN,
    EqualizedConv2d,
    EqualizedLinear,
    Resample,
    lrelu,
)
from gan_lab.layers.resolutions import (
    Growth,
    GrowthStage,
    ImageSize,
    first_level,
    resolution_pyramid,
    upsample_nearest,
)
from gan_lab.layers.stylegan import (
    AdaIN,
    Noise,
    StyleGeneratorNetwork,
    check_noise,
    layer_noise,
)
from gan_lab.models.progan import GrowingGenerator, ProGAN, fade_in, torgb, widths


class Generator(StyleGeneratorNetwork, GrowingGenerator):
    """Mapping network z -> w and synthesis network w -> image.

    In training mode, images have mixed styles and new noise, and every pass updates the running mean of w, by the
    styles of z alone. In evaluation mode the noise is constant, so that z (and the label) alone determine the image.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        w_dim: length of w.
        mapping_layers: depth of the mapping network.
        channel_base: feature maps have channel_base / resolution channels ...
        channel_max: ... and no more than this.
        style_mixing: probability that an image in training has two styles (0.9 in the paper).
        w_avg_beta: of the running mean of w, for each pass.
        truncation_cutoff: layers, from the lowest resolution on, whose styles truncation moves; None for all. The
            paper truncates 4 to 32 pixels: 8 layers.
        growing: whether images grow during training; otherwise they have their full size from the start.
        start_size: shorter side of the first images, in pixels.
        fade_kimg: thousands of real images over which a resolution is faded in.
        stable_kimg: thousands of real images before each fade.

    Raises:
        InputError: for invalid sizes, probabilities or lengths.
    """

    has_noise_inputs = True
    level_ends = (4, 8)  # 4 and 8 pixels; 16 and 32
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
        channel_base: int = 16384,
        channel_max: int = 512,
        style_mixing: float = 0.0,
        w_avg_beta: float = 0.995,
        truncation_cutoff: int | None = 8,
        growing: bool = True,
        start_size: int = 8,
        fade_kimg: float = 600,
        stable_kimg: float = 600,
    ) -> None:
        shape, last = resolution_pyramid(image_size)
        growth = Growth(
            first=first_level(shape, last, start_size) if growing else last,
            last=last,
            fade_kimg=fade_kimg,
            stable_kimg=stable_kimg,
        )
        synthesis = Synthesis(
            shape=shape,
            stage=GrowthStage(first=growth.first, last=last),
            channels=channels,
            w_dim=w_dim,
            features=widths(last, channel_base, channel_max),
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
            truncation_cutoff=truncation_cutoff,
        )
        self.shape = shape
        self.growth = growth

    @property
    def stage(self) -> GrowthStage:
        """The current growth stage."""
        return self.synthesis.stage

    def forward_at_stage(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, h, w] of the stage's resolution."""
        return self.synthesis.forward_at_stage(self.styles(z, labels), noise=self.noise_mode)

    @property
    def num_ws_in_use(self) -> int:
        return 2 * self.stage.level + 2


class Synthesis(nn.Module):
    """Synthesis network: a learned constant, then two styled layers per resolution.

    Args:
        shape: height and width at the lowest resolution.
        stage: which resolutions are computed.
        channels: of the image.
        w_dim: length of w.
        features: channels of each resolution.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int],
        stage: GrowthStage,
        channels: int,
        w_dim: int,
        features: list[int],
    ) -> None:
        super().__init__()
        self.stage = stage
        self.last = len(features) - 1
        self.num_ws = 2 * len(features)
        self.const = nn.Parameter(torch.ones(features[0], *shape))
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                inputs=features[i - 1] if i else None,
                outputs=width,
                w_dim=w_dim,
                shape=(shape[0] << i, shape[1] << i),
            )
            for i, width in enumerate(features)
        )
        self.torgb = nn.ModuleList(torgb(width, channels) for width in features)

    def forward(self, w: Tensor, noise: Noise = "random") -> Tensor:
        """Make images [N, C, H, W] in float32, pixels repeated up to full size.

        Args:
            w: [N, L, w_dim].
            noise: "random" draws it, "const" takes the stored one, "none" leaves it out; or a function that gives it.
        """
        return upsample_nearest(
            self.forward_at_stage(w, noise), 1 << (self.last - self.stage.level)
        )

    def affines(self) -> list[list[EqualizedLinear]]:
        """Return the affine maps that read each of the L styles."""
        layers = [part for part in self.modules() if isinstance(part, StyledActivation)]
        return [[layer.adain.affine] for layer in layers]

    def forward_at_stage(self, w: Tensor, noise: Noise = "random") -> Tensor:
        """Make images [N, C, h, w] of the stage's resolution; arguments as `forward`'s."""
        check_noise(noise)
        x = below = self.const.expand(w.shape[0], -1, -1, -1)
        for i, block in enumerate(list(self.blocks)[: self.stage.level + 1]):
            below, x = x, block(x, w[:, 2 * i : 2 * i + 2], noise)
        return fade_in(self.torgb, self.stage, below, x)


class SynthesisBlock(nn.Module):
    """The generator's layers at one resolution.

    Args:
        inputs: channels from the resolution below; None at the lowest, whose first layer styles the constant.
        outputs: channels.
        w_dim: length of w.
        shape: height and width.
    """

    def __init__(
        self, *, inputs: int | None, outputs: int, w_dim: int, shape: tuple[int, int]
    ) -> None:
        super().__init__()
        self.conv0 = None
        if inputs is not None:
            # nearest upsampling and the filter (1, 2, 1) together are the filter (1, 3, 3, 1) of zero insertion
            self.conv0 = convolution(inputs, outputs, "up")
        self.style0 = StyledActivation(features=outputs, w_dim=w_dim, shape=shape)
        self.conv1 = convolution(outputs, outputs)
        self.style1 = StyledActivation(features=outputs, w_dim=w_dim, shape=shape)

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        """Map features, with the block's styles w [N, 2, w_dim], to [N, outputs, H, W]."""
        if self.conv0 is not None:
            x = self.conv0(x)
        x = self.style0(x, w[:, 0], noise)
        return self.style1(self.conv1(x), w[:, 1], noise)


def convolution(inputs: int, outputs: int, resample: Resample | None = None) -> EqualizedConv2d:
    """Return a 3x3 convolution with leaky ReLU's gain but no activation, since noise is added in between."""
    return EqualizedConv2d(
        inputs=inputs,
        outputs=outputs,
        kernel=3,
        bias=False,
        lrelu=False,
        resample=resample,
        gain=LRELU_GAIN,
    )


class StyledActivation(nn.Module):
    """Noise, bias, leaky ReLU, adaptive instance normalization.

    Attributes:
        noise_const: the constant noise [H, W] of `noise="const"`.

    Args:
        features: channels.
        w_dim: length of w.
        shape: height and width.
    """

    noise_const: Tensor

    def __init__(self, *, features: int, w_dim: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("noise_const", torch.randn(shape))
        self.adain = AdaIN(features=features, w_dim=w_dim)

    def forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        """Map [N, C, H, W] and w [N, w_dim] to [N, C, H, W], in the type of `x`."""
        offset = self.bias[:, None, None]
        if noise != "none":
            offset = (
                offset
                + layer_noise(noise, self.noise_const, x.shape[0])
                * self.noise_strength[:, None, None]
            )
        return self.adain(lrelu(x + offset.to(x.dtype)), w)


class StyleGAN(ProGAN):
    """ProGAN's training loop with these networks; style mixing is part of the generator."""
