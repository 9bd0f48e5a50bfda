"""Schedules: numbers that change during training, as pure functions of the real samples shown.

A schedule maps kimg to a value and has no state, so that a resumed run continues exactly.
"""

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import nn

from gan_lab.config import flatten
from gan_lab.errors import InputError
from gan_lab.training.player import OPTIMIZER_NUMBERS, Player


class Linear:
    """Linear from `start` at `start_kimg` to `end` at `end_kimg`, constant outside.

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
    """Like `Linear`, but along half a cosine (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983)."""

    def _progress(self, kimg: float) -> float:
        return (1 - math.cos(math.pi * super()._progress(kimg))) / 2


class Steps:
    """Piecewise constant: `values[0]` before `at_kimg[0]`, `values[i]` from `at_kimg[i - 1]` on.

    Args:
        values: one more value than `at_kimg` has.
        at_kimg: in ascending order.
    """

    def __init__(self, *, values: Sequence[float], at_kimg: Sequence[float]) -> None:
        if len(values) != len(at_kimg) + 1 or list(at_kimg) != sorted(at_kimg):
            raise InputError(
                f"values={list(values)} and at_kimg={list(at_kimg)}: give at_kimg in ascending order and one more value"
            )
        self.values, self.at_kimg = list(values), list(at_kimg)

    def __call__(self, kimg: float) -> float:
        return self.values[sum(kimg >= at for at in self.at_kimg)]


# Applying schedules in a run.

Schedule = Callable[[float], float]


class ScheduledParameters:
    """Sets numbers of a run's parts to the values of their schedules.

    `schedules` is nested by the path to a number: `{"generator": {"lr": ...}}` is the generator's learning rate,
    `{"generator": {"network": {"mapping": {"w_avg_beta": ...}}}}` a number of a module in its network (and in its
    moving average), `{"r1": {"weight": ...}}` a penalty's. A player has the numbers of its optimizer (lr, beta1, beta2,
    momentum, eps, weight_decay), `clip_norm` where that is set, and `network`.

    Args:
        schedules: path -> schedule of kimg.
        parts: first name of a path -> object whose attributes are numbers, modules or mappings.

    Raises:
        InputError: for an unknown path, with the nearest known one.
    """

    def __init__(self, schedules: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        self.schedules: dict[str, Schedule] = {
            path: schedule for path, schedule in flatten(schedules).items() if schedule != {}
        }
        self._targets = {path: find(path, parts) for path in self.schedules}
        for path, schedule in self.schedules.items():
            if not callable(schedule):
                raise InputError(
                    f"schedules.{path}={schedule} must be a schedule, such as one of {Linear.__module__}"
                )

    def check_optimizers(self) -> None:
        """Check that players' built optimizers have the scheduled numbers.

        Raises:
            InputError: naming the schedule.
        """
        for path, owners in self._targets.items():
            name = path.rpartition(".")[2]
            for owner in owners:
                if isinstance(owner, Player) and name != "clip_norm" and not owner.has_number(name):
                    kind = type(owner.optimizer).__name__
                    raise InputError(f"schedules.{path}: {kind} has no {name}; remove the schedule")

    def apply(self, kimg: float) -> None:
        """Set everything scheduled to its value at `kimg`."""
        for path, schedule in self.schedules.items():
            name, value = path.rpartition(".")[2], schedule(kimg)
            for owner in self._targets[path]:
                set_number(owner, name, value)


def find(path: str, parts: Mapping[str, Any]) -> list[Any]:
    """Return the objects that have the number at a path: one, or a network's and its moving average's.

    Raises:
        InputError: for an unknown path.
    """
    *names, last = path.split(".")
    owners: list[Any] = [parts]
    walked = "schedules"
    for name in names:
        check_name(name, children(owners[0]), walked)
        owners = [child for owner in owners for child in children(owner)[name]]
        walked = f"{walked}.{name}"
    check_name(last, numbers(owners[0]), walked)
    return owners


def children(owner: Any) -> dict[str, list[Any]]:
    """Return the parts of an object by name; of a player's network also the moving average."""
    if isinstance(owner, Player):
        return {"network": [part for part in (owner.network, owner.average) if part is not None]}
    if isinstance(owner, Mapping):
        return {str(name): [part] for name, part in owner.items() if not is_number(part)}
    found: dict[str, list[Any]] = {
        name: [part] for name, part in vars(owner).items() if isinstance(part, Mapping)
    }
    if isinstance(owner, nn.Module):
        found |= {name: [part] for name, part in owner.named_children()}
    return {name: part for name, part in found.items() if not name.startswith("_")}


def numbers(owner: Any) -> list[str]:
    """Return the names of an object's numbers."""
    if isinstance(owner, Player):
        return [*OPTIMIZER_NUMBERS, *(["clip_norm"] if owner.clip_norm is not None else [])]
    entries = owner if isinstance(owner, Mapping) else vars(owner)
    return [
        str(name)
        for name, value in entries.items()
        # not intervals: optimizers are corrected for them when they are built
        if is_number(value) and name != "interval" and not str(name).startswith("_")
    ]


def set_number(owner: Any, name: str, value: float) -> None:
    """Set a number of an object that `numbers` has named."""
    if isinstance(owner, Player):
        owner.set_number(name, value)
    elif isinstance(owner, MutableMapping):
        owner[name] = value
    else:
        setattr(owner, name, value)


def check_name(name: str, allowed: Iterable[str], walked: str) -> None:
    """Check that a name on a path is allowed.

    Raises:
        InputError: with the nearest allowed name.
    """
    allowed = list(allowed)
    if name not in allowed:
        raise InputError(
            f"{walked}.{name} is unknown{nearest(name, allowed)}; there are {', '.join(allowed) or 'none'}"
        )


def is_number(value: object) -> bool:
    """Whether a value is a number and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def nearest(given: str, allowed: list[str]) -> str:
    """Return "; did you mean x?" for a typo, or ""."""
    close = get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
