"""WGAN-GP for text: the generator gives a softmax over characters at each position, the critic sees one-hot characters.

Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, section 5.3 and appendix; sizes and initial weights are those
of the authors' gan_language.py (https://github.com/igul222/improved_wgan_training). The paper has no classes; with
them, z is concatenated to the one-hot class, and the critic projects on the class (Miyato and Koyama 2018).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import ProjectionLogit
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork, label_vectors
from gan_lab.training.module import AdversarialModule

BLOCKS = 5


class ResidualBlock(nn.Module):
    """Residual block: x + 0.3 times two convolutions of width 5, each after a ReLU.

    Args:
        width: channels.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 5, padding=2)
        self.conv2 = nn.Conv1d(width, width, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, W, L] to the same shape."""
        return x + 0.3 * self.conv2(relu(self.conv1(relu(x))))


class Generator(GeneratorNetwork):
    """A linear layer to all positions, five residual blocks, and a softmax over characters at each position.

    Args:
        sample_shape: characters of the alphabet V, and length of a line L.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: channels of every block.

    Raises:
        InputError: for samples that are not lines of text.
    """

    def __init__(
        self,
        *,
        sample_shape: Sequence[int],
        num_classes: int = 0,
        z_dim: int = 128,
        width: int = 512,
    ) -> None:
        super().__init__()
        characters, length = line_shape(sample_shape)
        self.z_dim, self.num_classes = z_dim, num_classes
        self.input = nn.Linear(z_dim + num_classes, width * length)
        self.blocks = nn.Sequential(*[ResidualBlock(width=width) for _ in range(BLOCKS)])
        self.output = nn.Conv1d(width, characters, 1)
        self.width = width
        initialize(self)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to probabilities of characters [N, V, L]."""
        inputs = torch.cat([z, label_vectors(labels, self.num_classes, z)], dim=1)
        x = self.input(inputs).unflatten(1, (self.width, -1))
        return self.output(self.blocks(x)).softmax(1)


class Discriminator(DiscriminatorNetwork):
    """The critic: an embedding of characters, five residual blocks, and a linear layer over all positions.

    Args:
        sample_shape: characters of the alphabet V, and length of a line L.
        num_classes: 0 for an unconditional critic.
        width: channels of every block.

    Raises:
        InputError: for samples that are not lines of text.
    """

    def __init__(
        self, *, sample_shape: Sequence[int], num_classes: int = 0, width: int = 512
    ) -> None:
        super().__init__()
        characters, length = line_shape(sample_shape)
        self.num_classes = num_classes
        self.input = nn.Conv1d(characters, width, 1)
        self.blocks = nn.Sequential(*[ResidualBlock(width=width) for _ in range(BLOCKS)])
        self.output = ProjectionLogit(features=width * length, num_classes=num_classes)
        initialize(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map one-hot characters or probabilities [N, V, L] (and labels [N]) to logits [N]."""
        return self.output(self.blocks(self.input(x)).flatten(1), labels)


def line_shape(sample_shape: Sequence[int]) -> tuple[int, int]:
    """Return (V, L) of lines of text.

    Raises:
        InputError: for another shape.
    """
    if len(sample_shape) != 2:
        raise InputError(
            f"model=wgan_gp_text makes lines of text [characters, length], and the data are {list(sample_shape)}; use "
            "data=text or data=python_docs"
        )
    characters, length = sample_shape
    return characters, length


def initialize(network: nn.Module) -> None:
    """Draw uniform weights: of convolutions with variance 4 / (fan in + fan out), of linear layers half that.

    He et al. 2015 and Glorot and Bengio 2010 between input and output, as the authors' tflib has them. Biases are 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.xavier_uniform_(module.weight, gain=2**0.5)
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Conv1d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class WGANGPText(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
