"""SNGAN: residual networks whose discriminator is held to a Lipschitz constant by spectral normalisation.

Miyato et al. 2018, https://arxiv.org/abs/1802.05957, appendix B.4 (table 4: the 32-pixel ResNets), and, for larger
images and classes, Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637, appendix: conditional batch norm in the
generator, a projection on the class in the discriminator.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

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
    """z -> coarsest features -> residual doublings -> batch norm, rectifier, convolution, tanh.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: unit of the channels (`resnet.generator_multiples`); at 64, there are 256 throughout for 32 pixels.
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
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.coarsest, doublings = resolution_pyramid(image_size)
        widths = [width * multiple for multiple in generator_multiples(doublings)]
        self.start = nn.Linear(z_dim, widths[0] * self.coarsest[0] * self.coarsest[1])
        self.blocks = nn.ModuleList(
            UpBlock(
                inputs=inputs,
                outputs=outputs,
                norm1=class_norm(width=inputs, num_classes=num_classes),
                norm2=class_norm(width=outputs, num_classes=num_classes),
            )
            for inputs, outputs in pairwise(widths)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        initialize_glorot(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        check_labels(labels, self.num_classes)
        x = self.start(z).unflatten(1, (-1, *self.coarsest))
        for block in self.blocks:
            x = block(x, labels)
        return self.to_image(relu(self.norm(x))).tanh()


class Discriminator(ConditionedDiscriminator):
    """Image -> residual halvings -> one or two blocks at the coarsest resolution -> sum over pixels -> logit.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: unit of the channels (`resnet.discriminator_multiples`); at 32, there are 128 throughout for 32 pixels.
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
        super().__init__()
        _, count = resolution_pyramid(image_size)
        widths = [width * multiple for multiple in discriminator_multiples(count)]
        halved = number_of_halvings(count)
        # blocks widen in their second convolution, but for the first, whose input has few channels
        first = DownBlock(
            inputs=channels, outputs=widths[0], hidden=widths[0], halve=halved > 0, first=True
        )
        others = (
            DownBlock(inputs=inputs, outputs=outputs, hidden=inputs, halve=i < halved)
            for i, (inputs, outputs) in enumerate(pairwise(widths), start=1)
        )
        self.blocks = nn.Sequential(first, *others)
        projected = self.condition(conditioning, features=widths[-1], num_classes=num_classes)
        self.logit = ProjectedLogit(width=widths[-1], num_classes=projected)
        initialize_glorot(self)
        spectrally_normalized(self)

    def resolution_keys(self) -> dict[str, str]:
        return index_from_end(blocks=self.blocks)

    def extract(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to features [N, F]."""
        return pooled(self.blocks(images))

    def score(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""
        return self.logit(features, labels)


class SNGAN(AdversarialModule):
    """The loop with these networks; every hook is the default."""
