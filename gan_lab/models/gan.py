"""The first GAN: two multi-layer perceptrons.

Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, section 5: a generator with ReLUs, a maxout discriminator
with dropout; the widths are those of the authors' MNIST experiment. Images lie in [-1, 1] here, so G ends in tanh
instead of the paper's sigmoid. With classes, both players get the label concatenated to their input, as in Mirza and
Osindero 2014, https://arxiv.org/abs/1411.1784.
"""

from math import prod

import torch
from torch import Tensor, nn

from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork, label_vectors
from gan_lab.layers.resolutions import ImageSize, image_shape
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """MLP with two hidden ReLU layers and tanh.

    Args:
        image_size: side, or [height, width]; any.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: units of a hidden layer.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 100,
        width: int = 1200,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.image = (channels, *image_shape(image_size))
        self.layers = nn.Sequential(
            nn.Linear(z_dim + num_classes, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, prod(self.image)),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        inputs = torch.cat([z, label_vectors(labels, self.num_classes, z)], dim=1)
        return self.layers(inputs).unflatten(1, self.image)


class Maxout(nn.Module):
    """Maxout: each unit is the maximum of `pieces` affine maps (Goodfellow et al. 2013, https://arxiv.org/abs/1302.4389)."""

    def __init__(self, *, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.affine = nn.Linear(inputs, units * pieces)
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, units]."""
        return self.affine(x).unflatten(1, (-1, self.pieces)).amax(2)


class Discriminator(DiscriminatorNetwork):
    """MLP with two maxout layers and dropout.

    Args:
        image_size: side, or [height, width]; any.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: units of a maxout layer.
        pieces: affine maps of a unit.
        dropout: probability after each layer; of the image, `0.4 * dropout` of the pixels are dropped (0.2 at 0.5,
            as in the authors' code).
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        width: int = 240,
        pieces: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        pixels = channels * prod(image_shape(image_size))
        self.image_dropout = nn.Dropout(0.4 * dropout)
        self.layers = nn.Sequential(
            Maxout(inputs=pixels + num_classes, units=width, pieces=pieces),
            nn.Dropout(dropout),
            Maxout(inputs=width, units=width, pieces=pieces),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to logits [N]."""
        pixels = self.image_dropout(images.flatten(1))
        inputs = torch.cat([pixels, label_vectors(labels, self.num_classes, pixels)], dim=1)
        return self.layers(inputs).squeeze(1)


class GAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
