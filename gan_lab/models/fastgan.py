"""FastGAN, for few images and one GPU: gated blocks joined by skip-layer excitation, and a D that encodes.

Liu et al. 2021, https://arxiv.org/abs/2101.04775. The generator (section 3.1) is that of the projected GANs' authors,
https://github.com/autonomousvision/projected-gan: without tanh, with z on the unit sphere, and with classes through
conditional batch norm. The discriminator (section 3.2, figure 4) is an encoder: two small decoders make real images of
its features again, a whole one from the coarsest and a part from the finer, so that it cannot forget what images look
like. A second branch sees the image at half its size, at most 128 pixels. Where the paper is silent (widths of D,
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
from gan_lab.layers.labels import ClassEmbedding, check_labels
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
    index_from_end,
)
from gan_lab.layers.resnet import ConditionalBatchNorm, UnconditionalBatchNorm
from gan_lab.layers.resolutions import ImageSize, image_shape, resolution_pyramid
from gan_lab.layers.spectral_norm import stored_spectral_norm
from gan_lab.layers.stylegan import pixel_norm
from gan_lab.metrics.features.vgg16 import KINDS, choose_distance
from gan_lab.sampling.targets import Distance, PyramidDistance
from gan_lab.training.module import AdversarialModule

# channels at 4, 8, ... 1024 pixels, in widths
MULTIPLES = (16, 8, 4, 2, 2, 1, 1 / 2, 1 / 4, 1 / 8)

SKIP = 4  # doublings that an excitation leaps over ...

EXCITED = range(4, 8)  # ... to 64, 128, 256 and 512 pixels

SMALL = 128  # pixels that the second branch of D sees at most

MOST_DECODED = 4  # doublings of a decoder

SLOPE = 0.2

Norm = Callable[[int], nn.Module]


class Generator(GeneratorNetwork):
    """z on the unit sphere -> 4x4 -> doublings with gated linear units, excited by coarse maps -> image.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two, the shorter side at most 1,792.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: channels at 128 pixels; twice as many at 32 and 64, and up to 16 times at 4.
        lite: one convolution a block without noise, for half the time.

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
                f"image_size={image_size}: FastGAN doubles 8 times at most; set data.image_size=1024"
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
    """Nearest doubling, then twice (`lite`: once) convolution, noise, batch norm and a gated linear unit."""

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
    """Convolution to twice the channels, noise in training, batch norm, half of the channels as gates of the rest.

    Attributes:
        strength: of the noise, which is the same for all channels; None for no noise.
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
            # in evaluation z alone makes the image
            x = x + self.strength.to(x.dtype) * torch.randn_like(x[:, :1])
        return glu(self.norm(x, condition), dim=1)


class Excitation(nn.Module):
    """Skip-layer excitation: a coarse map says how much of each channel of a fine one there is (equation 1)."""

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = stored_spectral_norm(nn.Conv2d(inputs, outputs, 4, bias=False))
        self.conv2 = stored_spectral_norm(nn.Conv2d(outputs, outputs, 1, bias=False))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Scale the channels of `fine` [N, C', H', W'] by factors made of `coarse` [N, C, H, W]."""
        factors = self.conv2(silu(self.conv1(adaptive_avg_pool2d(coarse, 4))))
        return fine * factors.sigmoid()


class Discriminator(DiscriminatorNetwork):
    """Two encoders, of the image and of it at half its size, each to logits of patches; two decoders of the first.

    Attributes:
        distance: of images that are made again from their real ones.

    Args:
        image_size: side, or [height, width]; 8 to 15 pixels times a power of two, the shorter side at most 1,920.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: channels at 128 pixels; up to 16 times as many at 8.
        reconstruction_weight: of the loss of what is made again; 0 for no decoders.
        reconstruction: which distance: "lpips", "pyramid", or "auto": LPIPS where VGG16's weights are on this machine.
        frozen_blocks: how many parts of each encoder, from the image on, are not trained (Freeze-D, Mo et al. 2020,
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
                f"image_size={image_size}: FastGAN halves 7 times at most; set data.image_size=1024"
            )
        widths = [max(int(MULTIPLES[i + 1] * width), 1) for i in reversed(range(halvings + 1))]
        self.encoder = Encoder(channels=channels, widths=widths)
        self.logits = PatchLogits(
            features=widths[-1], num_classes=num_classes, norm=stored_spectral_norm
        )
        # how often the image is halved for the second branch; without any halving there is none
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
        """Return logits [N, P] of both branches' patches and, for real images, how badly they are made again [N]."""
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
        """Return the distance [N] of images [N, C, H, W] from what decoders make of their features (equation 4).

        Of the coarsest features the whole image is made, of a part of the finer ones, half as high and wide, that part.
        """
        assert self.decoder is not None
        errors = self.compare(self.decoder(maps[-1]), images)
        if self.part_decoder is None:
            return errors
        finer = maps[-2]
        scale = images.shape[2] // finer.shape[2]
        height, width = finer.shape[2] // 2, finer.shape[3] // 2
        # drawn on the CPU: the device need not be waited for
        top, left = (int(torch.randint(side + 1, ())) for side in (height, width))
        part = finer[:, :, top : top + height, left : left + width]
        top, left, height, width = (scale * value for value in (top, left, height, width))
        target = images[:, :, top : top + height, left : left + width]
        return errors + self.compare(self.part_decoder(part), target)

    def compare(self, made: Tensor, images: Tensor) -> Tensor:
        """Return the distance [N] of images that were made again, at the size of these."""
        target = avg_pool2d(images, images.shape[2] // made.shape[2])
        with torch.autocast(made.device.type, enabled=False):
            return self.distance(made.float(), target.detach().float())


def times_halved(image_size: ImageSize, halvings: int) -> int:
    """Return how often the second branch's image is halved: once, and until its shorter side is at most 128 pixels."""
    short, count = min(image_shape(image_size)), 1
    while short >> count > SMALL and count < halvings:
        count += 1
    return count


class Encoder(nn.Module):
    """Image -> features at its resolution, at half of it, ...

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
        maps = [leaky_relu(self.from_image(images), SLOPE)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps


class DownBlock(nn.Module):
    """Halving: the mean of a path of two convolutions and one of the means over 2x2 pixels (figure 4)."""

    def __init__(self, *, inputs: int, outputs: int) -> None:
        super().__init__()

        def layer(inputs: int, kernel: int, **arguments: Any) -> nn.Sequential:
            conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **arguments)
            return nn.Sequential(
                stored_spectral_norm(conv), nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE)
            )

        self.main = nn.Sequential(
            layer(inputs, 4, stride=2, padding=1), layer(outputs, 3, padding=1)
        )
        self.direct = nn.Sequential(nn.AvgPool2d(2), layer(inputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', H/2, W/2]."""
        return (self.main(x) + self.direct(x)) / 2


class Decoder(nn.Module):
    """Features -> an image, by at most four nearest doublings (section 3.2: 8x8 to 128x128).

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
    """Return batch norm without a condition."""
    return UnconditionalBatchNorm(width=features)


class FastGAN(AdversarialModule):
    """The loop with these networks; D's images are compared by LPIPS where its weights are there."""

    def setup(self, stage: str) -> None:
        """Choose the distance of images that D makes again, and say which it is."""
        super().setup(stage)
        network = self.discriminator
        # another paper's discriminator makes no images again
        if isinstance(network, Discriminator) and network.reconstruction_weight:
            network.distance = choose_distance(
                network.reconstruction,
                channels=network.channels,
                device=self.trainer.strategy.root_device,
            )
            say(f"fastgan: D's reconstructions by {network.distance.name}: {network.distance.why}")
