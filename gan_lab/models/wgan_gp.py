"""WGAN-GP: residual networks under the Wasserstein loss with a gradient penalty.

Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, appendix F (the CIFAR-10 ResNets): at 32x32 and width 128 the
generator is three residual blocks that double 4x4 up to 32x32, the critic two that halve and two at 8x8. No
normalisation in the critic, where the penalty is one of single images (section 4). With classes, the generator has
conditional batch norm and the critic projects on the label (Miyato and Koyama 2018), where the paper has an
auxiliary classifier.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from gan_lab.layers.conditioning import ProjectionLogit
from gan_lab.layers.labels import label_vectors
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork, index_from_end
from gan_lab.layers.pyramid import ImageSize, resolution_pyramid
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """z -> coarsest features -> residual doublings -> batch norm, rectifier, convolution, tanh.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: channels of every block.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 128,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.coarsest, doublings = resolution_pyramid(image_size)
        self.start = nn.Linear(z_dim, width * self.coarsest[0] * self.coarsest[1])
        self.blocks = nn.ModuleList(
            GeneratorBlock(width=width, num_classes=num_classes) for _ in range(doublings)
        )
        self.norm = nn.BatchNorm2d(width)
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)
        initialize(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        vectors = label_vectors(labels, self.num_classes, z)
        x = self.start(z).unflatten(1, (-1, *self.coarsest))
        for block in self.blocks:
            x = block(x, vectors)
        return self.to_image(relu(self.norm(x))).tanh()


class GeneratorBlock(nn.Module):
    """Residual block that doubles the resolution: norm, rectifier, nearest doubling, convolution, twice."""

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(width=width, num_classes=num_classes)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = ConditionalBatchNorm(width=width, num_classes=num_classes)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Map [N, C, H, W] and label vectors [N, K] to [N, C, 2H, 2W]."""
        residual = self.conv1(interpolate(relu(self.norm1(x, vectors)), scale_factor=2))
        residual = self.conv2(relu(self.norm2(residual, vectors)))
        # a 1x1 convolution commutes with nearest doubling and costs a quarter before it
        return residual + interpolate(self.shortcut(x), scale_factor=2)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and offset depend on the class (Dumoulin et al. 2017, https://arxiv.org/abs/1610.07629).

    Args:
        width: channels.
        num_classes: 0 for ordinary batch norm.
    """

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.modulation = nn.Linear(num_classes, 2 * width, bias=False) if num_classes else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Map [N, C, H, W] and label vectors [N, K] to [N, C, H, W]."""
        x = self.norm(x)
        if self.modulation is None:
            return x
        scale, offset = self.modulation(vectors)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(x + offset, x, scale)


class Discriminator(DiscriminatorNetwork):
    """The critic: residual halvings, two blocks at the coarsest resolution, rectifier, mean over pixels -> output.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional critic.
        width: channels of every block.
    """

    def __init__(
        self, *, image_size: ImageSize, channels: int, num_classes: int = 0, width: int = 128
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        _, count = resolution_pyramid(image_size)
        # the paper stops at 8x8 for 32x32: one halving less than the generator has doublings
        halve = [True] * max(count - 1, 1) + [False, False]
        self.blocks = nn.Sequential(
            *(
                CriticBlock(inputs=width if i else channels, width=width, halve=h, first=i == 0)
                for i, h in enumerate(halve)
            )
        )
        self.logit = ProjectionLogit(features=width, num_classes=num_classes)
        initialize(self)

    def resolution_keys(self) -> dict[str, str]:
        return index_from_end(blocks=self.blocks)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to outputs [N]."""
        return self.logit(relu(self.blocks(images)).mean((2, 3)), labels)


class CriticBlock(nn.Module):
    """Residual block without normalisation: (rectifier, convolution) twice, then, to halve, a mean over 2x2.

    Args:
        inputs: channels that come in.
        width: channels that go out.
        halve: whether to halve the resolution.
        first: whether the input is an image, which no rectifier may cut.
    """

    def __init__(self, *, inputs: int, width: int, halve: bool, first: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, width, 1) if halve else None
        self.halve = halve
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, width, H, W], or half of H and W."""
        residual = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        if self.shortcut is None:
            return x + residual
        # a 1x1 convolution commutes with the mean and costs a quarter after it
        return self.shortcut(avg_pool2d(x, 2)) + avg_pool2d(residual, 2)


def initialize(network: nn.Module) -> None:
    """Draw weights as He et al. 2015 do for rectifiers, without the gain for shortcuts and outputs (appendix F)."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) or (
            isinstance(module, nn.Linear) and "modulation" not in name
        ):
            rectified = name.endswith(("conv1", "conv2"))
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu" if rectified else "linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class WGANGP(AdversarialModule):
    """The loop with these networks; every hook is the default."""
