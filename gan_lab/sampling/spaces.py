"""Spaces for projection: w (one for all layers, or one each), or z."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.layers.precision import half_precision_parts
from gan_lab.layers.stylegan import Noise, StyleGeneratorNetwork
from gan_lab.sampling.latents import Latents
from gan_lab.sampling.sampler import Sampler
from gan_lab.sampling.targets import PyramidDistance
from gan_lab.seeding import Stream, derive_seed

SPACES = ("auto", "w", "w+", "z")

# images among which a start or class is chosen
POOL = 256

# samples for the mean and deviation of w (Karras et al. 2020, appendix D)
STYLE_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Starts:
    """Starting points of a search.

    Attributes:
        values: [N, R, ...] for N images and R starts each.
        labels: int64 [N, R], or None without classes.
        deviation: root mean square distance of samples from their center, [N, R]; 0 without jitter.
    """

    values: Tensor
    labels: Tensor | None
    deviation: Tensor


class Space(ABC):
    """The space of a projection's latents.

    Attributes:
        name: "w", "w+" or "z".
    """

    name: str

    def __init__(self, gan: Sampler) -> None:
        self.gan = gan
        self.generator = full_precision_copy(gan.generator).requires_grad_(False)

    @abstractmethod
    def starts(self, targets: Tensor, labels: Tensor | None, count: int, seed: int) -> Starts:
        """Return `count` starts for each image [N, C, H, W], finding labels if there are classes and none are given."""

    @abstractmethod
    def render(
        self,
        values: Tensor,
        labels: Tensor | None,
        noise: Noise,
        *,
        generator: GeneratorNetwork | None = None,
    ) -> Tensor:
        """Make images [N, C, H, W] with gradients, by `self.generator` or another one of its kind."""

    def penalty(self, values: Tensor) -> Tensor:
        """Return the penalty of unlikely values, [N]."""
        return values.new_zeros(len(values))


class StyleSpace(Space):
    """W, or with `free_layers` W+, in which every layer has its own style.

    The search starts at the mean of w (of the class, if any) with jitter in units of w's deviation
    (Karras et al. 2020, appendix D, https://arxiv.org/abs/1912.04958).
    """

    def __init__(self, gan: Sampler, *, free_layers: bool) -> None:
        super().__init__(gan)
        self.name = "w+" if free_layers else "w"
        self._layers = gan.num_ws
        self._free = self._layers if free_layers else 1

    def starts(self, targets: Tensor, labels: Tensor | None, count: int, seed: int) -> Starts:
        classes: Tensor | None = None
        near: Tensor | None = None
        if count > 1 or (self.gan.num_classes and labels is None):
            near, classes = nearest(self.gan, "w", targets, labels, count, seed)
            near = near[:, :, 0]  # one w for all layers
        elif labels is not None:
            classes = labels[:, None].expand(-1, count)
        known: dict[int | None, tuple[Tensor, Tensor]] = {}
        values, deviations = [], []
        for i in range(len(targets)):
            label = None if classes is None else int(classes[i, 0])
            if label not in known:
                known[label] = self._statistics(label, seed)
            mean, deviation = known[label]
            others = mean.new_zeros(0, len(mean)) if near is None else near[i, : count - 1]
            values.append(torch.cat([mean[None], others]))
            deviations.append(deviation.expand(count))
        if classes is not None and near is not None:  # the first starts at the class of the nearest
            classes = torch.cat([classes[:, :1], classes[:, : count - 1]], dim=1)
        rows = torch.stack(values)[:, :, None].repeat(1, 1, self._free, 1)
        return Starts(values=rows, labels=classes, deviation=torch.stack(deviations))

    def render(
        self,
        values: Tensor,
        labels: Tensor | None,
        noise: Noise,
        *,
        generator: GeneratorNetwork | None = None,
    ) -> Tensor:
        network = cast(StyleGeneratorNetwork, generator or self.generator)
        return network.synthesis(values.expand(-1, self._layers, -1), noise)

    def _statistics(self, label: int | None, seed: int) -> tuple[Tensor, Tensor]:
        """Return the mean [D] of w and its deviation, of one class or of all images."""
        seed = derive_seed(seed, Stream.W_STATISTICS)
        w = self.gan.latents(STYLE_SAMPLES, seed=seed, labels=label).values[:, 0]
        mean = w.mean(0)
        return mean, (w - mean).square().sum(1).mean().sqrt()


class LatentSpace(Space):
    """z, starting at the latents of the nearest of some images, or at BiGAN's encoder's codes.

    The penalty (|z|^2 / Z - 1)^2 keeps z at the usual length.
    """

    name = "z"

    def starts(self, targets: Tensor, labels: Tensor | None, count: int, seed: int) -> Starts:
        if self.generator.has_encoder:
            z, classes = self._encoded(targets, labels)
        else:
            z, classes = nearest(self.gan, "z", targets, labels, count, seed)
        return Starts(values=z, labels=classes, deviation=z.new_zeros(z.shape[:2]))

    def render(
        self,
        values: Tensor,
        labels: Tensor | None,
        noise: Noise,
        *,
        generator: GeneratorNetwork | None = None,
    ) -> Tensor:
        return (generator or self.generator)(values, labels)

    def penalty(self, values: Tensor) -> Tensor:
        return (values.square().mean(1) - 1).square()

    @torch.no_grad()
    def _encoded(self, targets: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the encoder's codes [N, 1, Z], and labels [N, 1]: the given ones, or those with the nearest images."""
        z: Tensor = cast(Any, self.generator).encode(targets)
        if not self.gan.num_classes:
            return z[:, None], None
        if labels is not None:
            return z[:, None], labels[:, None]
        distance = PyramidDistance()
        tried = [distance(self._images(z, label), targets) for label in range(self.gan.num_classes)]
        return z[:, None], torch.stack(tried).argmin(0)[:, None]

    def _images(self, z: Tensor, label: int) -> Tensor:
        return self.gan.synthesize(Latents(z=z, labels=torch.full((len(z),), label)))


def choose_space(gan: Sampler, name: str) -> Space:
    """Return a space by name; "auto" is w of generators with styles, z of others.

    Raises:
        InputError: for another name, and for w of a generator without styles.
    """
    if name not in SPACES:
        raise InputError(f"space={name!r} must be one of {', '.join(SPACES)}")
    if name == "auto":
        name = "w" if gan.has_styles else "z"
    if name == "z":
        return LatentSpace(gan)
    return StyleSpace(gan, free_layers=name == "w+")


def nearest(
    gan: Sampler, space: str, targets: Tensor, labels: Tensor | None, count: int, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Return latents [N, count, ...] and labels [N, count], of the images that are nearest to targets.

    Args:
        gan: makes the images, about 256 in all.
        space: "z" or "w".
        targets: [N, C, H, W].
        labels: classes [N] to choose within; None for all there are.
        count: how many, the nearest first.
        seed: of the images.
    """
    classes: Sequence[int | None] = [None]
    if gan.num_classes:
        classes = range(gan.num_classes) if labels is None else sorted(set(labels.tolist()))
    each = max(count, POOL // len(classes))
    distance = PyramidDistance()
    tried, values = [], []
    for label in classes:
        latents = gan.latents(
            each, seed=derive_seed(seed, Stream.CANDIDATES), labels=label, space=space
        )
        values.append(latents.values)
        images = gan.synthesize(latents)
        found = torch.stack([distance(images, target) for target in targets])  # [N, each]
        if labels is not None and label is not None:
            found[labels.to(found.device) != label] = float("inf")
        tried.append(found)
    order = torch.cat(tried, dim=1).topk(count, largest=False).indices.cpu()
    chosen = torch.cat(values)[order].to(gan.device)
    if not gan.num_classes:
        return chosen, None
    of_class = torch.tensor(cast(Sequence[int], classes))
    return chosen, of_class[order // each].to(gan.device)


def full_precision_copy(generator: GeneratorNetwork) -> GeneratorNetwork:
    """Return a copy of a generator that computes in single precision throughout.

    Gradients of a mean over pixels vanish in half precision.
    """
    copied = deepcopy(generator)
    for part in half_precision_parts(copied):
        part.dtype = None
    return copied


# Noise maps of style generators, regularized so that they do not carry the image.

_SMALLEST = 8  # side to which maps are halved


class NoiseMaps:
    """Noise of every layer, a map for each image.

    Attributes:
        maps: [N, 1, H, W] by the name of the layer's buffer.

    Args:
        maps: as above.
    """

    def __init__(self, maps: dict[str, Tensor]) -> None:
        self.maps = maps

    @classmethod
    def drawn(cls, generator: GeneratorNetwork, count: int, *, seed: int) -> "NoiseMaps":
        """Draw maps from N(0, 1), the same for every image, independent of their number."""
        source = torch.Generator().manual_seed(derive_seed(seed, Stream.NOISE_MAPS))
        return cls(
            {
                name: torch.randn(1, 1, *constant.shape, generator=source)
                .to(constant)
                .repeat(count, 1, 1, 1)
                for name, constant in noise_buffers(generator).items()
            }
        )

    def given_to(self, generator: GeneratorNetwork) -> Noise:
        """Return a function that gives these maps as `synthesis` takes noise."""
        names = {id(constant): name for name, constant in noise_buffers(generator).items()}
        return lambda constant: self.maps[names[id(constant)]]

    def tensors(self) -> list[Tensor]:
        """Return all maps."""
        return list(self.maps.values())

    def cpu(self) -> "NoiseMaps":
        """Return them on the CPU."""
        return NoiseMaps({name: m.detach().cpu() for name, m in self.maps.items()})

    def __getitem__(self, rows: Tensor) -> "NoiseMaps":
        return NoiseMaps({name: m[rows] for name, m in self.maps.items()})

    def penalty(self) -> Tensor:
        """Return the sum of all maps' `correlation` [N]."""
        return torch.stack([correlation(m) for m in self.tensors()]).sum(0)

    @torch.no_grad()
    def normalize(self) -> None:
        """Normalize every map to mean 0 and variance 1, in place."""
        for m in self.tensors():
            variance, mean = torch.var_mean(m, dim=(1, 2, 3), correction=0, keepdim=True)
            m.sub_(mean).mul_((variance + 1e-8).rsqrt())


def noise_buffers(generator: GeneratorNetwork) -> dict[str, Tensor]:
    """Return the constant noise [H, W] of every layer by its name, from the lowest resolution on."""
    return {
        name: buffer
        for name, buffer in generator.named_buffers()
        if name.rpartition(".")[2] == "noise_const"
    }


def correlation(noise: Tensor) -> Tensor:
    """Return the spatial autocorrelation [N] of noise maps [N, 1, H, W].

    Equation of appendix D: squares of the means of n(x, y) n(x - 1, y) and of n(x, y) n(x, y - 1), wrapping at the
    edges, summed over the map and the maps that result of halving it down to 8 pixels. Halving takes means over 2x2
    pixels times 2, which keeps the variance of independent ones.
    """
    total = noise.new_zeros(len(noise))
    while True:
        for dim in (2, 3):
            total = total + (noise * noise.roll(1, dim)).mean((1, 2, 3)).square()
        height, width = noise.shape[2:]
        if min(height, width) <= _SMALLEST or height % 2 or width % 2:
            return total
        noise = 2 * torch.nn.functional.avg_pool2d(noise, 2)
