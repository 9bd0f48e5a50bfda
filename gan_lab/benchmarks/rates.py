"""How fast images are read and measured."""

import time

from torch import Tensor

from gan_lab.benchmarks.clock import Stopwatch
from gan_lab.data.datamodule import DataModule
from gan_lab.metrics.base import Metrics
from gan_lab.metrics.images import GanImages
from gan_lab.sampling.gan import Gan


def data_rate(data: DataModule) -> float:
    """Return images a second of the loader alone."""
    data.trainer = None
    begin = time.perf_counter()
    shown = sum(len(batch) for batch in data.train_dataloader())
    return shown / (time.perf_counter() - begin)


class TimedImages(GanImages):
    """Generated images that count themselves and the time that they take.

    Attributes:
        drawn: images so far.
        seconds: that they took.
    """

    drawn = 0
    seconds = 0.0

    def read(self, start: int, stop: int) -> Tensor:
        clock = Stopwatch(self.gan.device)
        clock.start()
        images = super().read(start, stop)
        self.seconds += clock.stop()
        self.drawn += len(images)
        return images


def metric_rates(metrics: Metrics, data: DataModule, gan: Gan) -> dict[str, float]:
    """Return images a second of an evaluation, with the generator's work and without; empty without metrics."""
    metrics.prepare(data)
    images = TimedImages(gan, seed=0)
    images.drawn, images.seconds = 0, 0.0
    clock = Stopwatch(gan.device)
    clock.start()
    metrics.compute(images)
    whole = clock.stop()
    if not images.drawn:
        return {}
    return {
        "sampling_and_metrics_img_per_s": images.drawn / whole,
        "metrics_img_per_s": images.drawn / (whole - images.seconds),
    }
