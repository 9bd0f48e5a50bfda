"""BigGAN: wide residual networks under spectral norm, conditioned in every layer.

Brock et al. 2019, https://arxiv.org/abs/1809.11096, appendix B (tables 3 to 9, figure 15): the generator's latent is
cut into one chunk for the first layer and one for each block, where it joins the class's embedding, shared by all
blocks, in conditional batch norm; the discriminator projects on the class (Miyato and Koyama 2018,
https://arxiv.org/abs/1802.05637). Without classes, the latent chunks alone condition the generator.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from gan_lab.errors import InputError
from gan_lab.layers.attention import attentions
from gan_lab.layers.conditioning import ConditionedDiscriminator, ConditioningFactory, Projection
from gan_lab.layers.labels import ClassEmbedding, check_labels
from gan_lab.layers.networks import GeneratorNetwork, index_from_end
from gan_lab.layers.pyramid import ImageSize, resolution_pyramid
from gan_lab.layers.resnet import (
    ConditionalBatchNorm,
    DownBlock,
    ProjectedLogit,
    UpBlock,
    class_norm,
    discriminator_multiples,
    generator_multiples,
    number_of_halvings,
    pooled,
    zero_biases,
)
from gan_lab.layers.spectral_norm import spectrally_normalized
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """First chunk of z -> coarsest features -> doublings, each conditioned on class and chunk -> image.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z; with `hierarchical`, what does not divide evenly into chunks is left out.
        shared_dim: length of the class's embedding; 0 gives each norm a table of its own.
        hierarchical: whether z is cut into chunks; otherwise the first layer gets all of it.
        width: unit of the channels (`resnet.generator_multiples`), 96 in the paper.
        attention: sizes (the shorter side) at which there is self-attention; larger ones than the image are left out.
        norm_eps: added to variances.
        spectral_eps: of the power method.

    Raises:
        InputError: for numbers that do not fit together.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 120,
        shared_dim: int = 128,
        hierarchical: bool = True,
        width: int = 96,
        attention: Sequence[int] = (64,),
        norm_eps: float = 1e-5,
        spectral_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.coarsest, doublings = resolution_pyramid(image_size)
        self.chunk = chunk_size(z_dim, doublings + 1) if hierarchical else 0
        self.z_dim = self.chunk * (doublings + 1) if hierarchical else z_dim
        if hierarchical and num_classes and not shared_dim:
            raise InputError(
                "hierarchical=true needs a shared embedding; set shared_dim, 128 in the paper"
            )
        embed = num_classes > 0 and shared_dim > 0
        self.embedding = (
            ClassEmbedding(num_classes=num_classes, width=shared_dim) if embed else None
        )
        condition = self.chunk + (shared_dim if embed else 0)
        widths = [width * multiple for multiple in generator_multiples(doublings)]
        height, columns = self.coarsest
        self.start = nn.Linear(self.chunk or z_dim, widths[0] * height * columns)
        self.blocks = nn.ModuleList(
            UpBlock(
                inputs=inputs,
                outputs=outputs,
                norm1=norm(inputs, condition, num_classes, norm_eps),
                norm2=norm(outputs, condition, num_classes, norm_eps),
            )
            for inputs, outputs in pairwise(widths)
        )
        sizes = [(height << i, columns << i) for i in range(1, doublings + 1)]
        self.attentions = attentions(attention, sizes, widths[1:])
        self.norm = nn.BatchNorm2d(widths[-1], eps=norm_eps)
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        initialize(self)
        # the class embedding, which is looked up and not multiplied with features, stays as it is
        spectrally_normalized(self, eps=spectral_eps, embeddings=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        check_labels(labels, self.num_classes)
        chunks = z.split(self.chunk, dim=1) if self.chunk else [z]
        x = self.start(chunks[0]).unflatten(1, (-1, *self.coarsest))
        y = labels if self.embedding is None or labels is None else self.embedding(labels)
        for i, (block, attend) in enumerate(zip(self.blocks, self.attentions, strict=True)):
            x = attend(block(x, concat_z_and_class(y, chunks[i + 1]) if self.chunk else y))
        return self.to_image(relu(self.norm(x))).tanh()


class Discriminator(ConditionedDiscriminator):
    """Image -> residual halvings -> one or two blocks at the coarsest resolution -> sum over pixels -> logit.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: unit of the channels (`resnet.discriminator_multiples`), 96 in the paper.
        attention: sizes (the shorter side) at which there is self-attention; larger ones than the image are left out.
        spectral_eps: of the power method.
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
        width: int = 96,
        attention: Sequence[int] = (64,),
        spectral_eps: float = 1e-12,
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
        sizes = [(height << n, columns << n) for n in left]
        self.attentions = attentions(attention, sizes, widths)
        projected = self.condition(conditioning, features=widths[-1], num_classes=num_classes)
        self.logit = ProjectedLogit(width=widths[-1], num_classes=projected)
        initialize(self)
        spectrally_normalized(self, eps=spectral_eps)

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


def chunk_size(z_dim: int, chunks: int) -> int:
    """Return the length of a chunk of z.

    Raises:
        InputError: when z is too short.
    """
    if z_dim < chunks:
        raise InputError(
            f"z_dim={z_dim} cannot be cut into {chunks} chunks, one for the first layer and one for each "
            f"block; set it to at least {chunks}, or hierarchical=false"
        )
    return z_dim // chunks


def norm(width: int, condition: int, num_classes: int, eps: float) -> nn.Module:
    """Return batch norm conditioned by linear maps of a vector, by a table of classes where there is no vector."""
    if not condition:
        return class_norm(width=width, num_classes=num_classes, eps=eps)
    gain, offset = (nn.Linear(condition, width, bias=False) for _ in range(2))
    return ConditionalBatchNorm(width=width, gain=gain, offset=offset, eps=eps)


def concat_z_and_class(y: Tensor | None, chunk: Tensor) -> Tensor:
    """Return the class's embedding [N, E], where there is one, followed by a chunk of z."""
    return chunk if y is None else torch.cat([y, chunk], dim=1)


def initialize(network: nn.Module) -> None:
    """Draw orthogonal weights (section 3 and appendix C; Saxe et al. 2014, https://arxiv.org/abs/1312.6120)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(layer.weight)
    zero_biases(network)


class BigGAN(AdversarialModule):
    """The loop with these networks; every hook is the default."""
