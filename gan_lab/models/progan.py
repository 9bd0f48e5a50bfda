"""ProGAN: progressive growing of generator and discriminator, from a few pixels to the full resolution.

Karras et al. 2018, https://arxiv.org/abs/1710.10196: progressive growing (section 2), minibatch standard deviation
(section 3), equalized learning rate (4.1), pixelwise normalization (4.2), WGAN-GP with drift (appendix A.1); the
networks are those of table 2.

The paper's networks have no classes. With them, G gets the label concatenated to z, as in the authors' code, and D has
a logit for each class; `conditioning=ac` makes it the auxiliary classifier of that code.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod, sqrt
from typing import cast

import torch
from torch import Tensor, nn

from gan_lab.console import warn
from gan_lab.data.sample import Batch
from gan_lab.layers.conditioning import ConditionedDiscriminator, ConditioningFactory, Projection
from gan_lab.layers.equalized import (
    LRELU_GAIN,
    EqualizedConv2d,
    EqualizedLinear,
    MinibatchStddev,
    Resample,
    lrelu,
)
from gan_lab.layers.networks import GeneratorNetwork, label_vectors
from gan_lab.layers.precision import to_fp32
from gan_lab.layers.resolutions import (
    BINOMIAL,
    Growth,
    GrowthStage,
    ImageSize,
    avg_pool,
    first_level,
    resize_to_stage,
    resized,
    resolution_pyramid,
    upsample_nearest,
)
from gan_lab.layers.stylegan import pixel_norm
from gan_lab.training.module import AdversarialModule

BOX = (1.0, 1.0)  # nearest upsampling, 2x2 average pooling


class GrowingGenerator(GeneratorNetwork, ABC):
    """A growing generator: `forward` returns full-size images, `forward_at_stage` those of the current stage.

    Attributes:
        stage: the current growth stage.
        growth: schedule of the stages.
        shape: height and width at level 0.
    """

    growth: Growth
    shape: tuple[int, int]

    @property
    @abstractmethod
    def stage(self) -> GrowthStage:
        """The current growth stage."""

    @abstractmethod
    def forward_at_stage(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, h, w] of the stage's resolution."""


class Generator(GrowingGenerator):
    """One block per resolution, and a 1x1 convolution to the image at each.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        channel_base: feature maps have channel_base / resolution channels ...
        channel_max: ... and no more than this.
        growing: whether images grow during training; otherwise they have their full size from the start.
        start_size: shorter side of the first images, in pixels.
        fade_kimg: thousands of real images over which a resolution is faded in.
        stable_kimg: thousands of real images before each fade.

    Raises:
        InputError: for invalid sizes or lengths.
    """

    supports_z_truncation = False  # z and label are normalized together

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 512,
        channel_base: int = 16384,
        channel_max: int = 512,
        growing: bool = True,
        start_size: int = 4,
        fade_kimg: float = 800,
        stable_kimg: float = 800,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.shape, last = resolution_pyramid(image_size)
        self.growth = Growth(
            first=first_level(self.shape, last, start_size) if growing else last,
            last=last,
            fade_kimg=fade_kimg,
            stable_kimg=stable_kimg,
        )
        self._stage = GrowthStage(first=self.growth.first, last=last)
        features = widths(last, channel_base, channel_max)
        self.start = Start(inputs=z_dim + num_classes, outputs=features[0], shape=self.shape)
        self.conv = EqualizedConv2d(inputs=features[0], outputs=features[0], kernel=3)
        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs=features[i - 1], outputs=features[i]) for i in range(1, last + 1)
        )
        self.torgb = nn.ModuleList(torgb(f, channels) for f in features)

    @property
    def stage(self) -> GrowthStage:
        """The current growth stage."""
        return self._stage

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W], pixels repeated up to full size."""
        return upsample_nearest(
            self.forward_at_stage(z, labels), 1 << (self.growth.last - self.stage.level)
        )

    def forward_at_stage(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, h, w] of the stage's resolution."""
        vectors = label_vectors(labels, self.num_classes, z)
        x = self.start(pixel_norm(torch.cat([z, vectors], dim=1)))
        x = below = pixel_norm(self.conv(x))
        for block in list(self.blocks)[: self.stage.level]:
            below, x = x, block(x)
        return fade_in(self.torgb, self.stage, below, x)


