"""FastGAN, for few images and one GPU: skip-layer excitation in G, and a self-supervised, autoencoding D.

Liu et al. 2021, https://arxiv.org/abs/2101.04775. The generator (section 3.1) is that of the projected GANs' authors,
https://github.com/autonomousvision/projected-gan: without tanh, with z on the unit sphere, and with classes through
conditional batch norm. The discriminator (section 3.2, figure 4) is trained as an autoencoder, too: two small decoders
reconstruct real images from its features, the whole image from the coarsest and a crop from finer ones, as a
regularizer. A second branch sees the image downsampled to at most 128 pixels. Where the paper is silent (widths of D,
classes) choices are our own.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, glu, interpolate, leaky_relu, silu

from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.layers.conditioning import PatchLogits
from gan_lab.layers.networks import (
    ClassEmbedding,
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
    check_labels,
    index_from_end,
)
from gan_lab.layers.resnet import ConditionalBatchNorm, UnconditionalBatchNorm
from gan_lab.layers.resolutions import ImageSize, image_shape, resolution_pyramid
from gan_lab.layers.spectral_norm import stored_spectral_norm
from gan_lab.layers.stylegan import pixel_norm
from gan_lab.metrics.features.vgg16 import KINDS, choose_distance
from gan_lab.sampling.targets import Distance, PyramidDistance
from gan_lab.training.module import AdversarialModule

# channels at 4, 8, ... 1024 pixels, in units of `width`
MULTIPLES = (16, 8, 4, 2, 2, 1, 1 / 2, 1 / 4, 1 / 8)

SKIP = 4  # an excitation skips this many upsamplings ...

EXCITED = range(4, 8)  # ... and ends at 64, 128, 256 and 512 pixels

SMALL = 128  # largest shorter side for the second branch of D

MOST_DECODED = 4  # upsamplings of a decoder

LRELU_SLOPE = 0.2

Norm = Callable[[int], nn.Module]


class Generator(GeneratorNetwork):
    """Upsampling blocks with gated linear units and skip-layer excitation; z is normalized to the unit sphere.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two, the shorter side at most 1,792.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: channels at 128 pixels; twice as many at 32 and 64, and up to 16 times at 4.
        lite: one convolution per block and no noise, which halves the time.

    Raises:
        InputError: for invalid sizes.
    """

    supports_z_truncation = False  # z is normalized

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 256,
        width: int = 128,
        lite: bool = False,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        base, doublings = resolution_pyramid(image_size)
        if doublings >= len(MULTIPLES):
            raise InputError(
                f"image_size={image_size}: FastGAN has at most 8 upsampling blocks; set data.image_size=1024"
            )
        widths = [max(int(multiple * width), 1) for multiple in MULTIPLES[: doublings + 1]]
        self.embedding = (
            ClassEmbedding(num_classes=num_classes, width=z_dim) if num_classes else None
        )
        self.start = nn.Sequential(
            stored_spectral_norm(nn.ConvTranspose2d(z_dim, 2 * widths[0], base, bias=False)),
            nn.BatchNorm2d(2 * widths[0]),
            nn.GLU(dim=1),
        )

        def norm(features: int) -> nn.Module:
            if not num_classes:
                return plain_norm(features)
            gain, offset = (stored_spectral_norm(nn.Linear(z_dim, features)) for _ in range(2))
            return ConditionalBatchNorm(width=features, gain=gain, offset=offset)

        self.blocks = nn.ModuleList(
            UpBlock(inputs=inputs, outputs=outputs, norm=norm, lite=lite)
            for inputs, outputs in pairwise(widths)
        )
        self.excitations = nn.ModuleDict(
            {
                str(level): Excitation(inputs=widths[level - SKIP], outputs=widths[level])
                for level in EXCITED
                if level <= doublings
            }
        )
        self.to_image = stored_spectral_norm(nn.Conv2d(widths[-1], channels, 3, padding=1))
        self.doublings = doublings

    def resolution_keys(self) -> dict[str, str]:
        return {"to_image": f"to_image.{self.doublings}"}

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W], roughly in [-1, 1]."""
        check_labels(labels, self.num_classes)
        condition = None if self.embedding is None else self.embedding(labels)
        maps = [self.start(pixel_norm(z)[:, :, None, None])]
        for level, block in enumerate(self.blocks, start=1):
            x = block(maps[-1], condition)
            if str(level) in self.excitations:
                x = self.excitations[str(level)](maps[level - SKIP], x)
            maps.append(x)
        return self.to_image(maps[-1])


