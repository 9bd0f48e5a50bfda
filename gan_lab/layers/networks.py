"""Base classes of generators and discriminators, with what loop, sampling and metrics need; labels as their inputs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lab.errors import InputError


class GeneratorNetwork(nn.Module):
    """Base class of generators: `generator(z [N, Z], labels=None) -> samples [N, ...]`, or a tuple that ends in them.

    Labels are int64 [N] or vectors [N, num_classes], and None for an unconditional generator.

    Attributes:
        z_dim: length of z.
        num_classes: 0 for an unconditional generator.
        z_distribution: of each component of z: standard "normal", or "uniform" in [-1, 1].
        supports_z_truncation: whether truncating z changes the image; False where z is normalized first, or uniform.
        has_noise_inputs: whether `synthesis` takes noise.
        supports_transform: whether `synthesis` takes a transform of the image plane.
        has_encoder: whether `encode` maps images to z.
        translates: whether it takes a source as well (paired data): `generator(z, labels, source [N, ...])`.
        half_precision: whether some layers compute in half precision without autocast, so that gradients may overflow.
    """

    z_dim: int
    num_classes: int
    z_distribution: Literal["normal", "uniform"] = "normal"
    supports_z_truncation: bool = True
    has_noise_inputs: bool = False
    supports_transform: bool = False
    has_encoder: bool = False
    translates: bool = False
    half_precision: bool = False

    def resolution_keys(self) -> dict[str, str]:
        """Return module name -> name that is independent of the image size; see `index_from_end`.

        `init_from` transfers weights between image sizes by these names; other modules keep their own.
        """
        return {}


DiscriminatorInput = Tensor | tuple[Tensor, ...]

Role = Literal["real", "fake", "generator"]


@dataclass
class DiscriminatorOutput:
    """Output of a discriminator for a batch.

    Attributes:
        logits: [N], or [N, K] of several heads or patches, of which the loop takes the mean loss.
        losses: further losses by name, each [N] and weighted, such as a class or reconstruction loss.
        features: intermediate features, if requested.
    """

    logits: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


class DiscriminatorNetwork(nn.Module):
    """Base class of discriminators: `discriminator(x, labels=None) -> logits [N]`, or [N, K] of heads or patches.

    x is a batch of samples [N, ...], or a tuple of tensors: an image and its code, or an image at several resolutions.
    Labels are as a generator's.

    Attributes:
        num_classes: 0 for an unconditional discriminator.
        half_precision: as a generator's.
        features_of: data that a frozen part was trained on, since metrics with such features are then biased; or None.
    """

    num_classes: int
    half_precision: bool = False
    features_of: str | None = None

    def prepare(self) -> None:
        """Load what the network needs besides its own weights, before training; by default nothing.

        Raises:
            InputError: when it is not available.
        """

    def resolution_keys(self) -> dict[str, str]:
        """Return module name -> name that is independent of the image size, as for generators."""
        return {}

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        """Return logits and the further losses of a role; by default there are no further losses.

        Args:
            x: the discriminator's input.
            labels: of the samples, or None.
            role: "real" or "fake" in the discriminator's step, "generator" for fake samples in the generator's; None
                for logits only.
        """
        return DiscriminatorOutput(self(x, labels))


def samples_made(made: DiscriminatorInput) -> Tensor:
    """Return the samples of a generator's output: the output itself, or the last tensor of a tuple."""
    return made[-1] if isinstance(made, tuple) else made


def tensors_of(x: DiscriminatorInput) -> tuple[Tensor, ...]:
    """Return the tensors of a discriminator's input: one, or those of a tuple."""
    return x if isinstance(x, tuple) else (x,)


def map_tensors(function: Callable[[Tensor], Tensor], x: DiscriminatorInput) -> DiscriminatorInput:
    """Apply a function to each tensor of a discriminator's input, once where a tensor is repeated."""
    if not isinstance(x, tuple):
        return function(x)
    made = {id(part): function(part) for part in distinct_tensors(x)}
    return tuple(made[id(part)] for part in x)


def distinct_tensors(x: DiscriminatorInput) -> tuple[Tensor, ...]:
    """Return the distinct tensors of a discriminator's input: a real image repeated for several stages counts once."""
    return tuple({id(part): part for part in tensors_of(x)}.values())


