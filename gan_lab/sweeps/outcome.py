"""The objective of a sweep, the outcome of a run, and the callback that prunes."""

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import get_object
from lightning import Callback, Trainer
from omegaconf import DictConfig

from gan_lab.config import build
from gan_lab.console import say
from gan_lab.errors import InputError, import_extra
from gan_lab.metrics.base import Direction, Metrics, MetricsByData, direction
from gan_lab.training.building import build_data
from gan_lab.training.callbacks.evaluation import Evaluation
from gan_lab.training.callbacks.training_log import log
from gan_lab.training.loggers import METRICS_FILE
from gan_lab.training.loggers.files import PRUNED, read_metrics
from gan_lab.training.module import AdversarialModule

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The metric that runs are compared by.

    Attributes:
        key: of metrics.jsonl.
        mode: "min" or "max": whether lower or higher is better.
    """

    key: str
    mode: Direction

    def best(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the first entry of metrics.jsonl with the best value, or None."""
        measured = [e for e in entries if math.isfinite(e.get(self.key, math.nan))]
        sign = -1.0 if self.mode == "max" else 1.0
        return min(measured, key=lambda entry: sign * entry[self.key], default=None)


def chosen_objective(
    config: DictConfig, measured: Collection[str] | None = None
) -> Objective | None:
    """Return a run's objective: `objective=`, or the metric that chooses its best checkpoint, or None.

    Args:
        config: of the run.
        measured: keys of its metrics.jsonl, once there are some. Before that, metrics=auto is resolved from the data.

    Raises:
        InputError: when its direction is unknown.
    """
    key, mode = config.objective, config.objective_mode
    if key is None:
        metrics = build(config.metrics, Metrics)
        if isinstance(metrics, MetricsByData):
            metrics = _data_metrics(metrics, config, measured)
        if metrics.best is None:
            return None
        key, mode = f"metrics/{metrics.best}", mode or metrics.mode
    mode = mode or direction(key)
    if mode is None:
        raise InputError(
            f"objective={key}: its direction is unknown; set objective_mode=min or max"
        )
    return Objective(key=key, mode=mode)


def _data_metrics(
    metrics: MetricsByData, config: DictConfig, measured: Collection[str] | None
) -> Metrics:
    """Return the metrics that metrics=auto chooses, or has chosen, for a run's data."""
    candidates = metrics.candidates(get_object(config.data._target_))
    if len(candidates) == 1:
        return candidates[0]
    if measured is None:
        return metrics.choose(build_data(config))
    return next((one for one in candidates if f"metrics/{one.best}" in measured), candidates[0])


def entries_of(run_dir: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's metrics.jsonl; none where there is no file."""
    path = run_dir / METRICS_FILE
    return read_metrics(path) if path.exists() else []


def outcome(entries: list[dict[str, Any]], objective: Objective | None) -> dict[str, Any]:
    """Return the outcome of a run so far, by the fields of `Job`; its value is that of its best checkpoint.

    "pruned" is whether the run was pruned at its current position.
    """
    if not entries:
        return {"pruned": False}
    found: dict[str, Any] = {
        "kimg": entries[-1]["kimg"],
        "seconds": entries[-1].get("time/total_s"),
    }
    found["pruned"] = any(PRUNED in entry for entry in entries if entry["kimg"] == found["kimg"])
    if objective is not None:
        best = objective.best(entries) or {}
        found |= {"objective": objective.key, "mode": objective.mode}
        found |= {"value": best.get(objective.key), "value_kimg": best.get("kimg")}
        found["metrics"] = metrics_at(entries, best.get("kimg"))
    return found


def metrics_at(entries: list[dict[str, Any]], kimg: float | None) -> dict[str, float]:
    """Return all metrics of one evaluation."""
    return {
        key: value
        for entry in entries
        if entry["kimg"] == kimg
        for key, value in entry.items()
        if key.startswith("metrics/") and math.isfinite(value)
    }


class Pruning(Callback):
    """Reports each evaluation to a trial of an Optuna study, and ends the run if the pruner decides to.

    Runs between evaluation and checkpointing, which then saves the run. Optuna's step is the number of the evaluation,
    from 0, so that runs of different batch sizes compare. The study is accessed through its storage, which other
    processes and machines may share.

    Args:
        storage: a journal file or a URL; see `open_storage`.
        study: name of the study.
        trial: number of the trial, which must be running.
        objective: key of the metric, `metrics/` included.
        pruner: Optuna's, or None for Optuna's default.
        evaluation: the callback that computes it.

    Raises:
        InputError: when nothing is evaluated.
    """

    def __init__(
        self,
        *,
        storage: str,
        study: str,
        trial: int,
        objective: str,
        pruner: "BasePruner | None" = None,
        evaluation: Evaluation | None = None,
    ) -> None:
        if evaluation is None:
            raise InputError(
                "callbacks.pruning needs callbacks.evaluation; add it, or set "
                "hydra.sweeper.pruner=null"
            )
        self.storage = storage
        self.study = study
        self.trial = trial
        self.objective = objective
        self.pruner = pruner
        self.evaluation = evaluation

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report after an evaluation, except at the end of training."""
        if module.finished or not module.due(self.evaluation.every_kimg):
            return
        value = self.evaluation.values.get(self.objective)
        prune = False
        if trainer.is_global_zero and value is not None:
            evaluations = round(module.images_seen // (self.evaluation.every_kimg * 1000))
            prune = self._should_prune(value, step=evaluations - 1)
        # all processes stop at the same step
        if trainer.strategy.broadcast(prune):
            log(trainer, module, {PRUNED: 1.0})
            say(f"pruned by Optuna at {module.kimg:g} kimg (checkpoint saved)")
            trainer.should_stop = True

    def _should_prune(self, value: float, *, step: int) -> bool:
        trial = open_trial(
            storage=self.storage, study=self.study, trial=self.trial, pruner=self.pruner
        )
        with warnings.catch_warnings():
            # a run resumed from an earlier checkpoint repeats evaluations, with the same values
            warnings.simplefilter("ignore")
            trial.report(value, step)
        return trial.should_prune()


def open_storage(location: str) -> "BaseStorage":
    """Open a study's storage: a journal file, or a database.

    Args:
        location: a path, created if needed; or a URL such as sqlite:///study.db.

    Raises:
        InputError: when it cannot be opened.
    """
    import_extra("optuna", extra="sweeps", what="hydra/sweeper=optuna")
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" in location:
            return get_storage(location)
        return JournalStorage(JournalFileBackend(location))
    except Exception as error:  # each database has its own errors
        raise InputError(
            f"hydra.sweeper.storage={location} cannot be opened ({type(error).__name__}: {error}); give a path, or a "
            "URL such as sqlite:///study.db"
        ) from error


def open_trial(*, storage: str, study: str, trial: int, pruner: "BasePruner | None") -> "Trial":
    """Return a running trial, for reporting and pruning.

    Args:
        storage: as `open_storage` takes it.
        study: name of the study.
        trial: number of the trial.
        pruner: Optuna's, or None for Optuna's default.

    Raises:
        InputError: for an unknown trial.
    """
    opened = open_storage(storage)
    from optuna import Trial, load_study

    try:
        found = load_study(study_name=study, storage=opened, pruner=pruner)
    except KeyError as error:
        raise InputError(f"there is no study {study} in {storage}") from error
    for frozen in found.get_trials(deepcopy=False):
        if frozen.number == trial:
            return Trial(found, frozen._trial_id)
    raise InputError(f"there is no trial {trial} in the study {study} of {storage}")