class UpBlock(nn.Module):
    """Nearest upsampling and two (`lite`: one) `GatedLayer`s."""

    def __init__(self, *, inputs: int, outputs: int, norm: Norm, lite: bool) -> None:
        super().__init__()
        widths = [inputs, outputs] if lite else [inputs, outputs, outputs]
        self.layers = nn.ModuleList(
            GatedLayer(inputs=before, outputs=after, norm=norm, noise=not lite)
            for before, after in pairwise(widths)
        )

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Map [N, C, H, W] to [N, C', 2H, 2W]."""
        x = interpolate(x, scale_factor=2, mode="nearest")
        for layer in self.layers:
            x = layer(x, condition)
        return x


class GatedLayer(nn.Module):
    """Convolution, noise (in training only), batch norm, gated linear unit.

    Attributes:
        strength: learned strength of the noise, which all channels share; None for no noise.
    """

    def __init__(self, *, inputs: int, outputs: int, norm: Norm, noise: bool) -> None:
        super().__init__()
        self.conv = stored_spectral_norm(nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False))
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        self.norm = norm(2 * outputs)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Map [N, C, H, W] to [N, C', H, W]."""
        x = self.conv(x)
        if self.strength is not None and self.training:
            # in evaluation mode the image is a function of z (and the label) alone
            x = x + self.strength.to(x.dtype) * torch.randn_like(x[:, :1])
        return glu(self.norm(x, condition), dim=1)


class Excitation(nn.Module):
    """Skip-layer excitation: the channels of a fine map are scaled by factors from a coarse one (equation 1)."""

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = stored_spectral_norm(nn.Conv2d(inputs, outputs, 4, bias=False))
        self.conv2 = stored_spectral_norm(nn.Conv2d(outputs, outputs, 1, bias=False))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Scale the channels of `fine` [N, C', H', W'] by factors computed from `coarse` [N, C, H, W]."""
        factors = self.conv2(silu(self.conv1(adaptive_avg_pool2d(coarse, 4))))
        return fine * factors.sigmoid()


class Discriminator(DiscriminatorNetwork):
    """Two encoders, of the full and a downsampled image, each with patch logits; two decoders after the first.

    Attributes:
        distance: between real images and their reconstructions.

    Args:
        image_size: side, or [height, width]; 8 to 15 pixels times a power of two, the shorter side at most 1,920.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: channels at 128 pixels; up to 16 times as many at 8.
        reconstruction_weight: of the reconstruction loss; 0 for no decoders.
        reconstruction: which distance: "lpips", "pyramid", or "auto": LPIPS where VGG16's weights are on this machine.
        frozen_blocks: how many blocks of each encoder, from the image on, are not trained (Freeze-D, Mo et al. 2020,
            https://arxiv.org/abs/2002.10964).

    Raises:
        InputError: for invalid sizes, a weight or a distance.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        width: int = 64,
        reconstruction_weight: float = 1.0,
        reconstruction: str = "auto",
        frozen_blocks: int = 0,
    ) -> None:
        super().__init__()
        if reconstruction not in KINDS or reconstruction_weight < 0:
            raise InputError(
                f"FastGAN: reconstruction={reconstruction!r} must be one of {', '.join(KINDS)} and "
                f"reconstruction_weight={reconstruction_weight} not negative"
            )
        self.num_classes = num_classes
        self.channels = channels
        self.reconstruction = reconstruction
        self.reconstruction_weight = reconstruction_weight
        self.distance: Distance = PyramidDistance()
        _, halvings = resolution_pyramid(image_size, base=8)
        if halvings >= len(MULTIPLES) - 1:
            raise InputError(
                f"image_size={image_size}: FastGAN has at most 7 downsampling blocks; set data.image_size=1024"
            )
        widths = [max(int(MULTIPLES[i + 1] * width), 1) for i in reversed(range(halvings + 1))]
        self.encoder = Encoder(channels=channels, widths=widths)
        self.logits = PatchLogits(
            features=widths[-1], num_classes=num_classes, norm=stored_spectral_norm
        )
        # downsamplings before the second branch; without any there is no second branch
        self.shrunk = times_halved(image_size, halvings)
        self.small_encoder: Encoder | None = None
        if halvings:
            self.small_encoder = Encoder(channels=channels, widths=widths[self.shrunk :])
            self.small_logits = PatchLogits(
                features=widths[-1], num_classes=num_classes, norm=stored_spectral_norm
            )
        self.decoder: Decoder | None = None
        self.part_decoder: Decoder | None = None
        if reconstruction_weight:
            self.decoder = Decoder(widths=widths[::-1], channels=channels)
            if halvings:
                self.part_decoder = Decoder(widths=widths[-2::-1], channels=channels)
        self._freeze(frozen_blocks)

    def _freeze(self, count: int) -> None:
        for encoder in (self.encoder, self.small_encoder):
            parts = [] if encoder is None else [encoder.from_image, *encoder.blocks]
            for part in parts[: max(count, 0)]:
                part.requires_grad_(False)

    def resolution_keys(self) -> dict[str, str]:
        keys: dict[str, str] = {}
        for name in ("encoder", "small_encoder"):
            encoder = getattr(self, name)
            if encoder is not None:
                keys |= index_from_end(**{f"{name}.blocks": encoder.blocks})
                keys[f"{name}.from_image"] = f"{name}.from_image.{len(encoder.blocks)}"
        for name in ("decoder", "part_decoder"):
            decoder = getattr(self, name)
            if decoder is not None:
                keys[f"{name}.to_image"] = f"{name}.to_image.{len(decoder.blocks)}"
        return keys

    def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to logits [N, P]."""
        return self.discriminate(x, labels, None).logits

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        """Return patch logits [N, P] of both branches and, for real images, the reconstruction loss [N]."""
        assert isinstance(x, Tensor), "a discriminator of one tensor of images"
        maps = self.encoder(x)
        logits = self.logits(maps[-1], labels)
        if self.small_encoder is not None:
            small = self.small_encoder(avg_pool2d(x, 1 << self.shrunk))[-1]
            logits = torch.cat([logits, self.small_logits(small, labels)], dim=1)
        losses = {}
        if role == "real" and self.reconstruction_weight:
            losses["reconstruction"] = self.reconstruction_weight * self.reconstruct(x, maps)
        return DiscriminatorOutput(logits, losses)

    def reconstruct(self, images: Tensor, maps: list[Tensor]) -> Tensor:
        """Return the reconstruction error [N] of images [N, C, H, W] (equation 4).

        The whole image is decoded from the coarsest features, a crop of half the height and width from finer ones.
        """
        assert self.decoder is not None
        errors = self.compare(self.decoder(maps[-1]), images)
        if self.part_decoder is None:
            return errors
        finer = maps[-2]
        scale = images.shape[2] // finer.shape[2]
        height, width = finer.shape[2] // 2, finer.shape[3] // 2
        # drawn on the CPU, which needs no synchronization
        top, left = (int(torch.randint(side + 1, ())) for side in (height, width))
        part = finer[:, :, top : top + height, left : left + width]
        top, left, height, width = (scale * value for value in (top, left, height, width))
        target = images[:, :, top : top + height, left : left + width]
        return errors + self.compare(self.part_decoder(part), target)

    def compare(self, made: Tensor, images: Tensor) -> Tensor:
        """Return the distance [N] between images and reconstructions, at the size of the latter."""
        target = avg_pool2d(images, images.shape[2] // made.shape[2])
        with torch.autocast(made.device.type, enabled=False):
            return self.distance(made.float(), target.detach().float())


def times_halved(image_size: ImageSize, halvings: int) -> int:
    """Return how often to downsample for the second branch: once, and until the shorter side is at most 128 pixels."""
    short, count = min(image_shape(image_size)), 1
    while short >> count > SMALL and count < halvings:
        count += 1
    return count


class Encoder(nn.Module):
    """Encoder: features at the image's resolution, at half of it, and so on.

    Args:
        channels: of the image.
        widths: of the features, fine to coarse.
    """

    def __init__(self, *, channels: int, widths: list[int]) -> None:
        super().__init__()
        self.from_image = stored_spectral_norm(
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        )
        self.blocks = nn.ModuleList(
            DownBlock(inputs=fine, outputs=coarse) for fine, coarse in pairwise(widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images [N, C, H, W] to features, fine to coarse."""
        maps = [leaky_relu(self.from_image(images), LRELU_SLOPE)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps


class DownBlock(nn.Module):
    """Downsampling: the mean of a path of two convolutions and one of 2x2 average pooling (figure 4)."""

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__()

        def layer(inputs: int, kernel: int, **arguments: Any) -> nn.Sequential:
            conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **arguments)
            return nn.Sequential(
                stored_spectral_norm(conv), nn.BatchNorm2d(outputs), nn.LeakyReLU(LRELU_SLOPE)
            )

        self.main = nn.Sequential(
            layer(inputs, 4, stride=2, padding=1), layer(outputs, 3, padding=1)
        )
        self.direct = nn.Sequential(nn.AvgPool2d(2), layer(inputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', H/2, W/2]."""
        return (self.main(x) + self.direct(x)) / 2


class Decoder(nn.Module):
    """Decoder: features to an image by at most four nearest upsamplings (section 3.2: 8x8 to 128x128).

    Args:
        widths: of the encoder's features from these on, coarse to fine.
        channels: of the image.
    """

    def __init__(self, *, widths: list[int], channels: int) -> None:
        super().__init__()
        widths = widths[: MOST_DECODED + 1]
        self.blocks = nn.ModuleList(
            UpBlock(inputs=coarse, outputs=fine, norm=plain_norm, lite=True)
            for coarse, fine in pairwise(widths)
        )
        self.to_image = stored_spectral_norm(nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, F, H, W] to an image [N, C, H', W'], roughly in [-1, 1]."""
        for block in self.blocks:
            x = block(x, None)
        return self.to_image(x)


def plain_norm(features: int) -> nn.Module:
    """Return unconditional batch norm."""
    return UnconditionalBatchNorm(width=features)


class FastGAN(AdversarialModule):
    """The training loop with these networks; D's reconstructions are compared by LPIPS if its weights are there."""

    def setup(self, stage: str) -> None:
        """Choose the distance of D's reconstructions and log it."""
        super().setup(stage)
        network = self.discriminator
        # discriminators of other papers have no reconstructions
        if isinstance(network, Discriminator) and network.reconstruction_weight:
            network.distance = choose_distance(
                network.reconstruction,
                channels=network.channels,
                device=self.trainer.strategy.root_device,
            )
            say(f"fastgan: D's reconstructions by {network.distance.name}: {network.distance.why}")
