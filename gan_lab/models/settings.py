"""Scheduled settings of a run: which there are, and how each is changed."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from torch.optim import Optimizer

from gan_lab.errors import InputError

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
