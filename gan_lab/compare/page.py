"""The comparison as one self-contained HTML page: tables, curves by Plotly, sample grids."""

import html
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from gan_lab.compare.runs import Run, SampleGrid, data_uri, enlarged
from gan_lab.config import derived, flatten
from gan_lab.metrics.base import direction
from gan_lab.training.loggers.files import PRUNED
from gan_lab.version import __version__

# largest number of points of a curve, and of all curves of a metric
_MAX_POINTS, _MAX_TOTAL = 600, 9000
# order of metric groups in the menu; other groups follow
_GROUPS = ("metrics", "loss", "logits", "health", "encoder", "reg", "grad_norm", "speed")
_HIDDEN = ("kimg", "time/", "sweep/", "stopped/")
# model settings that repeat a top-level key of the config
_REPEATED = tuple(
    f"model.{key}."
    for key in (
        *("loss", "regularizers", "augmentations"),
        *("batch_size", "d_steps", "micro_batch_size", "seed"),
    )
)
_HYDRA = ("_partial_",)
# order of settings: config groups and top-level keys first
_FIRST = (
    *("model", "data", "loss", "regularizer", "augment", "conditioning", "seed", "total_kimg"),
    *("batch_size", "d_steps", "micro_batch_size", "init_from"),
)
ABSENT = "–"

Point = tuple[float, float, float]  # kimg, seconds, value


