"""DCGAN: strided convolutions instead of pooling, and batch normalization, in both players.

Radford et al. 2016, https://arxiv.org/abs/1511.06434, section 3 and figure 1: at 64x64 and width 128 the generator is
the figure's (1024, 512, 256, 128 channels from 4x4 on), but with 4x4 kernels, which stride 2 divides evenly,
instead of 5x5. With classes, the generator gets the label concatenated to z and the discriminator projects on it
(Miyato and Koyama 2018); the paper has neither.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_lab.layers.conditioning import ProjectionLogit
from gan_lab.layers.networks import (
    DiscriminatorNetwork,
    GeneratorNetwork,
    index_from_end,
    label_vectors,
)
from gan_lab.layers.resolutions import ImageSize, resolution_pyramid
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """A linear layer to 4x4, then transposed convolutions with batch norm and ReLU, and tanh.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: channels before the last upsampling; each coarser resolution has twice as many.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 100,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        (height, columns), doublings = resolution_pyramid(image_size)
        widths = [width << i for i in reversed(range(max(doublings, 1)))]
        self.start = nn.Sequential(
            nn.Linear(z_dim + num_classes, widths[0] * height * columns, bias=False),
            nn.Unflatten(1, (widths[0], height, columns)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            blocks += [double(wide, narrow, bias=False), nn.BatchNorm2d(narrow), nn.ReLU()]
        last = double(width, channels) if doublings else nn.Conv2d(width, channels, 3, padding=1)
        self.layers = nn.Sequential(*blocks, last, nn.Tanh())
        self.apply(initialize)

    def resolution_keys(self) -> dict[str, str]:
        # a layer's width depends on its distance from the image, not on its resolution
        return index_from_end(layers=self.layers)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        inputs = torch.cat([z, label_vectors(labels, self.num_classes, z)], dim=1)
        return self.layers(self.start(inputs))


class Discriminator(DiscriminatorNetwork):
    """Strided convolutions with batch norm (not in the first) and leaky ReLU, then the logit.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: channels after the first downsampling; each coarser resolution has twice as many.
        batch_norm: whether to normalize; turn it off with a gradient penalty, since it couples images.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        width: int = 128,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        (height, columns), count = resolution_pyramid(image_size)
        first = halve(channels, width) if count else nn.Conv2d(channels, width, 3, padding=1)
        blocks: list[nn.Module] = [first, nn.LeakyReLU(0.2)]
        for i in range(count - 1):
            blocks.append(halve(width << i, width << i + 1, bias=not batch_norm))
            if batch_norm:
                blocks.append(nn.BatchNorm2d(width << i + 1))
            blocks.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*blocks, nn.Flatten())
        features = (width << max(count - 1, 0)) * height * columns
        self.logit = ProjectionLogit(features=features, num_classes=num_classes)
        self.apply(initialize)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to logits [N]."""
        return self.logit(self.layers(images), labels)


def double(inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
    """Return a transposed convolution that doubles the resolution."""
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)


def halve(inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
    """Return a convolution that halves the resolution."""
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)


def initialize(module: nn.Module) -> None:
    """Initialize weights from N(0, 0.02^2) (section 4) and batch norm's scales around 1."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)


class DCGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
