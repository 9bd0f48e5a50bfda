"""BiGAN: an encoder is trained with the generator, and the discriminator sees pairs of an image and its code.

    V(D, E, G) = E_x[log D(x, E(x))] + E_z[log(1 - D(G(z), z))]

Donahue et al. 2017, https://arxiv.org/abs/1605.09782, section 3: D separates the encoder's pairs (x, E(x)) from the
generator's (G(z), z), and E and G are trained against it together. At the optimum E inverts G (theorem 2), without a
reconstruction loss. The networks are DCGAN's, with the code concatenated to the last features of D; z is normal; the
paper's is uniform. With classes, G gets the label concatenated to z and D projects on it (Miyato and Koyama 2018); E
never sees labels.

What D sees is a tuple (image, code). Penalties that differentiate by D's input, or interpolate between inputs, act on
both.
"""

import torch
from torch import Tensor, nn

from gan_lab.data.sample import Batch
from gan_lab.layers.conditioning import ProjectionLogit
from gan_lab.layers.networks import DiscriminatorInput, DiscriminatorNetwork
from gan_lab.layers.resolutions import ImageSize, resolution_pyramid
from gan_lab.models import dcgan
from gan_lab.training.losses import mean_per_sample
from gan_lab.training.module import AdversarialModule
from gan_lab.training.steps import GeneratorStep


class Generator(dcgan.Generator):
    """DCGAN's generator with the encoder as a submodule, so that both share an optimizer and a moving average.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: channels before the last upsampling; each coarser resolution has twice as many.
        encoder_width: channels after the encoder's first downsampling; each coarser resolution has twice as many.
    """

    has_encoder = True

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 50,
        width: int = 128,
        encoder_width: int = 128,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            z_dim=z_dim,
            width=width,
        )
        trunk, features = halving_trunk(
            image_size=image_size, channels=channels, width=encoder_width, batch_norm=True
        )
        self.encoder = nn.Sequential(trunk, nn.Linear(features, z_dim))
        self.encoder.apply(dcgan.initialize)

    def encode(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] in [-1, 1] to codes [N, Z], which the generator maps back to similar images."""
        return self.encoder(images)


class Discriminator(DiscriminatorNetwork):
    """Joint discriminator: a convolutional trunk for the image, an MLP for the code, and a joint MLP to the logit.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        z_dim: length of the code.
        num_classes: 0 for an unconditional discriminator.
        width: channels after the first downsampling; each coarser resolution has twice as many.
        code_width: number of features of the code; the joint layer has twice as many.
        batch_norm: whether to normalize; turn it off with a gradient penalty, since it couples images.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        z_dim: int,
        num_classes: int = 0,
        width: int = 128,
        code_width: int = 512,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.trunk, features = halving_trunk(
            image_size=image_size, channels=channels, width=width, batch_norm=batch_norm
        )
        self.code_layers = nn.Sequential(
            nn.Linear(z_dim, code_width),
            nn.LeakyReLU(0.2),
            nn.Linear(code_width, code_width),
            nn.LeakyReLU(0.2),
        )
        self.joint = nn.Sequential(
            nn.Linear(features + code_width, 2 * code_width), nn.LeakyReLU(0.2)
        )
        self.logit = ProjectionLogit(features=2 * code_width, num_classes=num_classes)
        self.apply(initialize)

    def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
        """Map pairs of images [N, C, H, W] and codes [N, Z] (and labels [N]) to logits [N]."""
        images, codes = x
        features = torch.cat([self.trunk(images), self.code_layers(codes)], dim=1)
        return self.logit(self.joint(features), labels)


class BiGAN(AdversarialModule):
    """The training loop on pairs (image, code); the loss of G and E is D's with real and fake swapped.

    Raises:
        InputError: for inconsistent arguments.
    """

    has_encoder = True
    generator: Generator

    def fake(self, z: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return generated images [N, C, H, W] and their latents [N, Z]."""
        return self.generator(z, batch.labels), z

    def real(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return real images [N, C, H, W] and their codes [N, Z]."""
        return batch.real, self.generator.encode(batch.real)

    def generator_loss(
        self, step: GeneratorStep, fake_logits: Tensor, real_logits: Tensor | None
    ) -> Tensor:
        """Return the loss of G and E per pair, [N]: it is low where D calls G's pairs real and E's pairs fake.

        With the non-saturating loss it is -log D(G(z), z) - log(1 - D(x, E(x))), as in the paper.
        """
        assert real_logits is not None
        losses = super().generator_loss(step, fake_logits, real_logits)
        if self.loss.paired:
            return losses
        swapped = 2 * self.loss.neutral_logit - real_logits
        return losses + mean_per_sample(self.loss.generator(swapped))


def halving_trunk(
    *, image_size: ImageSize, channels: int, width: int, batch_norm: bool
) -> tuple[nn.Module, int]:
    """Return strided convolutions down to 4 to 7 pixels, flattened, and the number of features."""
    (height, columns), count = resolution_pyramid(image_size)
    first = dcgan.halve(channels, width) if count else nn.Conv2d(channels, width, 3, padding=1)
    blocks: list[nn.Module] = [first, nn.LeakyReLU(0.2)]
    for i in range(count - 1):
        blocks.append(dcgan.halve(width << i, width << i + 1, bias=not batch_norm))
        if batch_norm:
            blocks.append(nn.BatchNorm2d(width << i + 1))
        blocks.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*blocks, nn.Flatten()), (width << max(count - 1, 0)) * height * columns


def initialize(module: nn.Module) -> None:
    """Initialize as DCGAN, but scale linear layers to preserve variance, since no norm follows them."""
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.kaiming_normal_(module.weight, a=0.2)
        nn.init.zeros_(module.bias)
    else:
        dcgan.initialize(module)
