"""SNGAN: residual networks whose discriminator is kept Lipschitz by spectral normalization.

Miyato et al. 2018, https://arxiv.org/abs/1802.05957, appendix B.4 (table 4: the 32-pixel ResNets), and, for larger
images and classes, Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637, appendix: conditional batch norm in the
generator, a projection on the class in the discriminator.
"""

from functools import partial

from torch import nn

from gan_lab.layers.conditioning import ConditioningFactory, Projection
from gan_lab.layers.resnet import (
    DownBlock,
    ResNetDiscriminator,
    ResNetGenerator,
    class_norm,
    initialize_glorot,
)
from gan_lab.layers.resolutions import ImageSize
from gan_lab.layers.spectral_norm import spectrally_normalized
from gan_lab.training.module import AdversarialModule


class Generator(ResNetGenerator):
    """Upsampling residual blocks with (conditional) batch norm.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: base number of channels (`resnet.generator_multiples`); 64 gives 256 channels throughout at 32 pixels.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 128,
        width: int = 64,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            z_dim=z_dim,
            width=width,
            norm=partial(class_norm, num_classes=num_classes),
        )
        initialize_glorot(self)


class Discriminator(ResNetDiscriminator):
    """Downsampling residual blocks under spectral norm, the sum over pixels, and the projection on the class.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: base number of channels (`resnet.discriminator_multiples`); 32 gives 128 channels throughout at 32
            pixels.
        conditioning: how labels are used; `(features=, num_classes=) -> Conditioning`.

    Raises:
        InputError: for a conditioning that needs classes where there are none.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        width: int = 32,
        conditioning: ConditioningFactory = Projection,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            width=width,
            conditioning=conditioning,
        )
        initialize_glorot(self)
        spectrally_normalized(self)

    def block(self, *, inputs: int, outputs: int, halve: bool, first: bool) -> nn.Module:
        # blocks widen in their second convolution, except for the first, whose input has few channels
        hidden = outputs if first else inputs
        return DownBlock(inputs=inputs, outputs=outputs, hidden=hidden, halve=halve, first=first)


class SNGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
