"""Further output of `evaluate`: plots by matplotlib, and a preview of time and memory."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.table import Table
from torch import Tensor

from gan_lab.data.media import grid
from gan_lab.distributed.processes import resident_peak
from gan_lab.errors import import_extra
from gan_lab.metrics.cache import ChunkStore
from gan_lab.metrics.extraction import Extraction
from gan_lab.metrics.generator_metrics import GeneratorMetric, single_precision
from gan_lab.metrics.protocol import Protocol
from gan_lab.metrics.sources import GanImages, ImageSource
from gan_lab.run import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 2000  # maximum number of points of a set in a scatter plot

_SHOWN_SIDE = 64  # pixels that an image has in a sheet of pairs at least

_REAL, _FAKE = "tab:blue", "tab:orange"


def principal_components(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project two sets of features onto the two principal components of the real ones.

    Args:
        real: [N, D], N >= 2, D >= 2.
        fake: [M, D].

    Returns:
        Coordinates [N, 2] and [M, 2], and the share of the real variance that each of the two directions has, [2].
    """
    mean = real.double().mean(0)
    centered = real.double() - mean
    values, vectors = torch.linalg.eigh(centered.T @ centered)
    axes = vectors[:, -2:].flip(1)
    shares = values[-2:].flip(0) / values.sum()
    return centered @ axes, (fake.double() - mean) @ axes, shares


def draw_components(real: Tensor, fake: Tensor, path: Path, *, title: str) -> None:
    """Draw real and generated features [N, D] along the real ones' principal components."""
    ours, theirs, shares = principal_components(real, fake)
    figure = _figure()
    axes = figure.add_subplot()
    for points, name, color in ((ours, "real", _REAL), (theirs, "generated", _FAKE)):
        shown = points[:: -(-len(points) // _POINTS)]
        x, y = shown.T.numpy()
        axes.scatter(x, y, s=6, alpha=0.4, linewidths=0, color=color, label=name)
    axes.set_xlabel(f"first component ({shares[0]:.0%} of the real variance)")
    axes.set_ylabel(f"second component ({shares[1]:.0%})")
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=2, markerscale=3)
    _save(figure, path)


def draw_classes(values: Mapping[str, float], path: Path, *, title: str) -> None:
    """Draw a bar for each class, and the mean of all as a line."""
    figure = _figure(height=max(3.0, 1.5 + 0.22 * len(values)))
    axes = figure.add_subplot()
    positions = range(len(values))
    axes.barh(positions, list(values.values()), color=_FAKE)
    axes.set_yticks(positions, labels=list(values))
    mean = sum(values.values()) / len(values)
    axes.axvline(mean, color="black", linewidth=1, linestyle="--", label=f"mean {mean:.4g}")
    axes.invert_yaxis()
    axes.set_xlabel(title)
    figure.legend(loc="outside upper right")
    _save(figure, path)


def draw_truncation(
    truncations: Sequence[float],
    distances: Mapping[str, Sequence[float]],
    shares: Mapping[str, Sequence[float]],
    path: Path,
    *,
    title: str,
) -> None:
    """Plot metrics over truncation: distances on the left axis, shares such as recall on the right.

    Args:
        truncations: psi, or thresholds of z, ascending.
        distances: by name, a value at each truncation.
        shares: the same in [0, 1].
        path: of the file.
        title: above.
    """
    figure = _figure()
    left = figure.add_subplot()
    lines = []
    for (name, values), marker in zip(distances.items(), "os^Dv", strict=False):
        lines += left.plot(truncations, values, marker=marker, color=_FAKE, label=name)
    left.set_xlabel("truncation")
    left.set_ylabel(", ".join(distances))
    if distances:
        left.set_ylim(bottom=0)
    if shares:
        right = left.twinx()
        for (name, values), style in zip(shares.items(), ("-", "--", ":", "-."), strict=False):
            lines += right.plot(
                truncations, values, marker=".", linestyle=style, color=_REAL, label=name
            )
        right.set_ylabel("share of images")
        right.set_ylim(0, 1)
    figure.legend(handles=lines, loc="outside lower center", ncols=2)
    left.set_title(title)
    _save(figure, path)


def check_matplotlib() -> None:
    """Check that matplotlib is installed.

    Raises:
        InputError: with what to do.
    """
    import_extra("matplotlib", extra="plots", what="plots=true")


def _figure(height: float = 4.5) -> "Figure":
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(6.4, height), dpi=150, layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


# Images


def nearest_pairs(
    pairs: Sequence[Mapping[str, float]], fake: ImageSource, real: ImageSource
) -> Tensor:
    """Return one image [C, H, W]: generated images above, below each its nearest real one; small ones enlarged.

    Args:
        pairs: of image numbers, "generated" and "real".
        fake: generated images; both are cropped to their common size.
        real: the real images.
    """
    above = torch.cat([_image(fake, int(pair["generated"])) for pair in pairs])
    below = torch.cat([_image(real, int(pair["real"])) for pair in pairs])
    height, width = (min(a, b) for a, b in zip(above.shape[2:], below.shape[2:], strict=True))
    rows = torch.cat([rows[:, :, :height, :width] for rows in (above, below)])
    factor = -(-_SHOWN_SIDE // min(height, width))
    large = rows.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return grid(large, columns=len(pairs))


def _image(source: ImageSource, index: int) -> Tensor:
    image = source.read(index, index + 1).cpu()
    return image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]


# Preview


_BATCHES = 2  # measured, after one for warm-up


def preview(
    protocol: Protocol, fake: ImageSource, real: ImageSource | None, store: ChunkStore
) -> Table:
    """Estimate time and memory of a protocol whose extractor is loaded.

    Args:
        protocol: of the evaluation.
        fake: generated images.
        real: real images, None if their features are cached.
        store: of features of generated images.
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
        num = metric.num(protocol.context)
        left = num - metric.present(protocol.context, store)
        todo.append((metric.kind, num, left, partial(_seconds_per_item, metric, fake, protocol)))
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
    """Number of images left to extract."""
    if not extraction.outputs or extraction.is_kept():
        return 0
    return extraction.num - extraction.present(kept)


def _seconds_per_item(metric: GeneratorMetric, images: GanImages, protocol: Protocol) -> float:
    def once() -> Tensor:
        return metric.outcomes(images, protocol.context, 0, metric.size)

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
    """Memory of features in float32 and covariances in float64."""
    total = 0
    for _, extraction, _ in parts:
        for output, form in extraction.needs:
            width = extraction.extractor.outputs[output]
            total += 4 * width * len(extraction.rows) if form == "features" else 8 * width**2
    return total / 2**30


def _peak_memory(device: torch.device) -> str:
    resident = resident_peak() / 2**30
    if device.type != "cuda":
        return f"{resident:.2g} GiB"
    on_device = torch.cuda.max_memory_allocated(device) / 2**30
    return f"{resident:.2g} GiB, on {device} {on_device:.2g} GiB"