def samples_of(x: DiscriminatorInput) -> tuple[Tensor, ...]:
    """Return the samples in a discriminator's input, without vectors [N, Z] of a tuple."""
    return tuple(part for part in x if part.ndim > 2) if isinstance(x, tuple) else (x,)


def map_samples(function: Callable[[Tensor], Tensor], x: DiscriminatorInput) -> DiscriminatorInput:
    """Apply a function to the samples in a discriminator's input; vectors [N, Z] of a tuple stay as they are."""
    if isinstance(x, tuple):
        return tuple(function(part) if part.ndim > 2 else part for part in x)
    return function(x)


def index_from_end(**lists: nn.Module) -> dict[str, str]:
    """Number the modules of lists from the end, for `resolution_keys` of networks that end at the coarsest resolution.

    Args:
        lists: by name, modules with numbered children: `index_from_end(blocks=self.blocks)` gives
            {"blocks.0": "blocks.-3", "blocks.1": "blocks.-2", "blocks.2": "blocks.-1"}.
    """
    return {
        f"{name}.{i}": f"{name}.{i - count}"
        for name, modules in lists.items()
        for count in (len(list(modules.children())),)
        for i in range(count)
    }


@torch.no_grad()
def standing_statistics(
    generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> nn.Module:
    """Set the running statistics of a generator's batch norms to their mean over some batches, in place.

    Brock et al. 2019, appendix C, https://arxiv.org/abs/1809.11096. The running statistics of training belong
    to the raw weights and untruncated latents; standing statistics belong to the averaged weights and any truncation.

    Args:
        generator: in evaluation mode, with batch norm.
        batches: (latents, labels) of equal size, drawn as those of the images.

    Returns:
        The generator, in evaluation mode.

    Raises:
        InputError: when the generator has no batch norm, or there are no batches.
    """
    norms = [layer for layer in generator.modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        raise InputError("standing statistics need a generator with batch norm; leave them out")
    generator.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    count = 0
    for z, labels in batches:
        generator(z, labels)
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if not count:
        raise InputError(
            "standing statistics need at least one batch; give num_batches of at least 1"
        )
    return generator.eval()


# Labels as inputs of networks: classes as integers or vectors, attributes as vectors.


def label_vectors(labels: Tensor | None, num_classes: int, like: Tensor) -> Tensor:
    """Return label vectors [N, num_classes] in the type of `like` [N, ...].

    Args:
        labels: int64 [N], or vectors [N, num_classes], or None in an unconditional network.
        num_classes: 0 for an unconditional network, which gives an empty [N, 0].
        like: tensor whose batch size, type and device are taken.

    Raises:
        ValueError: when a conditional network gets no labels or an unconditional one gets some.
    """
    check_labels(labels, num_classes)
    if labels is None:
        return like.new_zeros(like.shape[0], 0)
    if labels.ndim == 1:
        return one_hot(labels, num_classes).to(like.dtype)
    return labels.to(like.dtype)


def with_label_maps(features: Tensor, vectors: Tensor) -> Tensor:
    """Append label vectors [N, K] as K constant channels to features [N, C, H, W]."""
    maps = vectors[:, :, None, None].expand(-1, -1, *features.shape[2:])
    return torch.cat([features, maps], dim=1)


class ClassEmbedding(nn.Embedding):
    """Embedding of labels: integers look up a row, label vectors are multiplied by the table [num_classes, width].

    A vector thus mixes the embeddings of classes, or weighs those of attributes by their values.

    Args:
        num_classes: rows.
        width: length of a row.
    """

    def __init__(self, *, num_classes: int, width: int) -> None:
        super().__init__(num_classes, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Map labels int64 [N], or vectors [N, num_classes], to [N, width]."""
        if labels.ndim == 1:
            return super().forward(labels)
        return labels.to(self.weight.dtype) @ self.weight


def check_labels(labels: Tensor | None, num_classes: int) -> None:
    """Check that labels are given if and only if the network has classes.

    Raises:
        ValueError: when a conditional network gets no labels or an unconditional one gets some.
    """
    if (labels is None) != (num_classes == 0):
        given = "no labels" if labels is None else "labels"
        raise ValueError(f"{given} given to a network of {num_classes} classes")
