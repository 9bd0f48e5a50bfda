"""LSGAN: the least-squares loss with the paper's networks for scenes.

Mao et al. 2017, https://arxiv.org/abs/1611.04076, figure 3: at 112x112 the generator goes from 7x7x256 through four
upsampling layers of 256, 256, 128 and 64 channels, a further convolution after each of the first two, and the
discriminator through four 5x5 convolutions of stride 2 with 64 to 512 channels. Other sizes have more or fewer of these
steps. With classes, the one-hot label goes through a linear layer, as in section 3.3, so that thousands of classes stay
cheap; the result is concatenated to z in the generator and to the first convolution's features in the discriminator.
"""

import torch
from torch import Tensor, nn

from gan_lab.layers.networks import (
    DiscriminatorNetwork,
    GeneratorNetwork,
    index_from_end,
    label_vectors,
    with_label_maps,
)
from gan_lab.layers.resolutions import ImageSize, resolution_pyramid
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """A linear layer, then transposed convolutions with batch norm, and tanh.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: channels after the last upsampling; coarser ones have up to four times as many.
        label_dim: output size of the label's linear layer.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 1024,
        width: int = 64,
        label_dim: int = 256,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        (height, columns), doublings = resolution_pyramid(image_size)
        most = 4 * width
        self.label_map = LabelMap(num_classes=num_classes, dim=label_dim)
        self.start = nn.Sequential(
            nn.Linear(z_dim + self.label_map.dim, most * height * columns, bias=False),
            nn.Unflatten(1, (most, height, columns)),
            nn.BatchNorm2d(most),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        before = most
        for i in reversed(range(doublings)):
            after = min(width << i, most)
            blocks += normalized(
                nn.ConvTranspose2d(before, after, 3, 2, padding=1, output_padding=1, bias=False)
            )
            if after == most:
                blocks += normalized(nn.Conv2d(after, after, 3, padding=1, bias=False))
            before = after
        self.layers = nn.Sequential(*blocks, nn.Conv2d(before, channels, 3, padding=1), nn.Tanh())
        self.apply(initialize)

    def resolution_keys(self) -> dict[str, str]:
        # a layer's width depends on its distance from the image, not on its resolution
        return index_from_end(layers=self.layers)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        return self.layers(self.start(torch.cat([z, self.label_map(labels, z)], dim=1)))


class Discriminator(DiscriminatorNetwork):
    """Strided 5x5 convolutions with batch norm (not in the first) and leaky ReLU, then the output.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: channels after the first downsampling; coarser resolutions have up to eight times as many.
        label_dim: output size of the label's linear layer.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        width: int = 64,
        label_dim: int = 256,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        (height, columns), count = resolution_pyramid(image_size)
        self.label_map = LabelMap(num_classes=num_classes, dim=label_dim)
        self.first = nn.Conv2d(channels, width, 5, 2 if count else 1, padding=2)
        blocks: list[nn.Module] = []
        before, after = width + self.label_map.dim, width
        for i in range(1, count):
            after = width << min(i, 3)
            blocks += [
                nn.Conv2d(before, after, 5, 2, padding=2, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
            before = after
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(before * height * columns, 1))
        self.activation = nn.LeakyReLU(0.2)
        self.apply(initialize)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to outputs [N]."""
        features = self.activation(self.first(images))
        return self.layers(with_label_maps(features, self.label_map(labels, features))).squeeze(1)


class LabelMap(nn.Module):
    """Linear layer on the one-hot label; empty without classes."""

    def __init__(self, *, num_classes: int, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dim = dim if num_classes else 0
        self.linear = nn.Linear(num_classes, dim, bias=False) if num_classes else None

    def forward(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """Return [N, dim] in the type of `like` [N, ...]."""
        vectors = label_vectors(labels, self.num_classes, like)
        return vectors if self.linear is None else self.linear(vectors)


def normalized(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    """Return a convolution followed by batch norm and ReLU."""
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


def initialize(module: nn.Module) -> None:
    """Initialize weights from N(0, 0.02^2), as DCGAN does; the paper does not say."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class LSGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
