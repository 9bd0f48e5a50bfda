"""SAGAN: self-attention and spectral norm in both players.

Zhang et al. 2019, https://arxiv.org/abs/1805.08318, sections 3 and 4: residual networks with conditional batch norm in
the generator and a projection on the class in the discriminator, hinge loss, and a discriminator with four times the
learning rate (TTUR, Heusel et al. 2017, https://arxiv.org/abs/1706.08500) instead of more steps.
"""

from collections.abc import Sequence
from functools import partial

from gan_lab.layers.conditioning import ConditioningFactory, Projection
from gan_lab.layers.resnet import (
    ResNetDiscriminator,
    ResNetGenerator,
    class_norm,
    initialize_glorot,
)
from gan_lab.layers.resolutions import ImageSize
from gan_lab.layers.spectral_norm import spectrally_normalized
from gan_lab.training.module import AdversarialModule


class Generator(ResNetGenerator):
    """SNGAN's generator with self-attention and spectral norm.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: base number of channels (`resnet.generator_multiples`).
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.

    Raises:
        InputError: for an unsupported image size.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 128,
        width: int = 64,
        attention: Sequence[int] = (64,),
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            z_dim=z_dim,
            width=width,
            norm=partial(class_norm, num_classes=num_classes),
            attention=attention,
        )
        initialize_glorot(self)
        # not the tables of scales and offsets: they are looked up, not multiplied with features
        spectrally_normalized(self, embeddings=False)


class Discriminator(ResNetDiscriminator):
    """Downsampling residual blocks with self-attention, under spectral norm.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: base number of channels (`resnet.discriminator_multiples`).
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.
        conditioning: how labels are used; `(features=, num_classes=) -> Conditioning`.

    Raises:
        InputError: for an unsupported image size, or a conditioning that needs classes.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        width: int = 64,
        attention: Sequence[int] = (64,),
        conditioning: ConditioningFactory = Projection,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            width=width,
            attention=attention,
            conditioning=conditioning,
        )
        initialize_glorot(self)
        spectrally_normalized(self)


class SAGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
