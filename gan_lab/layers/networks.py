"""What the loop asks of a generator and of a discriminator."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn


class GeneratorNetwork(nn.Module):
    """`generator(z [N, latent_dim], labels=None) -> images [N, C, H, W]`.

    Labels are int64 [N] or vectors [N, num_classes], and None for an unconditional generator.

    Attributes:
        latent_dim: length of z.
        num_classes: 0 for an unconditional generator.
        truncates: whether a z with small components makes other images; not where z is scaled to one length.
        truncation_cutoff: how many of the first styles truncation moves, in a generator with styles; None for all.
        noise_inputs: whether `synthesis` takes noise.
        movable: whether `synthesis` takes a transform of the image plane.
        has_encoder: whether `encode` maps images to z.
        half_precision: whether some layers compute in half precision by themselves, so that gradients may overflow.
    """

    latent_dim: int
    num_classes: int
    truncates: bool = True
    truncation_cutoff: int | None = None
    noise_inputs: bool = False
    movable: bool = False
    has_encoder: bool = False
    half_precision: bool = False

    def places(self) -> dict[str, str]:
        """Return module -> a name that means the same in a network for images of another size; see `counted_back`.

        `init_from` carries weights over by these names. A module that is not here means the same by its own.
        """
        return {}


@dataclass
class DiscriminatorOutput:
    """What a discriminator says of a batch.

    Attributes:
        logits: [N], or [N, K] of several heads or patches, of which the loop takes the mean loss.
        losses: further losses by name, each [N] and weighted: of the class, of a reconstruction.
        features: what the discriminator made on the way, where it was asked for.
    """

    logits: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


Judgement = tuple[Tensor, Tensor | None]


class DiscriminatorNetwork(nn.Module):
    """`discriminator(images [N, C, H, W], labels=None) -> logits [N]`.

    Attributes:
        num_classes: 0 for an unconditional discriminator.
        classifies_fakes: whether D, where it classifies, learns classes from generated images, too.
        half_precision: as a generator's.
    """

    num_classes: int
    classifies_fakes: bool = False
    half_precision: bool = False

    def places(self) -> dict[str, str]:
        """Return module -> a name that means the same in a network for images of another size, as a generator's do."""
        return {}

    def judge(self, images: Tensor, labels: Tensor | None = None) -> Judgement:
        """Return logits [N] and, of a discriminator that also classifies, a weighted loss [N] of the class."""
        return self(images, labels), None


def counted_back(**lists: nn.Module) -> dict[str, str]:
    """Return the places of lists whose last modules correspond, as in a discriminator that ends at the coarsest.

    Args:
        lists: by name, modules with numbered children: `counted_back(blocks=self.blocks)` gives
            {"blocks.0": "blocks.-3", "blocks.1": "blocks.-2", "blocks.2": "blocks.-1"}.
    """
    return {
        f"{name}.{i}": f"{name}.{i - count}"
        for name, modules in lists.items()
        for count in (len(list(modules.children())),)
        for i in range(count)
    }
