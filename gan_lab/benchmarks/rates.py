"""How fast images are read and measured."""

import time
from collections.abc import Callable, Iterator

from torch import Tensor

from gan_lab.data.datamodule import ImageDataModule
from gan_lab.metrics.base import Metrics
from gan_lab.sampling import Gan


def data_rate(data: ImageDataModule) -> float:
    """Return images a second of the loader alone."""
    data.trainer = None
    begin = time.perf_counter()
    shown = sum(len(images) for images, _ in data.train_dataloader())
    return shown / (time.perf_counter() - begin)


def metric_rates(metrics: Metrics, data: ImageDataModule, gan: Gan) -> dict[str, float]:
    """Return images a second of an evaluation, with the generator's work and without; empty without metrics."""
    metrics.prepare(data)
    kept: list[tuple[Tensor, Tensor | None]] = []

    def drawn(count: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        kept.extend(gan.batches(count))
        return iter(kept)

    seconds = {}
    for name, source in (("sampling_and_metrics", drawn), ("metrics", lambda count: iter(kept))):
        seconds[name] = timed(metrics.compute, source)
    count = sum(len(images) for images, _ in kept)
    return {f"{name}_img_per_s": count / took for name, took in seconds.items()} if count else {}


def timed(function: Callable[..., object], *arguments: object) -> float:
    """Return the seconds of a call."""
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin
