"""Estimate time and memory of an evaluation from a few batches."""

import resource
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from torch import Tensor

from gan_lab.metrics.cache import ChunkStore
from gan_lab.metrics.extraction import Extraction
from gan_lab.metrics.generator_metrics import GeneratorMetric, single_precision
from gan_lab.metrics.images import GanImages, ImageSource
from gan_lab.metrics.protocol import Protocol

_BATCHES = 2  # measured, after one that is not


def preview(
    protocol: Protocol, fake: ImageSource, real: ImageSource | None, store: ChunkStore
) -> Table:
    """Return time and memory that a protocol will take, of which the extractor is loaded.

    Args:
        protocol: of the evaluation.
        fake: generated images.
        real: real images, None where their features are there.
        store: where features of generated images may lie already.
    """
    table = Table(title=f"preview of protocol {protocol.name}", title_justify="left")
    for heading in ("", "images", "still to do", "images a second", "minutes"):
        table.add_column(heading, justify="left" if not heading else "right")
    parts = [("generated", protocol.fake_extraction(fake), store)]
    if real is not None and protocol.real_needs:
        extraction = protocol.real_extraction(real)
        parts.append(("real, once", extraction, extraction.kept_store()))
    todo = [
        (name, e.num, _left(e, kept), partial(_seconds_per_image, e)) for name, e, kept in parts
    ]
    for metric in protocol.of_generator:
        assert isinstance(fake, GanImages)
        num = metric.num(protocol.setting)
        left = num - metric.present(protocol.setting, store)
        todo.append((metric.kind, num, left, partial(_seconds_per_thing, metric, fake, protocol)))
    total = 0.0
    for name, num, left, measured in todo:
        seconds = measured() if left else 0.0
        total += left * seconds
        rate = f"{1 / seconds:.3g}" if seconds else ""
        table.add_row(name, f"{num:,}", f"{left:,}", rate, f"{left * seconds / 60:.1f}")
    table.add_row("in all", "", "", "", f"{total / 60:.1f}")
    table.caption = (
        f"on {protocol.features.device}, besides the metrics themselves; peak memory of these batches "
        f"{_peak_memory(protocol.features.device)}, and features {_features_gib(parts):.2g} GiB"
    )
    return table


def _left(extraction: Extraction, kept: ChunkStore) -> int:
    """Images that are still to be looked at."""
    if not extraction.outputs or extraction.is_kept():
        return 0
    return extraction.num - extraction.present(kept)


def _seconds_per_thing(metric: GeneratorMetric, images: GanImages, protocol: Protocol) -> float:
    def once() -> Tensor:
        return metric.outcomes(images, protocol.setting, 0, metric.size)

    with single_precision(images.gan.generator), torch.no_grad():
        once()
        return _timed(lambda: [once() for _ in range(_BATCHES)]) / (_BATCHES * metric.size)


def _seconds_per_image(extraction: Extraction) -> float:
    size = min(extraction.batch_size, extraction.num)

    def once(start: int) -> Tensor:
        images = extraction.source.read(start, start + size)
        made = extraction.extractor(images, extraction.outputs)
        return next(iter(made.values()))

    once(0)
    return _timed(lambda: [once(0) for _ in range(_BATCHES)]) / (_BATCHES * size)


def _timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _features_gib(parts: list[tuple[str, Extraction, ChunkStore]]) -> float:
    """Size of what is kept in memory: features in float32, covariances in float64."""
    total = 0
    for _, extraction, _ in parts:
        for output, form in extraction.needs:
            width = extraction.extractor.outputs[output]
            total += 4 * width * len(extraction.rows) if form == "features" else 8 * width**2
    return total / 2**30


def _peak_memory(device: torch.device) -> str:
    unit = 1 if sys.platform == "darwin" else 1024
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    if device.type != "cuda":
        return f"{resident:.2g} GiB"
    on_device = torch.cuda.max_memory_allocated(device) / 2**30
    return f"{resident:.2g} GiB, on {device} {on_device:.2g} GiB"
