"""What runs are compared by, and what came out of one, read from its folder."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from gan_lab.config import build
from gan_lab.errors import InputError
from gan_lab.metrics.base import Metrics, MetricsByData
from gan_lab.metrics.directions import Direction, direction
from gan_lab.training.loggers.files import METRICS_FILE, read_metrics

# the key of an entry that says that the run was ended there
PRUNED = "sweep/pruned"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What runs are compared by.

    Attributes:
        key: of metrics.jsonl.
        mode: whether the smallest or the largest value of it is the best.
    """

    key: str
    mode: Direction

    def best(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the entry of metrics.jsonl with the best value, the first of equals; None where there is none."""
        measured = [e for e in entries if math.isfinite(e.get(self.key, math.nan))]
        sign = -1.0 if self.mode == "max" else 1.0
        return min(measured, key=lambda entry: sign * entry[self.key], default=None)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of a run so far; as in `Job`.

    Attributes:
        pruned: whether the run was ended as hopeless where it is now.
    """

    objective: str | None = None
    mode: Direction | None = None
    value: float | None = None
    value_kimg: float | None = None
    figures: dict[str, float] = field(default_factory=dict)
    kimg: float | None = None
    seconds: float | None = None
    pruned: bool = False


def chosen_objective(config: DictConfig) -> Objective | None:
    """Return what a run is compared by: `objective=`, or the figure that chooses its best checkpoint, if there is one.

    Raises:
        InputError: when nobody knows which end of a figure is the good one.
    """
    if config.objective_mode not in (None, "min", "max"):
        raise InputError(f"objective_mode={config.objective_mode} must be min or max")
    key, mode = config.objective, config.objective_mode
    if key is None:
        metrics = build(config.metrics, Metrics)
        if isinstance(metrics, MetricsByData):
            metrics = metrics.of_kind(get_object(config.data._target_))
        if metrics.best is None:
            return None
        key, mode = f"metrics/{metrics.best}", mode or metrics.mode
    mode = mode or direction(key)
    if mode is None:
        raise InputError(
            f"objective={key}: whether more or less of it is better is not known; set objective_mode=min or max"
        )
    return Objective(key=key, mode=mode)


def outcome(run_dir: Path, objective: Objective | None) -> Outcome:
    """Read what came out of a run so far. Its value is the best one, as that of its best checkpoint is."""
    path = run_dir / METRICS_FILE
    entries = read_metrics(path) if path.exists() else []
    if not entries:
        return Outcome()
    last = entries[-1]["kimg"]
    found = None if objective is None else objective.best(entries)
    return Outcome(
        objective=None if objective is None else objective.key,
        mode=None if objective is None else objective.mode,
        value=None if found is None or objective is None else found[objective.key],
        value_kimg=None if found is None else found["kimg"],
        figures=figures_at(entries, None if found is None else found["kimg"]),
        kimg=last,
        seconds=entries[-1].get("time/total_s"),
        pruned=any(PRUNED in entry for entry in entries if entry["kimg"] == last),
    )


def figures_at(entries: list[dict[str, Any]], kimg: float | None) -> dict[str, float]:
    """Return all that was measured at one moment."""
    return {
        key: value
        for entry in entries
        if entry["kimg"] == kimg
        for key, value in entry.items()
        if key.startswith("metrics/") and math.isfinite(value)
    }