def page(
    runs: Sequence[Run], grids: Sequence[SampleGrid], problems: Sequence[str], *, seed: int
) -> str:
    """Return the HTML of the page.

    Args:
        runs: in the order of display.
        grids: sample grid of each run.
        problems: paths that are not runs.
        seed: of the latents of all grids.
    """
    folder = files("gan_lab.compare")
    read = {
        name: folder.joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("html", "js")
    }
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    parts = {
        "title": html.escape(title),
        "data": embedded(page_data(runs, grids, problems, seed=seed)),
        "plotly": get_plotlyjs(),
        "script": read["js"],
    }
    # replaced in one pass, since the data may contain the placeholders
    pieces = read["html"].split("@@")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def embedded(data: Any) -> str:
    """Return JSON that is safe in a script element: it cannot end the element or start a comment."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def finite(data: Any) -> Any:
    """Round numbers to six digits; null for NaN and infinity, which JSON does not have."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def page_data(
    runs: Sequence[Run], grids: Sequence[SampleGrid], problems: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Return the data that the page's script reads."""
    keys = metric_keys(runs)
    main = main_metric(runs, keys)
    keys.sort(key=lambda key: key != main)
    bests = [key for key in keys if key.startswith("metrics/") and direction(key)]
    columns = list(dict.fromkeys((one.protocol, one.key) for run in runs for one in run.measured))
    most = max(60, min(_MAX_POINTS, _MAX_TOTAL // max(len(runs), 1)))
    when = time.strftime("%Y-%m-%d %H:%M %Z")
    return {
        "about": f"Made by gan-lab compare {__version__} on {when}; kimg are thousands of real images shown.",
        "note": note(grids, seed=seed),
        "problems": [*problems, *(f"{run.name}: {text}" for run in runs for text in run.problems)],
        "advice": [f"{run.name} {one}" for run in runs for one in run.advice],
        "main": main,
        "metrics": [{"key": key, "direction": direction(key)} for key in keys],
        "bests": [{"key": key, "direction": direction(key)} for key in bests],
        "settings": differing(runs),
        "measured": [
            {"protocol": protocol, "key": key, "direction": direction(key)}
            for protocol, key in columns
        ],
        "runs": [
            {
                **run_data(run, keys, bests, most=most),
                "grid": {
                    "src": None if grid.image is None else data_uri(enlarged(grid.image)),
                    "clips": list(grid.clips),
                    "origin": grid.origin,
                    "same": grid.same,
                },
                "measured": [
                    next((m for m in reversed(run.measured) if (m.protocol, m.key) == at), None)
                    for at in columns
                ],
            }
            for run, grid in zip(runs, grids, strict=True)
        ],
    }


def run_data(run: Run, keys: Sequence[str], bests: Sequence[str], *, most: int) -> dict[str, Any]:
    """Return a run's data for the tables and curves."""
    curves = {key: curve(run, key, most=most) for key in keys}
    best = {key: run.best(key) for key in bests}
    return {
        "name": run.name,
        "path": str(run.path),
        "status": status(run),
        "holder": None if run.holder is None else str(run.holder),
        "kimg": run.kimg,
        "seconds": run.seconds,
        "perKimg": run.seconds / run.kimg if run.seconds and run.kimg else None,
        "devices": run.devices,
        "parameters": run.parameters,
        "best": {key: one for key, one in best.items() if one is not None},
        "curves": {
            key: dict(zip("ktv", zip(*points, strict=True), strict=True))
            for key, points in curves.items()
            if points
        },
    }


def status(run: Run) -> str:
    """Return "finished", or "of 100, training"."""
    if run.finished:
        return "finished"
    parts = [] if run.total_kimg is None else [f"of {run.total_kimg:g}"]
    if run.holder is not None:
        parts.append("training")
    elif any(PRUNED in entry for entry in run.entries[-3:]):
        parts.append("pruned")
    return ", ".join(parts) or "of unknown"


def note(grids: Sequence[SampleGrid], *, seed: int) -> str:
    """Describe how comparable the sample grids are."""
    drawn = [grid for grid in grids if grid.same]
    if not drawn:
        return "None could be drawn from a checkpoint: these are the last grids of training, each at its own latents."
    widths = sorted({grid.z_dim for grid in drawn if grid.z_dim is not None})
    text = f"Drawn at the same latents, of seed {seed}: a sample has the same one in all grids."
    if len(widths) > 1:
        text = (
            f"Drawn at latents of seed {seed}. A sample has the same one in all grids whose generators take latents of "
            f"the same width; here there are {', '.join(map(str, widths))}."
        )
    return f"{text} A row is a class where the model has classes."


# ---- curves


def metric_keys(runs: Iterable[Run]) -> list[str]:
    """Return all metrics with curves: those with a known better direction first, then by group and name."""
    keys = {key: None for run in runs for entry in run.entries for key in entry}

    def order(key: str) -> tuple[int, bool, str]:
        group = key.split("/")[0]
        known = _GROUPS.index(group) if group in _GROUPS else len(_GROUPS)
        return known, group == "metrics" and direction(key) is None, key

    return sorted((key for key in keys if not key.startswith(_HIDDEN)), key=order)


def main_metric(runs: Sequence[Run], keys: Sequence[str]) -> str | None:
    """Return the metric that most runs have: one with a known better direction, else a loss, else any."""
    counts = {key: sum(any(key in entry for entry in run.entries) for run in runs) for key in keys}
    directed = [key for key in keys if key.startswith("metrics/") and direction(key)]
    losses = [key for key in keys if key.startswith("loss/")]
    # distances (lower is better) are preferred to shares
    return max(
        directed or losses or keys,
        key=lambda key: (counts[key], direction(key) == "min"),
        default=None,
    )


def curve(run: Run, key: str, *, most: int) -> list[Point]:
    """Return (kimg, seconds, value) of a metric, at most about `most` of them."""
    points = [
        (entry["kimg"], entry.get("time/total_s", 0.0), entry[key])
        for entry in run.entries
        if math.isfinite(entry.get(key, math.nan))
    ]
    return thinned(points, most)


def thinned(points: list[Point], most: int) -> list[Point]:
    """Thin a curve: keep the lowest and highest point of each interval, so that no spike is lost, and both ends."""
    if len(points) <= most:
        return points
    stretch = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        within = range(start, min(start + stretch, len(points)))
        kept |= {choose(within, key=lambda i: points[i][2]) for choose in (min, max)}
    return [points[i] for i in sorted(kept)]


# ---- settings


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return (key, value of each run as text) for every setting that differs between runs with a config.

    A missing key is shown as a dash, a class by its name.
    """
    settings = [settings_of(run) for run in runs]
    known = [own for own in settings if own is not None]
    rows = []
    for key in sorted({key for own in known for key in own}, key=order):
        if len({own.get(key, ABSENT) for own in known}) > 1:
            rows.append((key, ["?" if own is None else own.get(key, ABSENT) for own in settings]))
    return rows


def settings_of(run: Run) -> dict[str, str] | None:
    """Return the settings that may differ between runs, as texts by key; None without a config."""
    if run.config is None:
        return None
    return {
        key.removesuffix("._target_"): as_text(value, is_class=key.endswith("._target_"))
        for key, value in flatten(run.config).items()
        # an empty group would be a row of its own beside the keys in it
        if not (f"{key}.".startswith(_REPEATED) or derived(key) or value == {})
        and key.split(".")[-1] not in _HYDRA
    }


def as_text(value: Any, *, is_class: bool = False) -> str:
    """Format a value as on the command line; a class by its name alone."""
    if is_class:
        return str(value).rpartition(".")[2]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(as_text(one) for one in value)}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def order(key: str) -> tuple[int, int, str]:
    """Sort key of a setting: config groups first, and short keys before nested ones."""
    group = key.split(".")[0]
    # `model` itself (the class), not the keys below it
    known = _FIRST.index(group) if group in _FIRST and key.count(".") < 2 else len(_FIRST)
    return known, key.count("."), key
