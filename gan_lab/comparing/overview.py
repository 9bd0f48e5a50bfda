"""The comparison as one picture, for slides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_lab.comparing.curves import curve, figure_keys, main_figure
from gan_lab.comparing.pictures import Picture
from gan_lab.comparing.reading import Run
from gan_lab.errors import InputError
from gan_lab.metrics.directions import direction
from gan_lab.run import replacing

# the page's, so that a run has the same colour in both as long as there are no more than these
_COLOURS = (
    *("#0063b2", "#c2410c", "#15803d", "#b0157a", "#7c3aed"),
    *("#0e7490", "#926000", "#dc2626", "#4d7c0f", "#475569"),
)
_STYLES = ("-", (0, (5, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)), (0, (3, 1)))
_WIDTH, _CURVES_HEIGHT = 14.0, 4.6  # inches
_MOST_PICTURES = 16
_COLUMNS = 8
_NAMED = 16  # lines in the legend
_MOST_POINTS = 2000
_SPREAD = 20  # a distance that falls by more than this is drawn on a log scale


def has_matplotlib() -> bool:
    """Whether the picture can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def check_matplotlib() -> None:
    """Refuse to draw where matplotlib is not installed.

    Raises:
        InputError: with the remedy.
    """
    if not has_matplotlib():
        raise InputError("png=true needs matplotlib; pip install 'gan_lab[plots]', or leave it out")


def save_overview(runs: Sequence[Run], pictures: Sequence[Picture], path: Path) -> None:
    """Draw the main figure over kimg and over wall time, and the first pictures, best run first.

    Args:
        runs: that are compared.
        pictures: of each.
        path: of the PNG.
    """
    from matplotlib.figure import Figure as Drawing

    key = main_figure(runs, figure_keys(runs))
    order = ranked(runs, key)
    shown = [i for i in order if pictures[i].image is not None][:_MOST_PICTURES]
    rows = -(-len(shown) // _COLUMNS)
    columns = max(-(-len(shown) // max(rows, 1)), 4)
    height = rows * (_WIDTH / columns + 0.32)
    size = (_WIDTH, _CURVES_HEIGHT + height)
    drawing = Drawing(figsize=size, dpi=120, layout="constrained")
    upper: Any = drawing
    lower: Any = None
    if shown:
        halves: Any = drawing.subfigures(2, 1, height_ratios=(_CURVES_HEIGHT, height))
        upper, lower = halves
    if key is not None:
        draw_curves(upper, {i: runs[i] for i in order}, key)
    if lower is not None:
        draw_pictures(
            lower, [(runs[i], pictures[i]) for i in shown], key, rows=rows, columns=columns
        )
    with replacing(path) as temporary:
        drawing.savefig(temporary, format="png")


def ranked(runs: Sequence[Run], key: str | None) -> list[int]:
    """Return the places of runs from the best to the worst by a figure; those without it last, as they were."""
    sign = -1 if key is not None and direction(key) == "max" else 1

    def rank(i: int) -> tuple[bool, float]:
        best = None if key is None else runs[i].best(key)
        return best is None, 0.0 if best is None else sign * best.value

    return sorted(range(len(runs)), key=rank)


def draw_curves(drawing: Any, runs: Mapping[int, Run], key: str) -> None:
    """Draw one figure of all runs, by their places, over kimg and over wall time."""
    found = ((i, run, curve(run, key, most=_MOST_POINTS)) for i, run in runs.items())
    curves = [(i, run, points) for i, run, points in found if points]
    hours = max((points[-1][1] for *_, points in curves), default=0.0) > 3 * 3600
    unit, name = (3600, "hours") if hours else (60, "minutes")
    axes = drawing.subplots(1, 2, sharey=True)
    for place, axis in enumerate(axes):
        for line, (i, run, points) in enumerate(curves):
            axis.plot(
                [point[place] / (unit if place else 1) for point in points],
                [point[2] for point in points],
                color=_COLOURS[i % len(_COLOURS)],
                linestyle=_STYLES[i // len(_COLOURS) % len(_STYLES)],
                marker="." if len(points) <= 40 else None,
                linewidth=1.5,
                label=cut(run.name, 36) if line < _NAMED else None,
            )
        axis.grid(alpha=0.3)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"{name} of training" if place else "kimg")
    better = {"min": " (lower is better)", "max": " (higher is better)"}
    axes[0].set_ylabel(key.removeprefix("metrics/") + better.get(direction(key) or "", ""))
    axes[1].tick_params(labelleft=False)
    values = [point[2] for *_, points in curves for point in points]
    if direction(key) == "min" and 0 < min(values) * _SPREAD < max(values):
        logarithmic(axes[0])
    lines, names = axes[0].get_legend_handles_labels()
    if len(curves) > _NAMED:
        lines += axes[0].plot([], [], linestyle="")
        names.append(f"and {len(curves) - _NAMED} more")
    drawing.legend(lines, names, loc="outside right upper", frameon=False, fontsize=9)


def logarithmic(axis: Any) -> None:
    """Scale an axis by the logarithm, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def cut(name: str, longest: int) -> str:
    """Return a name without its middle where it is too long: runs of a sweep begin alike, and differ at the end."""
    if len(name) <= longest:
        return name
    end = (longest - 1) * 2 // 3
    return f"{name[: longest - 1 - end]}…{name[-end:]}"


def draw_pictures(
    drawing: Any,
    shown: Sequence[tuple[Run, Picture]],
    key: str | None,
    *,
    rows: int,
    columns: int,
) -> None:
    """Draw grids side by side, named and with the run's best figure."""
    axes = drawing.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (run, picture) in zip(axes.flat, shown, strict=False):
        assert picture.image is not None
        axis.imshow(picture.image.convert("RGB"), interpolation="antialiased")
        best = None if key is None else run.best(key)
        lines = [cut(run.name, 160 // len(axes[0]))]
        if best is not None and key is not None:
            lines.append(f"{key.removeprefix('metrics/')} {best.value:.4g}")
        if not picture.same:
            lines.append("(other latents)")
        axis.set_title("\n".join(lines), fontsize=9)
