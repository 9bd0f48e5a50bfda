"""What the loop asks of a generator and of a discriminator."""

from torch import nn


class GeneratorNetwork(nn.Module):
    """`generator(z [N, latent_dim], labels=None) -> images [N, C, H, W]`.

    Labels are int64 [N] or vectors [N, num_classes], and None for an unconditional generator.

    Attributes:
        latent_dim: length of z.
        num_classes: 0 for an unconditional generator.
    """

    latent_dim: int
    num_classes: int


class DiscriminatorNetwork(nn.Module):
    """`discriminator(images [N, C, H, W], labels=None) -> logits [N]`.

    Attributes:
        num_classes: 0 for an unconditional discriminator.
    """

    num_classes: int
