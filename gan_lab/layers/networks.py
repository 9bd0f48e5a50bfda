"""Base classes of generators and discriminators: what the training loop, sampling and metrics need of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lab.errors import InputError
from gan_lab.layers import stylegan


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


class StyleGeneratorNetwork(GeneratorNetwork):
    """A generator of the StyleGAN family: a mapping network z -> w and a synthesis network w -> image.

    In training mode styles are mixed where requested, noise is random, and every pass updates `w_avg`. In
    evaluation mode noise is constant, so that z (and the label) alone determine the image.

    Attributes:
        w_dim: length of w.
        num_ws: L, how many styles `synthesis` takes.
        mapping: `mapping(z, labels=None, truncation=1.0, truncated_layers=None) -> w [N, L, w_dim]`.
        synthesis: `synthesis(w [N, L, w_dim], noise="random" | "const" | "none") -> images`; also with `transform=`
            where `supports_transform` is set.
        truncation_cutoff: how many of the first styles are truncated; None for all.
        level_ends: where "coarse" and "middle" end, for `levels`.
        twice_differentiable: whether path length regularization can differentiate the gradient by w.

    Args:
        synthesis: the synthesis network.
        z_dim: length of z.
        w_dim: length of w.
        num_ws: L.
        num_classes: 0 for an unconditional generator.
        mapping: the mapping network; None for StyleGAN's, of the two following arguments.
        mapping_layers: depth of the mapping network.
        w_avg_beta: decay of the running mean of w, for each pass.
        style_mixing: probability that an image in training has two styles.
        truncation_cutoff: see above.

    Raises:
        InputError: for a probability or a number of layers out of range.
    """

    mapping: stylegan.Mapping
    synthesis: Callable[..., Tensor]
    level_ends: tuple[int, int]
    twice_differentiable: bool = True

    def __init__(
        self,
        *,
        synthesis: nn.Module,
        z_dim: int,
        w_dim: int,
        num_ws: int,
        num_classes: int,
        mapping: stylegan.Mapping | None = None,
        mapping_layers: int = 8,
        w_avg_beta: float = 0.998,
        style_mixing: float = 0.0,
        truncation_cutoff: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= style_mixing <= 1:
            raise InputError(f"style_mixing={style_mixing} must lie between 0 and 1")
        if truncation_cutoff is not None and truncation_cutoff < 0:
            raise InputError(
                f"truncation_cutoff={truncation_cutoff} must be a number of layers, or null for all"
            )
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.num_ws = num_ws
        self.num_classes = num_classes
        self.style_mixing = style_mixing
        self.truncation_cutoff = truncation_cutoff
        self.synthesis = synthesis
        self.mapping = mapping or stylegan.Mapping(
            z_dim=z_dim,
            num_classes=num_classes,
            w_dim=w_dim,
            num_layers=mapping_layers,
            num_ws=num_ws,
            w_avg_beta=w_avg_beta,
        )

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W], roughly in [-1, 1]."""
        return self.synthesis(self.styles(z, labels, truncation), noise=self.noise_mode)

    def styles(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z [N, Z] to w [N, L, w_dim] as `forward` does: in training mode, mixed."""
        w = self.mapping(z, labels, truncation, self.truncation_cutoff)
        if self.training and self.style_mixing:
            other = self.mapping.styles(torch.randn_like(z), labels)
            w = stylegan.mix_styles(w, other, self.style_mixing, in_use=self.num_ws_in_use)
        return w

    @property
    def w_avg(self) -> Tensor:
        """Running mean of w, [w_dim]."""
        return self.mapping.w_avg

    def center(self, labels: Tensor | None = None) -> Tensor:
        """Return the centre of truncation, [1, 1, w_dim], or [N, 1, w_dim] if it depends on labels."""
        return self.w_avg[None, None]

    @property
    def noise_mode(self) -> str:
        """The noise of `forward`."""
        return "random" if self.training else "const"

    @property
    def num_ws_in_use(self) -> int:
        """How many of the L styles the image depends on; fewer than L while a network grows."""
        return self.num_ws

    def levels(self) -> dict[str, range]:
        """Return which of the L styles are "coarse", "middle" and "fine" (Karras et al. 2019, section 3.1)."""
        ends = [0, *(min(end, self.num_ws) for end in self.level_ends), self.num_ws]
        names = ("coarse", "middle", "fine")
        return {name: range(ends[i], ends[i + 1]) for i, name in enumerate(names)}


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