class Start(nn.Module):
    """First layer: vectors to features at the lowest resolution, leaky ReLU, pixel norm.

    Args:
        inputs: length of the vectors.
        outputs: channels.
        shape: height and width.
    """

    def __init__(self, *, inputs: int, outputs: int, shape: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, *shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight_gain = LRELU_GAIN / sqrt(inputs * prod(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs, h, w]."""
        x = torch.einsum("ni,iohw->nohw", x, self.weight * self.weight_gain)
        return pixel_norm(lrelu(x + (self.bias * LRELU_GAIN)[:, None, None]))


class GeneratorBlock(nn.Module):
    """Nearest upsampling and two convolutions, each followed by pixel norm.

    Args:
        inputs: channels from the resolution below.
        outputs: channels.
    """

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = convolution(inputs, outputs, "up", BOX)
        self.conv1 = convolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, 2H, 2W]."""
        return pixel_norm(self.conv1(pixel_norm(self.conv0(x))))


class Discriminator(ConditionedDiscriminator):
    """A 1x1 convolution from the image and one block per resolution, minibatch standard deviation, and the logit.

    Images larger than the stage's resolution are averaged down to it.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        channel_base: feature maps have channel_base / resolution channels ...
        channel_max: ... and no more than this.
        filtered: whether downsampling has a low-pass filter (Karras et al. 2019, appendix C) instead of 2x2 average
            pooling.
        mbstd_group_size: images per group of the minibatch standard deviation; 0 leaves the layer out.
        mbstd_num_channels: channels that it appends.
        conditioning: how labels are used; `(features=, num_classes=) -> Conditioning`. A projection is a logit for
            each class here (Mescheder et al. 2018, https://arxiv.org/abs/1801.04406).
        growing: as the generator's.
        start_size: as the generator's.

    Raises:
        InputError: for invalid sizes, or a conditioning that needs classes.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        channel_base: int = 16384,
        channel_max: int = 512,
        filtered: bool = False,
        mbstd_group_size: int = 4,
        mbstd_num_channels: int = 1,
        conditioning: ConditioningFactory = Projection,
        growing: bool = True,
        start_size: int = 4,
    ) -> None:
        super().__init__()
        self.shape, last = resolution_pyramid(image_size)
        first = first_level(self.shape, last, start_size) if growing else last
        self.stage = GrowthStage(first=first, last=last)
        features = widths(last, channel_base, channel_max)
        wide = features[0]
        self.fromrgb = nn.ModuleList(
            EqualizedConv2d(inputs=channels, outputs=f, kernel=1) for f in features
        )
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(inputs=features[i], outputs=features[i - 1], filtered=filtered)
            for i in range(1, last + 1)
        )
        self.mbstd = None
        if mbstd_group_size:
            self.mbstd = MinibatchStddev(
                group_size=mbstd_group_size, num_channels=mbstd_num_channels
            )
        self.conv = convolution(wide + (mbstd_num_channels if mbstd_group_size else 0), wide)
        self.fc = EqualizedLinear(inputs=wide * prod(self.shape), outputs=wide, lrelu=True)
        self.projected = self.condition(conditioning, features=wide, num_classes=num_classes)
        self.out = EqualizedLinear(inputs=wide, outputs=max(self.projected, 1))

    def extract(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to features [N, F]."""
        level = self.stage.level
        images = resized(images, (self.shape[0] << level, self.shape[1] << level))
        x = self.fromrgb[level](images)
        for i in reversed(range(level)):
            x = self.blocks[i](x)
            if i == level - 1 and self.stage.fade < 1:
                x = torch.lerp(self.fromrgb[i](avg_pool(images)), x, self.stage.fade)
        return self.fc(self.conv(x if self.mbstd is None else self.mbstd(x)).flatten(1))

    def score(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""
        logits = to_fp32(self.out(features))
        vectors = label_vectors(labels, self.projected, logits)
        return (logits * vectors).sum(1) if self.projected else logits.squeeze(1)


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second of which downsamples.

    Args:
        inputs: channels at this resolution.
        outputs: channels at the next lower one.
        filtered: whether downsampling has a low-pass filter.
    """

    def __init__(self, *, inputs: int, outputs: int, filtered: bool) -> None:
        super().__init__()
        self.conv0 = convolution(inputs, inputs)
        self.conv1 = convolution(inputs, outputs, "down", BINOMIAL if filtered else BOX)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H / 2, W / 2]."""
        return self.conv1(self.conv0(x))


def convolution(
    inputs: int, outputs: int, resample: Resample | None = None, taps: Sequence[float] = BOX
) -> EqualizedConv2d:
    """Return a 3x3 leaky-ReLU convolution.

    With the taps (1, 1) it equals one after nearest upsampling, or before 2x2 average pooling, at a quarter of the
    cost.
    """
    return EqualizedConv2d(inputs=inputs, outputs=outputs, kernel=3, resample=resample, taps=taps)


def torgb(features: int, channels: int) -> EqualizedConv2d:
    """Return the 1x1 convolution that makes an image."""
    return EqualizedConv2d(inputs=features, outputs=channels, kernel=1, lrelu=False)


def fade_in(layers: nn.ModuleList, stage: GrowthStage, below: Tensor, x: Tensor) -> Tensor:
    """Return the images [N, C, h, w] of a stage, in at least single precision, blended between two resolutions.

    Args:
        layers: toRGB of each level.
        stage: with the blending weight (figure 2).
        below: features one level below the stage's highest.
        x: features of the highest level.
    """
    images = to_fp32(layers[stage.level](x))
    if stage.fade == 1:
        return images
    return torch.lerp(upsample_nearest(to_fp32(layers[stage.level - 1](below))), images, stage.fade)


def widths(levels: int, channel_base: int, channel_max: int) -> list[int]:
    """Return channels of each level, the lowest (which counts as 4 pixels) first."""
    return [min(channel_base // (4 << i), channel_max) for i in range(levels + 1)]


class ProGAN(AdversarialModule):
    """The training loop with growing networks; D sees real images at the resolution of G's.

    Layers of resolutions not reached yet are neither computed nor changed. Where a fade-in begins and where it ends,
    the optimizers' moments are reset, as in the authors' code.
    """

    def prepare_step(self) -> None:
        """Set the growth stage of all networks from the clock."""
        stage = self._growing.growth.stage(self.kimg)
        if stages_in_use(stage) != stages_in_use(self._growing.stage.value):
            for player in self.players.values():
                assert player.optimizer is not None
                player.optimizer.state.clear()
        for network in (self.generator, self.generator_ema, self.discriminator):
            # discriminators of other papers take any size
            if isinstance(network, GrowingGenerator | Discriminator):
                network.stage.value = stage

    def fake(self, z: Tensor, batch: Batch) -> Tensor:
        """Make images of the stage's resolution."""
        return self._growing.forward_at_stage(z, batch.labels)

    def real(self, batch: Batch) -> Tensor:
        """Downsample real images to the stage's resolution."""
        return resize_to_stage(batch.real, self._growing.stage, self._growing.shape)

    def on_train_start(self) -> None:
        """Warn if training ends before full resolution is reached."""
        super().on_train_start()
        growth = self._growing.growth
        if self.total_images < growth.end_kimg * 1000:
            warn(
                f"total_kimg={self.total_images / 1000:g} ends before full resolution is reached, at "
                f"{growth.end_kimg:g} kimg; lower model.generator.fade_kimg={growth.fade_kimg:g} and "
                f"model.generator.stable_kimg={growth.stable_kimg:g}, or set model.generator.growing=false"
            )

    @property
    def _growing(self) -> GrowingGenerator:
        return cast(GrowingGenerator, self.generator)


def stages_in_use(stage: float) -> tuple[float, float]:
    """Return the integer stages at or around a stage: they change where a fade-in begins and where it ends."""
    return stage // 1, -(-stage // 1)
