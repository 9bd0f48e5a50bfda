"""SAGAN: self-attention in both players, and spectral norm in both.

Zhang et al. 2019, https://arxiv.org/abs/1805.08318, sections 3 and 4: residual networks with conditional batch norm in
the generator and a projection on the class in the discriminator, hinge loss, and a discriminator that learns four times
as fast (TTUR, Heusel et al. 2017, https://arxiv.org/abs/1706.08500) in place of more steps.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

from gan_lab.layers.attention import attentions
from gan_lab.layers.conditioning import ConditionedDiscriminator, ConditioningFactory, Projection
from gan_lab.layers.labels import check_labels
from gan_lab.layers.networks import GeneratorNetwork, index_from_end
from gan_lab.layers.pyramid import ImageSize, resolution_pyramid
from gan_lab.layers.resnet import (
    DownBlock,
    ProjectedLogit,
    UpBlock,
    class_norm,
    discriminator_multiples,
    generator_multiples,
    initialize_glorot,
    number_of_halvings,
    pooled,
)
from gan_lab.layers.spectral_norm import spectrally_normalized
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """z -> coarsest features -> residual doublings, attention after some -> batch norm, rectifier, convolution, tanh.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: unit of the channels (`resnet.generator_multiples`).
        attention: sizes (the shorter side) at which there is self-attention; larger ones than the image are left out.

    Raises:
        InputError: for a size that the network does not pass through.
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
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.coarsest, doublings = resolution_pyramid(image_size)
        height, columns = self.coarsest
        widths = [width * multiple for multiple in generator_multiples(doublings)]
        self.start = nn.Linear(z_dim, widths[0] * height * columns)
        self.blocks = nn.ModuleList(
            UpBlock(
                inputs=inputs,
                outputs=outputs,
                norm1=class_norm(width=inputs, num_classes=num_classes),
                norm2=class_norm(width=outputs, num_classes=num_classes),
            )
            for inputs, outputs in pairwise(widths)
        )
        sizes = [(height << i, columns << i) for i in range(1, doublings + 1)]
        self.attentions = attentions(attention, sizes, widths[1:])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        initialize_glorot(self)
        # tables of scales and offsets are looked up and not multiplied with features
        spectrally_normalized(self, embeddings=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        check_labels(labels, self.num_classes)
        x = self.start(z).unflatten(1, (-1, *self.coarsest))
        for block, attend in zip(self.blocks, self.attentions, strict=True):
            x = attend(block(x, labels))
        return self.to_image(relu(self.norm(x))).tanh()


class Discriminator(ConditionedDiscriminator):
    """Image -> residual halvings, attention after some -> blocks at the coarsest resolution -> sum -> logit.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: unit of the channels (`resnet.discriminator_multiples`).
        attention: sizes (the shorter side) at which there is self-attention; larger ones than the image are left out.
        conditioning: how labels are used; `(features=, num_classes=) -> Conditioning`.

    Raises:
        InputError: for a size that the network does not pass through, or a conditioning that needs classes.
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
        super().__init__()
        (height, columns), count = resolution_pyramid(image_size)
        widths = [width * multiple for multiple in discriminator_multiples(count)]
        halved = number_of_halvings(count)
        self.blocks = nn.ModuleList(
            DownBlock(
                inputs=inputs, outputs=outputs, hidden=outputs, halve=i < halved, first=i == 0
            )
            for i, (inputs, outputs) in enumerate(pairwise([channels, *widths]))
        )
        left = [count - min(i + 1, halved) for i in range(len(widths))]
        self.attentions = attentions(attention, [(height << n, columns << n) for n in left], widths)
        projected = self.condition(conditioning, features=widths[-1], num_classes=num_classes)
        self.logit = ProjectedLogit(width=widths[-1], num_classes=projected)
        initialize_glorot(self)
        spectrally_normalized(self)

    def resolution_keys(self) -> dict[str, str]:
        return index_from_end(blocks=self.blocks, attentions=self.attentions)

    def extract(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to features [N, F]."""
        x = images
        for block, attend in zip(self.blocks, self.attentions, strict=True):
            x = attend(block(x))
        return pooled(x)

    def score(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""
        return self.logit(features, labels)


class SAGAN(AdversarialModule):
    """The loop with these networks; every hook is the default."""
