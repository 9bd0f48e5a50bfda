"""Metrics of a generator instead of a set of images, such as perceptual path length."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.data.base import digest
from gan_lab.data.images import to_uint8
from gan_lab.distributed.ranks import Ranks
from gan_lab.errors import InputError
from gan_lab.layers.precision import half_precision_parts
from gan_lab.metrics.cache import ChunkStore, MemoryChunks
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric, in_thousands
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.features import Extractor
from gan_lab.metrics.features.vgg16 import ImageDistance
from gan_lab.metrics.sources import GanImages, ImageSource
from gan_lab.sampling.interpolation import slerp
from gan_lab.sampling.latents import Latents
from gan_lab.seeding import Stream, derive_seed

_CHUNK = 256  # items; a multiple of every `size`


class GeneratorMetric(ProtocolMetric):
    """A metric that needs a generator, not features: a mean over numbered items (images, or paths between them).

    Attributes:
        size: items per batch, always the same.

    Args:
        key: of the metric; None for the default.
    """

    size: int

    def __init__(self, *, key: str | None = None) -> None:
        super().__init__(key=key)

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if context.fake is not None:
            self.check_generator(drawn_by(context.fake, self.kind))

    def check_generator(self, images: GanImages) -> None:
        """Check that the metric applies to a generator.

        Raises:
            InputError: with the reason.
        """

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        found = self.measure(fake.source, context, MemoryChunks(), lambda done: None)
        return self.summary(found, context)

    @abstractmethod
    def num(self, context: MetricContext) -> int:
        """Return the number of items."""

    @abstractmethod
    def outcomes(self, images: GanImages, context: MetricContext, start: int, stop: int) -> Tensor:
        """Return the outcomes of items `start` to `stop`, at most `size`.

        Returns:
            [stop - start, ...], float64, on the CPU; none depends on which others are requested, as long as
            `start` is a multiple of `size`.
        """

    @abstractmethod
    def summary(self, found: Tensor, context: MetricContext) -> list[MetricValue]:
        """Return the metrics from all outcomes [num, ...]."""

    def measure(
        self,
        source: ImageSource,
        context: MetricContext,
        store: ChunkStore,
        progress: Callable[[int], None],
    ) -> Tensor:
        """Compute all outcomes, shared among processes, reusing a store's.

        Args:
            source: of the images.
            context: of the protocol.
            store: for outcomes, survives a kill.
            progress: called with the number of items done.

        Returns:
            Outcomes [num, ...], the same in all processes, and for any number of processes.
        """
        images = drawn_by(source, self.kind)
        ranks = Ranks.current()
        ranges = chunks(self.num(context))
        found: list[Tensor] = []
        with single_precision(images.gan.generator), torch.no_grad():
            for turn in range(0, len(ranges), ranks.size):
                together = ranges[turn : turn + ranks.size]
                mine = None
                if ranks.rank < len(together):
                    mine = self._chunk(images, context, store, *together[ranks.rank])
                for owner, (_, stop) in enumerate(together):
                    found.append(ranks.send(mine, source=owner))
                    progress(stop)
        return torch.cat(found)

    def present(self, context: MetricContext, store: ChunkStore) -> int:
        """Return the number of items with outcomes in a store."""
        ranges = chunks(self.num(context))
        return sum(stop - start for start, stop in ranges if store.has(self._name(start, stop)))

    def _chunk(
        self, images: GanImages, context: MetricContext, store: ChunkStore, start: int, stop: int
    ) -> Tensor:
        name = self._name(start, stop)
        found = store.get(name)
        if found is None:
            blocks = range(start, stop, self.size)
            found = torch.cat(
                [self.outcomes(images, context, i, min(i + self.size, stop)) for i in blocks]
            )
            store.put(name, found)
        return found

    def _name(self, start: int, stop: int) -> str:
        settings = digest(self.kind, *(f"{k}={v}" for k, v in sorted(vars(self).items())))
        return f"{start:08d}-{stop:08d}-{self.kind}-{settings[:16]}"


def chunks(num: int) -> list[tuple[int, int]]:
    """Return the chunks of items, each stored together and computed by one process."""
    return [(start, min(start + _CHUNK, num)) for start in range(0, num, _CHUNK)]


def drawn_by(images: ImageSource, kind: str) -> GanImages:
    """Check that images are of a generator.

    Raises:
        InputError: when they are files.
    """
    if not isinstance(images, GanImages):
        raise InputError(
            f"metrics.{kind} needs a generator, and {images.name} are images; give run=, or leave it out"
        )
    return images


@contextmanager
def single_precision(network: nn.Module) -> Iterator[None]:
    """Compute in float32 throughout: differences of similar images need it."""
    parts = half_precision_parts(network)
    before = [part.dtype for part in parts]
    try:
        for part in parts:
            part.dtype = None
        with (
            torch.autocast(next(network.parameters()).device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            yield
    finally:
        for part, dtype in zip(parts, before, strict=True):
            part.dtype = dtype


# Perceptual path length: how fast images change along a path between two latents.
#
#     PPL = E[ d(G(v(t)), G(v(t + epsilon))) / epsilon^2 ]
#
# v(t) runs between two random latents: over the sphere for z (slerp), on a straight line for w (lerp). Karras et al.
# 2019, section 4.1, https://arxiv.org/abs/1812.04948; as in their code, the lowest and highest percent of the
# values are discarded. Taking t = 0 only is the variant of StyleGAN2 (Karras et al. 2020, https://arxiv.org/abs/1912.04958).


_PAIRS = 8  # paths per batch
_LARGEST = 256  # larger images are averaged down to it, or to half of it if cropped


class PerceptualPathLength(GeneratorMetric):
    """Path length by the squared distance of the protocol's extractor; PPL if that is LPIPS.

    The key is `ppl_w_end_crop_50k`, or with another extractor `path_digits_z_end_1437`; images are then quantized to 8
    bits, so `epsilon` must be large enough. Noise inputs are constant, and the same for both images; half precision is
    not used.

    Args:
        space: "z" or "w".
        sampling: "end", at the start of paths, or "full", anywhere on them.
        crop: use the center of the image, the face of an aligned photograph.
        epsilon: step on a path of length 1.
        discard: percentage of the smallest and of the largest values to discard.
        num_paths: number of paths; None for the protocol's number of generated images.
        key: of the metric; None for the default.

    Raises:
        InputError: for unknown values.
    """

    kind, short = "path", "path"
    size = _PAIRS

    def __init__(
        self,
        *,
        space: Literal["z", "w"] = "w",
        sampling: Literal["end", "full"] = "end",
        crop: bool = False,
        epsilon: float = 1e-4,
        discard: float = 1.0,
        num_paths: int | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(key=key)
        if space not in ("z", "w") or sampling not in ("end", "full"):
            raise InputError(
                f"metrics.path: space={space} is z or w, sampling={sampling} is end or full"
            )
        if not 0 < epsilon < 1 or not 0 <= discard < 50 or (num_paths or 2) < 2:
            raise InputError(
                f"metrics.path: epsilon={epsilon} lies between 0 and 1, discard={discard} between 0 and 50, and "
                f"num_paths={num_paths} is at least 2"
            )
        self._space, self._sampling, self._crop = space, sampling, crop
        self._epsilon, self._discard, self._num_paths = epsilon, discard, num_paths

    def key(self, context: MetricContext) -> str:
        if self._key:
            return self._key
        extractor = context.extractor
        name = extractor.names.get((self.kind, self.output), f"{self.short}_{extractor.short}")
        cropped = "_crop" if self._crop else ""
        number = in_thousands(self.num(context))
        return f"{name}_{self._space}_{self._sampling}{cropped}_{number}"

    def check(self, context: MetricContext) -> None:
        super().check(context)
        extractor = context.extractor
        if not isinstance(extractor, ImageDistance) and self.output not in extractor.outputs:
            raise InputError(f"metrics.path: {extractor.name} has no features to take distances of")

    def check_generator(self, images: GanImages) -> None:
        if self._space == "w" and not images.gan.has_styles:
            raise InputError(f"metrics.path: {images.gan.kind} has no styles w; set space=z")

    def num(self, context: MetricContext) -> int:
        return self._num_paths or context.num_fake

    def outcomes(self, images: GanImages, context: MetricContext, start: int, stop: int) -> Tensor:
        distance = distance_by(context.extractor)
        pair = self._pair(images, start, stop)
        return (distance(*pair).double() / self._epsilon**2).cpu()

    def summary(self, found: Tensor, context: MetricContext) -> list[MetricValue]:
        kept = without_extremes(found, self._discard)
        error = kept.std() / len(kept) ** 0.5
        return [
            MetricValue(
                key=self.key(context),
                value=kept.mean().item(),
                uncertainty=error.item(),
                uncertainty_kind="se",
                detail={
                    "epsilon": self._epsilon,
                    "paths": len(found),
                    "median": found.median().item(),
                    "distance_sha256": context.extractor.sha256,
                },
            )
        ]

    def _pair(self, images: GanImages, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return both images [n, C, H, W] of the paths `start` to `stop`."""
        gan = images.gan
        seed = int(images.description["seed"])
        truncation: float | None = images.description["truncation"]
        labels = gan.labels(stop - start, seed=seed, start=start)
        a, b = (
            gan.latents(
                stop - start,
                labels=labels,
                seed=derive_seed(seed, stream),
                start=start,
                truncation=truncation,
                space=self._space,
            ).values
            for stream in (Stream.PATH_START, Stream.PATH_END)
        )
        t = self._positions(seed, start, stop).to(a.device)
        steps = (0.0, self._epsilon)
        if self._space == "z":
            ends = [slerp(a, b, t + step) for step in steps]
        else:
            a, b, t = a.double(), b.double(), t[:, None, None]
            ends = [torch.lerp(a, b, t + step).float() for step in steps]
        doubled = None if labels is None else labels.repeat(2)
        pairs = Latents.of(torch.cat(ends), doubled)
        if self._space == "z":
            pairs = gan.as_latents(pairs, truncation=truncation)
        made = gan.synthesize(pairs, batch_size=len(pairs))
        first, second = self._seen(made).chunk(2)
        return first, second

    def _positions(self, seed: int, start: int, stop: int) -> Tensor:
        """Return t [n], float64."""
        if self._sampling == "end":
            return torch.zeros(stop - start, dtype=torch.float64)
        draws = [
            torch.rand(
                (),
                dtype=torch.float64,
                generator=torch.Generator().manual_seed(derive_seed(seed, i, Stream.PATH_POSITION)),
            )
            for i in range(start, stop)
        ]
        return torch.stack(draws)

    def _seen(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        factor = min(height, width) // _LARGEST
        if self._crop:
            images = images[..., height * 3 // 8 : height * 7 // 8, width // 4 : width * 3 // 4]
        return F.avg_pool2d(images, factor) if factor > 1 else images


def distance_by(extractor: Extractor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the squared distance [N] of images by an extractor: its own, or that of its features."""
    if isinstance(extractor, ImageDistance):
        return extractor.distance

    def of_features(a: Tensor, b: Tensor) -> Tensor:
        first, second = (extractor(to_uint8(images), ["features"]) for images in (a, b))
        return (first["features"] - second["features"]).square().sum(1)

    return of_features


def without_extremes(values: Tensor, percent: float) -> Tensor:
    """Drop values [N] beyond the percentiles `percent` and `100 - percent`."""
    low = np.percentile(values.numpy(), percent, method="lower")
    high = np.percentile(values.numpy(), 100 - percent, method="higher")
    return values[(values >= low) & (values <= high)]
