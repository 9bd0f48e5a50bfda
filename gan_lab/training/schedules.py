"""Settings that change during training, as pure functions of the number of real images shown.

A schedule is called with the clock in kimg and returns the setting's value, so it has no state to save and a resumed
run is on it from its first step.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch.optim import Optimizer

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


# Scheduled settings of a run: which there are, and how each is changed.

Schedule = Callable[[float], float]

Schedules = Mapping[str, Mapping[str, Schedule]]

OPTIMIZER_SETTINGS = ("lr", "beta1", "beta2", "weight_decay")


class Settings:
    """Applies schedules to optimizers and to whatever else has numbers: the moving average, penalties, augmentations.

    Args:
        schedules: target -> setting -> schedule of kimg. Targets: "generator" and "discriminator" (their optimizers)
            and `objects` by name.
        objects: by name; their numeric attributes can be scheduled.

    Raises:
        InputError: for a target or a setting that there is not.
    """

    def __init__(self, schedules: Schedules, objects: Mapping[str, Any]) -> None:
        self.schedules = {target: dict(settings) for target, settings in schedules.items()}
        self._objects = dict(objects)
        self._optimizers: dict[str, tuple[Optimizer, float]] = {}
        self._configured: dict[str, list[dict[str, Any]]] = {}
        for target, settings in self.schedules.items():
            for name in settings:
                self._check(target, name)

    def attach(self, player: str, optimizer: Optimizer, correction: float) -> None:
        """Take over a player's optimizer: its lr and betas are corrected now and whenever they are scheduled."""
        self._optimizers[player] = (optimizer, correction)
        for group in optimizer.param_groups:
            group["lr"] *= correction
            if "betas" in group:
                group["betas"] = tuple(beta**correction for beta in group["betas"])
        self._configured[player] = [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        for name in self.schedules.get(player, {}):
            if name.startswith("beta") and "betas" not in optimizer.defaults:
                raise InputError(
                    f"schedules.{player}.{name}: {type(optimizer).__name__} has no betas; remove the schedule"
                )

    def reset(self) -> None:
        """Put the configured settings back: loading an optimizer's state brings those it was saved with."""
        for player, (optimizer, _) in self._optimizers.items():
            for group, configured in zip(
                optimizer.param_groups, self._configured[player], strict=True
            ):
                group.update(configured)

    def apply(self, kimg: float) -> None:
        """Set everything scheduled to its value at `kimg`."""
        for target, settings in self.schedules.items():
            for name, schedule in settings.items():
                value = schedule(kimg)
                if target in self._optimizers:
                    self._set_in_optimizer(target, name, value)
                else:
                    setattr(self._objects[target], name, value)

    def _set_in_optimizer(self, player: str, name: str, value: float) -> None:
        optimizer, correction = self._optimizers[player]
        for group in optimizer.param_groups:
            if name == "lr":
                group["lr"] = value * correction
            elif name == "weight_decay":
                group["weight_decay"] = value
            else:
                betas = list(group["betas"])
                betas[int(name[-1]) - 1] = value**correction
                group["betas"] = tuple(betas)

    def _check(self, target: str, name: str) -> None:
        targets = ["generator", "discriminator", *self._objects]
        if target not in targets:
            raise InputError(
                f"schedules.{target} is unknown{nearest(target, targets)}; there are {', '.join(targets)}"
            )
        if target in self._objects:
            allowed = [
                key
                for key, value in vars(self._objects[target]).items()
                # the optimizers are corrected for an interval once
                if is_number(value) and key != "interval"
            ]
        else:
            allowed = list(OPTIMIZER_SETTINGS)
        if name not in allowed:
            raise InputError(
                f"schedules.{target}.{name} is unknown{nearest(name, allowed)}; {target} has {', '.join(allowed)}"
            )


def is_number(value: object) -> bool:
    """Whether a value can be scheduled."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def nearest(given: str, allowed: list[str]) -> str:
    """Return "; did you mean x?" for a slip of the keys, or nothing."""
    close = get_close_matches(given, allowed, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
