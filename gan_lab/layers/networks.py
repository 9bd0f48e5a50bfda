"""What the loop asks of a generator and of a discriminator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

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
        half_precision: whether some layers compute in half precision by themselves, so that gradients may overflow.
    """

    latent_dim: int
    num_classes: int
    truncates: bool = True
    truncation_cutoff: int | None = None
    noise_inputs: bool = False
    movable: bool = False
    half_precision: bool = False

    def places(self) -> dict[str, str]:
        """Return module -> a name that means the same in a network for images of another size; see `counted_back`.

        `init_from` carries weights over by these names. A module that is not here means the same by its own.
        """
        return {}


DiscriminatorInput = Tensor | tuple[Tensor, ...]

Role = Literal["real", "fake", "generator"]


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


class DiscriminatorNetwork(nn.Module):
    """`discriminator(x, labels=None) -> logits [N]`, or [N, K] of several heads or patches.

    x is a batch of samples [N, ...], or a tuple of tensors where the discriminator sees several things of each sample:
    an image and its code, an image at several resolutions. Labels are as a generator's.

    Attributes:
        num_classes: 0 for an unconditional discriminator.
        half_precision: as a generator's.
    """

    num_classes: int
    half_precision: bool = False

    def places(self) -> dict[str, str]:
        """Return module -> a name that means the same in a network for images of another size, as a generator's do."""
        return {}

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        """Return logits, and those further losses that count in `role`; this one has no further losses.

        Args:
            x: what the discriminator sees.
            labels: of the samples, or None.
            role: "real" or "fake" in the discriminator's step, "generator" for fake samples in the generator's; None
                where only logits are wanted.
        """
        return DiscriminatorOutput(self(x, labels))


def tensors_of(x: DiscriminatorInput) -> tuple[Tensor, ...]:
    """Return the tensors of what a discriminator sees: one, or those of a tuple."""
    return x if isinstance(x, tuple) else (x,)


def map_tensors(function: Callable[[Tensor], Tensor], x: DiscriminatorInput) -> DiscriminatorInput:
    """Apply a function to each tensor of what a discriminator sees."""
    return tuple(function(part) for part in x) if isinstance(x, tuple) else function(x)


def samples_of(x: DiscriminatorInput) -> tuple[Tensor, ...]:
    """Return the samples in what a discriminator sees; vectors [N, Z] beside them, as in a tuple, are left out."""
    return tuple(part for part in x if part.ndim > 2) if isinstance(x, tuple) else (x,)


def map_samples(function: Callable[[Tensor], Tensor], x: DiscriminatorInput) -> DiscriminatorInput:
    """Apply a function to the samples in what a discriminator sees; vectors [N, Z] in a tuple stay as they are."""
    if isinstance(x, tuple):
        return tuple(function(part) if part.ndim > 2 else part for part in x)
    return function(x)


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
