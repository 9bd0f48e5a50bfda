"""The comparison as one HTML file that needs nothing but itself."""

import html
import json
import math
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from gan_lab import __version__
from gan_lab.comparing.curves import curve, figure_keys, main_figure, most_points
from gan_lab.comparing.pictures import Picture, data_uri
from gan_lab.comparing.reading import Measured, Run
from gan_lab.comparing.settings import differing
from gan_lab.metrics.directions import direction
from gan_lab.sweeps.outcome import PRUNED

_SMALLEST_SHOWN = 360  # pixels a small picture is enlarged to, so that its pixels stay sharp


def page(
    runs: Sequence[Run], pictures: Sequence[Picture], problems: Sequence[str], *, seed: int
) -> str:
    """Return the page.

    Args:
        runs: in the order in which they are shown.
        pictures: of each.
        problems: what was named and is no run.
        seed: of the latents of all pictures.
    """
    title = f"{runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs compared"
    folder = files("gan_lab.comparing")
    parts = {
        "title": html.escape(title),
        "style": folder.joinpath("page.css").read_text(encoding="utf-8"),
        "data": embedded(page_data(runs, pictures, problems, seed=seed)),
        "script": scoped(
            folder.joinpath("chart.js").read_text(encoding="utf-8"),
            folder.joinpath("page.js").read_text(encoding="utf-8"),
        ),
    }
    pieces = folder.joinpath("page.html").read_text(encoding="utf-8").split("@@")
    # what stands between two marks is a name; the data may hold the mark itself, so nothing is replaced twice
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def scoped(*scripts: str) -> str:
    """Return scripts as one that leaves no names behind."""
    return "\n".join(['(() => {\n"use strict";', *scripts, "})();"])


def embedded(data: Any) -> str:
    """Return JSON for a script element: no text in it can end the element or begin a comment."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def finite(data: Any) -> Any:
    """Return plain data with numbers of at most six digits, and none for what is not finite, which JSON has not."""
    if isinstance(data, float):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


def page_data(
    runs: Sequence[Run], pictures: Sequence[Picture], problems: Sequence[str], *, seed: int
) -> dict[str, Any]:
    """Return all that the page shows, as its script takes it."""
    keys = figure_keys(runs)
    main = main_figure(runs, keys)
    keys.sort(key=lambda key: key != main)
    bests = [key for key in keys if key.startswith("metrics/") and direction(key)]
    measured = measured_columns(runs)
    when = time.strftime("%Y-%m-%d %H:%M %Z")
    return {
        "about": f"Made by gan-lab compare {__version__} on {when}; kimg are thousands of real images shown.",
        "note": note(pictures, seed=seed),
        "problems": [*problems, *(f"{run.name}: {text}" for run in runs for text in run.problems)],
        "main": main,
        "figures": [{"key": key, "direction": direction(key)} for key in keys],
        "bests": [{"key": key, "direction": direction(key)} for key in bests],
        "settings": differing(runs),
        "measured": [
            {"protocol": protocol, "key": key, "direction": direction(key)}
            for protocol, key in measured
        ],
        "runs": [
            {
                **run_data(run, keys, bests, most=most_points(len(runs))),
                "picture": picture_data(picture),
                "measured": [measured_data(run, column) for column in measured],
            }
            for run, picture in zip(runs, pictures, strict=True)
        ],
    }


def run_data(run: Run, keys: Sequence[str], bests: Sequence[str], *, most: int) -> dict[str, Any]:
    """Return what the tables and curves show of a run."""
    curves = {key: curve(run, key, most=most) for key in keys}
    best = {key: run.best(key) for key in bests}
    per_kimg = run.total_seconds / run.kimg if run.total_seconds and run.kimg else None
    return {
        "name": run.name,
        "path": str(run.path),
        "status": status(run),
        "holder": None if run.holder is None else str(run.holder),
        "kimg": run.kimg,
        "seconds": run.total_seconds,
        "estimated": run.seconds_estimated,
        "perKimg": per_kimg,
        "devices": run.devices,
        "parameters": run.parameters,
        "best": {key: [one.value, one.kimg] for key, one in best.items() if one is not None},
        "curves": {
            key: dict(zip("ktv", zip(*points, strict=True), strict=True))
            for key, points in curves.items()
            if points
        },
    }


def status(run: Run) -> str:
    """Say of a run's kimg what they are: all of them, or a part."""
    if run.finished:
        return "finished"
    parts = [] if run.total_kimg is None else [f"of {run.total_kimg:g}"]
    if run.holder is not None:
        parts.append("training")
    elif any(PRUNED in entry for entry in run.entries[-3:]):
        parts.append("pruned")
    return ", ".join(parts) or "of unknown"


def note(pictures: Sequence[Picture], *, seed: int) -> str:
    """Say what makes the pictures comparable, and where they are not."""
    drawn = [picture for picture in pictures if picture.same]
    if not drawn:
        return "None could be drawn from a checkpoint: these are the last grids of training, each at its own latents."
    widths = sorted({picture.z_dim for picture in drawn if picture.z_dim is not None})
    text = f"Drawn at the same latents, of seed {seed}: an image has the same one in all grids."
    if len(widths) > 1:
        listed = ", ".join(map(str, widths[:-1])) + f" and {widths[-1]}"
        text = (
            f"Drawn at latents of seed {seed}. An image has the same one in all grids whose generators take latents of "
            f"the same width; here there are {listed}."
        )
    return f"{text} A row is a class where the model has classes."


def picture_data(picture: Picture) -> dict[str, Any]:
    """Return a picture as the page shows it, with small ones enlarged by a whole factor."""
    data: dict[str, Any] = {"src": None, "origin": picture.origin, "same": picture.same}
    if picture.image is None:
        return data
    image = picture.image
    factor = -(-_SMALLEST_SHOWN // max(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), resample=0)
    return {**data, "src": data_uri(image), "width": image.width, "height": image.height}


def measured_columns(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return each (protocol, key) that a run was measured by, in the order of their first appearance."""
    return list(dict.fromkeys((one.protocol, one.key) for run in runs for one in run.measured))


def measured_data(run: Run, column: tuple[str, str]) -> dict[str, Any] | None:
    """Return the latest figure of a run in a column."""
    found = [one for one in run.measured if (one.protocol, one.key) == column]
    if not found:
        return None
    latest: Measured = found[-1]
    return {
        "value": latest.value,
        "uncertainty": latest.uncertainty,
        "checkpoint": latest.checkpoint,
    }
