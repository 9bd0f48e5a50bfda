"""Curves of runs, thinned to what a screen can show."""

import math
from collections.abc import Iterable, Sequence

from gan_lab.comparing.reading import Run
from gan_lab.metrics.directions import direction

# of one curve, and of all curves of one figure
_MOST_POINTS, _MOST_OF_ALL = 600, 9000
# how figures are grouped where they are chosen, what is looked at first before the rest
_GROUPS = ("metrics", "loss", "logits", "health", "encoder", "reg", "grad_norm", "speed")
_HIDDEN = ("kimg", "time/", "sweep/", "stopped/")

Point = tuple[float, float, float]  # kimg, seconds, value


def figure_keys(runs: Iterable[Run]) -> list[str]:
    """Return every figure that a run has a curve of: those with a direction first, then by group and name."""
    keys = {key: None for run in runs for entry in run.entries for key in entry}

    def place(key: str) -> tuple[int, int, str]:
        group = key.split("/")[0]
        known = _GROUPS.index(group) if group in _GROUPS else len(_GROUPS)
        beside = group == "metrics" and direction(key) is None
        return known, int(beside), key

    return sorted((key for key in keys if not key.startswith(_HIDDEN)), key=place)


def main_figure(runs: Sequence[Run], keys: Sequence[str]) -> str | None:
    """Return the figure that most runs can be compared by: one with a direction, else a loss, else any."""
    counts = {key: sum(any(key in entry for entry in run.entries) for run in runs) for key in keys}
    for wanted in (
        [key for key in keys if key.startswith("metrics/") and direction(key)],
        [key for key in keys if key.startswith("loss/")],
        keys,
    ):
        if wanted:
            # a smaller one is, as a rule, a distance, which says more than a share
            return max(wanted, key=lambda key: (counts[key], direction(key) == "min"))
    return None


def curve(run: Run, key: str, *, most: int) -> list[Point]:
    """Return (kimg, seconds, value) of a figure, at most about `most` of them."""
    points = [
        (entry["kimg"], seconds, entry[key])
        for entry, seconds in zip(run.entries, run.seconds, strict=True)
        if math.isfinite(entry.get(key, math.nan))
    ]
    return thinned(points, most)


def most_points(runs: int) -> int:
    """Return how many points each run's curves may have, so that a page of many runs stays small."""
    return max(60, min(_MOST_POINTS, _MOST_OF_ALL // max(runs, 1)))


def thinned(points: list[Point], most: int) -> list[Point]:
    """Keep the lowest and the highest of each stretch, so that no spike is lost, and both ends."""
    if len(points) <= most:
        return points
    stretch = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        within = range(start, min(start + stretch, len(points)))
        kept |= {min(within, key=lambda i: points[i][2]), max(within, key=lambda i: points[i][2])}
    return [points[i] for i in sorted(kept)]
