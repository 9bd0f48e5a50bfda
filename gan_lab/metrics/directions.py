"""Which way is up: whether a metric is better smaller or larger, by its name."""

import re
from typing import Literal

Direction = Literal["min", "max"]

# beginnings of names as `Measure.key` makes them: what others call a metric, or its own short name
_SMALLER = re.compile(
    r"((clean_|class_|s)?fid|(clean_)?kid|fd|kd|ppl|path|kl_modes|memorised|js[0-9]+|copied)(\d|_|$)"
)
_LARGER = re.compile(
    r"(is|score|precision|recall|density|coverage|accuracy|modes|eq|eqt|eqr|words)(\d|_|$)"
)
# beside metrics: their uncertainties, and what real images, held-out text and simple chains come to
_BESIDE = re.compile(r"_(se|std|real|bigram|unigram)$")


def direction(key: str) -> Direction | None:
    """Return whether the smallest or the largest value of a metric is the best, None where neither is known to be.

    Args:
        key: as in metrics.jsonl, with `metrics/` or without.
    """
    name = key.removeprefix("metrics/")
    if _BESIDE.search(name):
        return None
    if _SMALLER.match(name):
        return "min"
    return "max" if _LARGER.match(name) else None
