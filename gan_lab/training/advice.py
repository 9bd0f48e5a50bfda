"""Advice from a run's log: a symptom, its value, and what to try.

Uses only logged values. A symptom must persist, and thresholds are far outside the values of our recipes, so that
healthy runs get no advice.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from gan_lab.metrics.base import direction

Point = tuple[float, float]  # kimg, value

_LASTING = 10  # log entries in a row
_LOSS_OF_A_WINNER = 0.02  # of D, whose losses are all >= 0 except Wasserstein's
_SAME = 1e-3  # logits: D cannot distinguish real and generated samples
_FAR, _FAR_BY = 100.0, 3.0  # mean of D's logits, alone and in gaps between real and generated ones
_SATURATED = 0.8  # ADA's p, from where augmentations leak (Karras et al. 2020, section 3)
_STEEP, _STEEPER = 1e3, 20.0  # gradient norm, absolute and relative to its earlier median
# diversity, over this many grids, and relative to its maximum; recipes here have 0.42 and more from the second grid on
_ALIKE, _GRIDS, _FELL = 0.4, 3, 0.8
_WORSE, _EVALUATIONS = 1.3, 4  # relative to the best value of a metric, over this many evaluations
_WAITING = 0.3  # share of the time that steps wait for data


@dataclass(frozen=True)
class Advice:
    """One sentence about a run.

    Attributes:
        sign: the symptom, one word.
        kimg: of its detection.
        text: the symptom with its value, and what to try.
    """

    sign: str
    kimg: float
    text: str

    def __str__(self) -> str:
        return f"at {self.kimg:g} kimg: {self.text}"


@dataclass
class Log:
    """Logged values by key.

    Attributes:
        series: key -> points in order.
    """

    series: dict[str, list[Point]] = field(default_factory=dict)

    def add(self, entry: Mapping[str, float]) -> None:
        """Add an entry of a log."""
        for key, value in entry.items():
            self.series.setdefault(key, []).append((entry["kimg"], value))

    def last(self, key: str, count: int) -> list[float]:
        """Return the last `count` values, none if there are fewer."""
        values = [value for _, value in self.series.get(key, [])[-count:]]
        return values if len(values) == count else []

    def before(self, key: str, count: int) -> list[float]:
        """Return up to 200 values before the last `count`."""
        return [value for _, value in self.series.get(key, [])[-count - 200 : -count]]


def _d_wins(log: Log) -> str | None:
    losses = log.last("loss/d", _LASTING)
    # Wasserstein losses may be negative
    if not losses or min(losses) < 0 or fmean(losses) >= _LOSS_OF_A_WINNER:
        return None
    return (
        f"D wins: its loss was {fmean(losses):.2g} in the mean of the last {_LASTING} entries, and G learns "
        "little from it. Raise R1 (regularizer=[r1] regularizer.r1.weight=...), lower D's lr, or augment=ada where "
        "images are few"
    )


def _d_collapses(log: Log) -> str | None:
    real, fake = log.last("logits/real", _LASTING), log.last("logits/fake", _LASTING)
    if not real or len(fake) != len(real):
        return None
    gaps = [abs(a - b) for a, b in zip(real, fake, strict=True)]
    if max(gaps) >= _SAME:
        return None
    return (
        f"D collapses: for {_LASTING} entries its logits of real and of generated samples have differed by less than "
        f"{_SAME:g}, {gaps[-1]:.2g} now. Lower the weight of penalties on D, or raise D's lr or width"
    )


def _logits_drift(log: Log) -> str | None:
    real, fake = log.last("logits/real", _LASTING), log.last("logits/fake", _LASTING)
    if not real or len(fake) != len(real):
        return None
    middles = [(a + b) / 2 for a, b in zip(real, fake, strict=True)]
    gap = fmean(abs(a - b) for a, b in zip(real, fake, strict=True))
    middle = abs(fmean(middles))
    if middle < _FAR or middle < _FAR_BY * gap:
        return None
    return (
        f"logits drift: D's lie around {middles[-1]:.3g}, and only {gap:.3g} between real and generated samples. "
        "Add regularizer=[...,drift], or lower D's lr"
    )


def _ada_saturates(log: Log) -> str | None:
    # adaptive augmentations log p and its target
    adaptive = [k for k in log.series if k.startswith("augment/") and f"{k[:-2]}_r" in log.series]
    for key in (k for k in adaptive if k.endswith("_p")):
        values = log.last(key, _LASTING)
        if values and min(values) >= _SATURATED:
            return (
                f"ADA's p is {values[-1]:.2f} and stays: D overfits all the same, and augmentations begin to show in "
                "samples. More images, data.flip=true, init_from= of a run on like images, a narrower D or a larger R1 "
                "weight help"
            )
    return None


def _gradients_explode(log: Log) -> str | None:
    for player in "gd":
        key = f"grad_norm/{player}"
        latest, earlier = log.last(key, 3), log.before(key, 3)
        if latest and len(earlier) >= _LASTING and min(latest) > _STEEP:
            usual = median(earlier)
            if min(latest) > _STEEPER * usual:
                name = "generator" if player == "g" else "discriminator"
                return (
                    f"gradients explode: {player.upper()}'s norm is {latest[-1]:.3g}, and was {usual:.3g}. Lower its "
                    f"lr, or set model.{name}_clip_norm={10 * usual:.2g}"
                )
    return None


def _samples_collapse(log: Log) -> str | None:
    values = [value for _, value in log.series.get("health/diversity", [])]
    latest = values[-_GRIDS:]
    if len(values) <= _GRIDS or max(latest) >= _ALIKE:
        return None
    if latest[-1] > latest[0] or latest[-1] >= _FELL * max(values):
        return None  # training has just begun: samples become different, or are as similar as without any
    # they are noisy: what exact ones change is in docs/results.md, digits/gat
    approximate = any(key.startswith("reg/approximate_r") for key in log.series)
    penalty = "set regularizer=[r1,r2]" if approximate else "raise R1 (4 times the weight)"
    return (
        f"samples collapse: in {_GRIDS} grids two samples, of the same class where there are classes, differ "
        f"{_ALIKE:g} times as much as two real ones or less, {latest[-1]:.2g} times now. Go back to an earlier "
        f"checkpoint and {penalty}, lower both lr, or add regularizer=[...,latent_diversity]"
    )


def _metric_worsens(log: Log) -> str | None:
    key = chosen_metric(list(log.series))
    if key is None:
        return None
    points, better = log.series[key], direction(key)
    if len(points) <= _EVALUATIONS:
        return None
    kimg, best = (min if better == "min" else max)(points, key=lambda point: point[1])
    latest = [value for _, value in points[-_EVALUATIONS:]]
    worse = [v > _WORSE * best if better == "min" else v < best / _WORSE for v in latest]
    if not all(worse) or best <= 0:
        return None
    return (
        f"{key} worsens: {latest[-1]:.4g}, and {best:.4g} at {kimg:g} kimg, which is kept as checkpoints/best.ckpt. "
        "Stop here, or augment=ada, a larger R1 weight and a smaller lr for the rest"
    )


def _loader_is_slow(log: Log) -> str | None:
    shares = log.last("time/data_share", _LASTING)
    if not shares or min(shares) < _WAITING:
        return None
    return (
        f"the loader is the bottleneck: steps wait for images {shares[-1]:.0%} of the time. Pack them in their size "
        "(gan-lab prepare-data ... size=), or raise num_workers="
    )


SIGNS: dict[str, Callable[[Log], str | None]] = {
    "d_wins": _d_wins,
    "d_collapses": _d_collapses,
    "logits_drift": _logits_drift,
    "ada_saturates": _ada_saturates,
    "gradients_explode": _gradients_explode,
    "samples_collapse": _samples_collapse,
    "metric_worsens": _metric_worsens,
    "loader_is_slow": _loader_is_slow,
}


class Adviser:
    """Follows a growing log, and gives each advice once."""

    def __init__(self) -> None:
        self.log = Log()
        self.said: set[str] = set()

    def see(self, entry: Mapping[str, float]) -> list[Advice]:
        """Add an entry of a log, and return new advice."""
        self.log.add({k: v for k, v in entry.items() if math.isfinite(v)})
        found = []
        for sign, look in SIGNS.items():
            text = None if sign in self.said else look(self.log)
            if text is not None:
                self.said.add(sign)
                found.append(Advice(sign, entry["kimg"], text))
        return found


def advice(entries: Iterable[Mapping[str, float]]) -> list[Advice]:
    """Return all advice for a log, in order; each entry has its "kimg"."""
    adviser = Adviser()
    return [one for entry in entries for one in adviser.see(entry)]


def chosen_metric(keys: Sequence[str]) -> str | None:
    """Return the main metric of a log: the first distance, else the first with a known direction."""
    known = [key for key in keys if key.startswith("metrics/") and direction(key)]
    return next((key for key in known if direction(key) == "min"), known[0] if known else None)
