"""WGAN-GP: residual networks under the Wasserstein loss with a gradient penalty.

Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, appendix F (the CIFAR-10 ResNets): at 32x32 and width 128 the
generator has three upsampling residual blocks from 4x4 to 32x32, the critic two downsampling blocks and two at 8x8. The
critic has no normalization, since the penalty is on the gradient of each image (section 4). With classes, the generator
has conditional batch norm and the critic projects on the label (Miyato and Koyama 2018); the paper uses an auxiliary
classifier.
"""

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from gan_lab.layers.resnet import ResNetDiscriminator, ResNetGenerator, class_norm, zero_biases
from gan_lab.layers.resolutions import ImageSize
from gan_lab.training.module import AdversarialModule


class Generator(ResNetGenerator):
    """Upsampling residual blocks of one width with (conditional) batch norm.

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
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            z_dim=z_dim,
            width=width,
            norm=partial(class_norm, num_classes=num_classes),
            multiples=lambda doublings: [1] * (doublings + 1),
        )
        initialize(self)


class Discriminator(ResNetDiscriminator):
    """The critic: downsampling residual blocks, two blocks at the coarsest resolution, ReLU, mean over pixels.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional critic.
        width: channels of every block.
    """

    def __init__(
        self, *, image_size: ImageSize, channels: int, num_classes: int = 0, width: int = 128
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            width=width,
            multiples=lambda count: [1] * (halvings(count) + 2),
            halvings=halvings,
        )
        initialize(self)

    def pool(self, x: Tensor) -> Tensor:
        return relu(x).mean((2, 3))


def halvings(count: int) -> int:
    """Return the critic's number of downsampling blocks: one less than lead to 4x4, as the paper stops at 8x8."""
    return max(count - 1, 1)


def initialize(network: nn.Module) -> None:
    """Draw He et al. 2015's weights for ReLU, without the gain for shortcuts and outputs (appendix F)."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            in_branch = name.endswith(("conv1", "conv2"))
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu" if in_branch else "linear")
        elif name == "logit.embedding":
            assert isinstance(module.weight, Tensor)
            # fan-in is the number of classes: the input is a one-hot vector
            nn.init.kaiming_uniform_(module.weight, mode="fan_out", nonlinearity="linear")
    zero_biases(network)


class WGANGP(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
