"""Settings that change during training, as pure functions of the number of real images shown.

A schedule is called with the clock in kimg and returns the setting's value, so it has no state to save and a resumed
run is on it from its first step.
"""

import math
from collections.abc import Sequence

from gan_lab.errors import InputError


class Linear:
    """From `start` at `start_kimg` to `end` at `end_kimg` along a line, constant outside.

    Args:
        start: value up to `start_kimg`.
        end: value from `end_kimg` on.
        start_kimg: where the change begins.
        end_kimg: where it is complete; later than `start_kimg`.
    """

    def __init__(self, *, start: float, end: float, end_kimg: float, start_kimg: float = 0) -> None:
        if end_kimg <= start_kimg:
            raise InputError(f"end_kimg={end_kimg} must be greater than start_kimg={start_kimg}")
        self.start, self.end, self.start_kimg, self.end_kimg = start, end, start_kimg, end_kimg

    def __call__(self, kimg: float) -> float:
        return self.start + (self.end - self.start) * self._progress(kimg)

    def _progress(self, kimg: float) -> float:
        return min(max((kimg - self.start_kimg) / (self.end_kimg - self.start_kimg), 0.0), 1.0)


class Cosine(Linear):
    """As `Linear`, along half a cosine: slow at both ends (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)."""

    def _progress(self, kimg: float) -> float:
        return (1 - math.cos(math.pi * super()._progress(kimg))) / 2


class Steps:
    """Piecewise constant: `values[0]` before `at_kimg[0]`, `values[i]` from `at_kimg[i - 1]` on.

    Args:
        values: one more than `at_kimg`.
        at_kimg: ascending.
    """

    def __init__(self, *, values: Sequence[float], at_kimg: Sequence[float]) -> None:
        if len(values) != len(at_kimg) + 1 or list(at_kimg) != sorted(at_kimg):
            raise InputError(
                f"values={list(values)} and at_kimg={list(at_kimg)}: give ascending at_kimg and one value more"
            )
        self.values, self.at_kimg = list(values), list(at_kimg)

    def __call__(self, kimg: float) -> float:
        return self.values[sum(kimg >= at for at in self.at_kimg)]
