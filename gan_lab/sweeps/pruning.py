"""Ends a run that is hopeless beside the others of its sweep."""

import warnings
from typing import TYPE_CHECKING, Any

from lightning import Callback, Trainer

from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.sweeps.outcome import PRUNED
from gan_lab.sweeps.study import open_trial
from gan_lab.training.callbacks.evaluation import Evaluation
from gan_lab.training.callbacks.training_log import log
from gan_lab.training.module import AdversarialModule

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


class Pruning(Callback):
    """Reports each evaluation to a trial of an Optuna study, and ends the run where its pruner says so.

    Stands between the evaluation and the checkpointing, which saves the run there. A step of Optuna is an evaluation,
    the first one 0, so that runs of different batch sizes are compared at the same ones. The study is reached through
    its storage, so that it may be another process's, or another machine's.

    Args:
        storage: a journal file or a URL; see `gan_lab.sweeps.study.open_storage`.
        study: name of the study.
        trial: number of the trial, which must be running.
        objective: key of the figure, `metrics/` included.
        pruner: what judges; None for Optuna's default.
        evaluation: what measures it.

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
                "callbacks.pruning judges by evaluations, and there are none; leave callbacks.evaluation in, or set "
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
        """Report when there was an evaluation; at the end of training there is nothing left to save."""
        if module.finished or not module.due(self.evaluation.every_kimg):
            return
        value = self.evaluation.values.get(self.objective)
        hopeless = False
        if trainer.is_global_zero and value is not None:
            evaluations = round(module.images_seen // (self.evaluation.every_kimg * 1000))
            hopeless = self._judge(value, step=evaluations - 1)
        # all processes leave at the same step
        if trainer.strategy.broadcast(hopeless):
            log(trainer, module, {PRUNED: 1.0})
            say(
                f"pruned at {module.kimg:g} kimg and saved: hopeless beside the others of its sweep"
            )
            trainer.should_stop = True

    def _judge(self, value: float, *, step: int) -> bool:
        trial = open_trial(
            storage=self.storage, study=self.study, trial=self.trial, pruner=self.pruner
        )
        with warnings.catch_warnings():
            # a run that went back to a checkpoint measures again what it has reported, and gets the same
            warnings.simplefilter("ignore")
            trial.report(value, step)
        return trial.should_prune()
