"""Saves the run so that it can be killed at any moment."""

import math
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, Trainer

from gan_lab.console import say
from gan_lab.distributed import slurm
from gan_lab.distributed.ranks import DelayedAllReduce
from gan_lab.errors import InputError
from gan_lab.training.callbacks.evaluation import Evaluation
from gan_lab.training.callbacks.training_log import check_finite, check_interval
from gan_lab.training.checkpoint import BEST, LAST, PREVIOUS, link
from gan_lab.training.module import AdversarialModule


class Checkpointing(Callback):
    """Keeps `last.ckpt`, the one before it, and the best by the metric that was chosen.

    Stands last among the callbacks, so that an evaluation of the same moment is part of what it saves. The first
    Ctrl-C or SIGTERM ends the step, saves and stops; a second one ends at once. In a job of SLURM, SIGUSR1 and a
    SIGTERM that warns of preemption also have the job start again, which then goes on from here.

    Args:
        run_dir: the run folder; checkpoints go to its `checkpoints/`.
        every_kimg: thousands of images between two checkpoints.
        max_restarts: how often a job of SLURM may start again.
        evaluation: where the best one is found out.

    Attributes:
        requeued: whether SLURM was asked to start the job again.
    """

    def __init__(
        self,
        *,
        run_dir: str | Path,
        every_kimg: float,
        max_restarts: int = 100,
        evaluation: Evaluation | None = None,
    ) -> None:
        check_interval("checkpointing", every_kimg)
        if max_restarts < 0:
            raise InputError(
                f"callbacks.checkpointing.max_restarts={max_restarts} must be 0 or more"
            )
        self.folder = Path(run_dir) / "checkpoints"
        self.every_kimg = every_kimg
        self.max_restarts = max_restarts
        self.evaluation = evaluation
        self.requeued = False
        self.best_value: float | None = None
        self.best_kimg: float | None = None
        self._signal: int | None = None
        self._stopped_by: int | None = None
        self._signal_anywhere = DelayedAllReduce()
        self._handlers: dict[int, Any] = {}

    @property
    def exit_status(self) -> int:
        """0; after a signal what a shell expects, so that `train && evaluate` stops; 75 for a job that starts again."""
        if self._stopped_by is None:
            return 0
        return slurm.REQUEUED if self.requeued else 128 + self._stopped_by

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, and of what."""
        return {"best_key": self._key, "best_value": self.best_value, "best_kimg": self.best_kimg}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`; another metric has not had a best value yet."""
        if state_dict["best_key"] == self._key:
            self.best_value = state_dict["best_value"]
            self.best_kimg = state_dict["best_kimg"]

    def on_fit_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Turn the first Ctrl-C into a request."""
        self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._request)

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Make up for a kill between the last checkpoint and its being linked as the best one; mind more signals."""
        # only here: the Trainer sets a handler of its own between the two hooks
        for number in slurm.WARNINGS if slurm.in_job() else {signal.SIGTERM}:
            self._handlers[number] = signal.signal(number, self._request)
        slurm.take_warnings()
        if trainer.is_global_zero and self.best_kimg == module.kimg > 0:
            link(self.folder / LAST, self.folder / BEST)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, when something better was found, or when the run ends here."""
        better = self._is_better(module)
        stopped_by = self._signal_anywhere(self._signal or 0)
        if better or stopped_by or trainer.should_stop or module.due(self.every_kimg):
            self.save(trainer, module)
            if better and trainer.is_global_zero:
                link(self.folder / LAST, self.folder / BEST)
        if stopped_by:
            self._stop(trainer, module, stopped_by)

    def save(self, trainer: Trainer, module: AdversarialModule) -> None:
        """Write `last.ckpt`; what it was becomes `previous.ckpt`."""
        check_finite(module)
        if trainer.is_global_zero and (self.folder / LAST).exists():
            link(self.folder / LAST, self.folder / PREVIOUS)
        trainer.save_checkpoint(self.folder / LAST)

    def teardown(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:  # type: ignore[override]
        """Give the signals back."""
        slurm.hold_warnings()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _stop(self, trainer: Trainer, module: AdversarialModule, number: int) -> None:
        self._stopped_by = number
        then = "the same command goes on"
        if slurm.in_job():
            first = trainer.is_global_zero
            refusal = slurm.requeue(number, max_restarts=self.max_restarts) if first else None
            # nobody leaves before SLURM was asked: the first that ends has the others ended
            refusal = trainer.strategy.broadcast(refusal)
            self.requeued = refusal is None
            then = f"{then}; {refusal}" if refusal else f"job {slurm.job()} starts again"
        name = signal.Signals(number).name
        say(f"stopped by {name} at {module.kimg:g} kimg and saved; {then}")
        trainer.should_stop = True

    @property
    def _key(self) -> str | None:
        best = None if self.evaluation is None else self.evaluation.best
        return None if best is None else best[0]

    def _is_better(self, module: AdversarialModule) -> bool:
        if self.evaluation is None or self.evaluation.best is None:
            return False
        key, more = self.evaluation.best
        value = self.evaluation.values.pop(key, None)
        if value is None or not math.isfinite(value):
            return False
        if self.best_value is not None and (
            value <= self.best_value if more else value >= self.best_value
        ):
            return False
        self.best_value, self.best_kimg = value, module.kimg
        return True

    def _request(self, number: int, frame: FrameType | None) -> None:
        # SLURM may warn more than once
        if self._signal is not None and (number == signal.SIGINT or not slurm.in_job()):
            raise KeyboardInterrupt
        self._signal = self._signal or number
