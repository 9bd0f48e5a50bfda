"""BigGAN: wide residual networks under spectral norm, conditioned in every layer.

Brock et al. 2019, https://arxiv.org/abs/1809.11096, appendix B (tables 3 to 9, figure 15): z is split into
one chunk for the first layer and one for each block; a block's chunk, concatenated to the shared class embedding,
conditions its batch norms; the discriminator projects on the class (Miyato and Koyama 2018,
https://arxiv.org/abs/1802.05637). Without classes, the latent chunks alone condition the generator.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import ConditioningFactory, Projection
from gan_lab.layers.networks import ClassEmbedding
from gan_lab.layers.resnet import (
    ConditionalBatchNorm,
    ResNetDiscriminator,
    ResNetGenerator,
    class_norm,
    zero_biases,
)
from gan_lab.layers.resolutions import ImageSize, resolution_pyramid
from gan_lab.layers.spectral_norm import spectrally_normalized
from gan_lab.training.module import AdversarialModule


class Generator(ResNetGenerator):
    """Residual generator whose blocks are conditioned on the class embedding and a chunk of z.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z; with `hierarchical`, a remainder that does not fill a chunk is dropped.
        shared_dim: length of the class's embedding; 0 gives each norm its own table.
        hierarchical: whether z is split into chunks; otherwise the first layer gets all of it.
        width: base number of channels (`resnet.generator_multiples`), 96 in the paper.
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.
        norm_eps: added to variances.
        spectral_eps: of the power method.

    Raises:
        InputError: for inconsistent sizes.
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
        if hierarchical and num_classes and not shared_dim:
            raise InputError(
                "hierarchical=true needs a shared embedding; set shared_dim, 128 in the paper"
            )
        _, doublings = resolution_pyramid(image_size)
        chunk = chunk_size(z_dim, doublings + 1) if hierarchical else 0
        embed = num_classes > 0 and shared_dim > 0
        condition = chunk + (shared_dim if embed else 0)
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            z_dim=chunk * (doublings + 1) if hierarchical else z_dim,
            width=width,
            norm=lambda width: norm(width, condition, num_classes, norm_eps),
            attention=attention,
            embedding=ClassEmbedding(num_classes=num_classes, width=shared_dim) if embed else None,
            start_dim=chunk or z_dim,
            norm_eps=norm_eps,
        )
        self.chunk = chunk
        initialize(self)
        # not the class embedding: it is looked up, not multiplied with features
        spectrally_normalized(self, eps=spectral_eps, embeddings=False)

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        y = labels if self.embedding is None or labels is None else self.embedding(labels)
        if not self.chunk:
            return z, [y] * len(self.blocks)
        first, *others = z.split(self.chunk, dim=1)
        return first, [concat_z_and_class(y, chunk) for chunk in others]


class Discriminator(ResNetDiscriminator):
    """SAGAN's discriminator with BigGAN's widths and orthogonal initialization.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: base number of channels (`resnet.discriminator_multiples`), 96 in the paper.
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.
        spectral_eps: of the power method.
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
        width: int = 96,
        attention: Sequence[int] = (64,),
        spectral_eps: float = 1e-12,
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
        initialize(self)
        spectrally_normalized(self, eps=spectral_eps)


def chunk_size(z_dim: int, chunks: int) -> int:
    """Return the length of one chunk of z.

    Raises:
        InputError: when z is too short.
    """
    if z_dim < chunks:
        raise InputError(
            f"z_dim={z_dim} cannot be split into {chunks} chunks, one for the first layer and one for each "
            f"block; set it to at least {chunks}, or hierarchical=false"
        )
    return z_dim // chunks


def norm(width: int, condition: int, num_classes: int, eps: float) -> nn.Module:
    """Return batch norm conditioned on a vector by linear maps, or without a vector on the class by a table."""
    if not condition:
        return class_norm(width=width, num_classes=num_classes, eps=eps)
    gain, offset = (nn.Linear(condition, width, bias=False) for _ in range(2))
    return ConditionalBatchNorm(width=width, gain=gain, offset=offset, eps=eps)


def concat_z_and_class(y: Tensor | None, chunk: Tensor) -> Tensor:
    """Concatenate the class embedding [N, E], where there is one, and a chunk of z."""
    return chunk if y is None else torch.cat([y, chunk], dim=1)


def initialize(network: nn.Module) -> None:
    """Draw orthogonal weights (section 3 and appendix C; Saxe et al. 2014, https://arxiv.org/abs/1312.6120)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(layer.weight)
    zero_biases(network)


class BigGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
