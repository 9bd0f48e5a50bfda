"""Metrics of a generator, not of a set of its images."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gan_lab.data.base import digest
from gan_lab.distributed.ranks import Ranks
from gan_lab.errors import InputError
from gan_lab.layers.precision import half_precision_parts
from gan_lab.metrics.cache import ChunkStore, MemoryChunks
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric
from gan_lab.metrics.feature_set import FeatureSet, Needs
from gan_lab.metrics.images import GanImages, ImageSource

_CHUNK = 256  # things; a multiple of every `size`


class GeneratorMetric(ProtocolMetric):
    """Needs a generator; extracts nothing, and measures things that are numbered: images, or paths between them.

    Attributes:
        size: things that are measured at a time, always as many.

    Args:
        key: of the metric; None makes it of what is measured.
    """

    size: int

    def __init__(self, *, key: str | None = None) -> None:
        super().__init__(output="features", key=key)
        self.real: Needs = {}
        self.fake: Needs = {}

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        if setting.fake is not None:
            self.check_generator(drawn_by(setting.fake, self.kind))

    def check_generator(self, images: GanImages) -> None:
        """Refuse a generator that the metric means nothing to.

        Raises:
            InputError: with the reason.
        """

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        found = self.measure(fake.source, setting, MemoryChunks(), lambda done: None)
        return self.summary(found, setting)

    @abstractmethod
    def num(self, setting: MetricContext) -> int:
        """Return how many things are measured."""

    @abstractmethod
    def outcomes(self, images: GanImages, setting: MetricContext, start: int, stop: int) -> Tensor:
        """Return what was found of things `start` to `stop`, `size` at most.

        Returns:
            [stop - start, ...], float64, on the CPU; no thing's depends on which others are asked for, as long as
            `start` is a multiple of `size`.
        """

    @abstractmethod
    def summary(self, found: Tensor, setting: MetricContext) -> list[MetricValue]:
        """Return the metrics of all outcomes [num, ...]."""

    def measure(
        self,
        source: ImageSource,
        setting: MetricContext,
        store: ChunkStore,
        progress: Callable[[int], None],
    ) -> Tensor:
        """Measure all, shared among processes and going on from what is in a store.

        Args:
            source: of the images.
            setting: of the protocol.
            store: where outcomes outlive a kill.
            progress: called with the number of things done.

        Returns:
            Outcomes [num, ...], the same in all processes and for any number of them.
        """
        images = drawn_by(source, self.kind)
        ranks = Ranks.current()
        ranges = chunks(self.num(setting))
        found: list[Tensor] = []
        with single_precision(images.gan.generator), torch.no_grad():
            for turn in range(0, len(ranges), ranks.size):
                together = ranges[turn : turn + ranks.size]
                mine = None
                if ranks.rank < len(together):
                    mine = self._chunk(images, setting, store, *together[ranks.rank])
                for owner, (_, stop) in enumerate(together):
                    found.append(ranks.send(mine, source=owner))
                    progress(stop)
        return torch.cat(found)

    def present(self, setting: MetricContext, store: ChunkStore) -> int:
        """Return how many things have outcomes in a store."""
        ranges = chunks(self.num(setting))
        return sum(stop - start for start, stop in ranges if store.has(self._name(start, stop)))

    def _chunk(
        self, images: GanImages, setting: MetricContext, store: ChunkStore, start: int, stop: int
    ) -> Tensor:
        name = self._name(start, stop)
        found = store.get(name)
        if found is None:
            blocks = range(start, stop, self.size)
            found = torch.cat(
                [self.outcomes(images, setting, i, min(i + self.size, stop)) for i in blocks]
            )
            store.put(name, found)
        return found

    def _name(self, start: int, stop: int) -> str:
        asked = digest(self.kind, *(f"{k}={v}" for k, v in sorted(vars(self).items())))
        return f"{start:08d}-{stop:08d}-{self.kind}-{asked[:16]}"


def chunks(num: int) -> list[tuple[int, int]]:
    """Return the ranges of things that are kept together and measured by one process."""
    return [(start, min(start + _CHUNK, num)) for start in range(0, num, _CHUNK)]


def drawn_by(images: ImageSource, kind: str) -> GanImages:
    """Return images as those of a generator.

    Raises:
        InputError: when they are files.
    """
    if not isinstance(images, GanImages):
        raise InputError(
            f"metrics.{kind} measures a generator, and {images.name} are images; give run=, or leave it out"
        )
    return images


@contextmanager
def single_precision(network: nn.Module) -> Iterator[None]:
    """Let a network compute in float32 throughout: differences of close images are lost in less."""
    halved = half_precision_parts(network)
    before = [part.dtype for part in halved]
    try:
        for part in halved:
            part.dtype = None
        with (
            torch.autocast(next(network.parameters()).device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            yield
    finally:
        for part, dtype in zip(halved, before, strict=True):
            part.dtype = dtype
