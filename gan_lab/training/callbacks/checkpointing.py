"""Checkpoints, so that a run can be killed at any moment, and snapshots for post-hoc averages of the weights."""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from gan_lab.console import HANGUP, leave_terminal, minds_hangup, say, warn
from gan_lab.distributed import slurm
from gan_lab.distributed.ranks import DelayedAllReduce, ManualDDPStrategy
from gan_lab.errors import InputError
from gan_lab.layers.collectives import several_ranks
from gan_lab.run import identity, link
from gan_lab.training.callbacks.evaluation import Evaluation
from gan_lab.training.callbacks.training_log import (
    TrainingLog,
    check_finite,
    check_interval,
    log,
)
from gan_lab.training.checkpoint import BEST, LAST, PREVIOUS, AtomicCheckpointIO
from gan_lab.training.ema import (
    FOLDER,
    LENGTHS,
    SUFFIX,
    Snapshot,
    decay,
    exponent,
    snapshot_kimg,
    snapshot_path,
)
from gan_lab.training.loggers.files import STOPPED
from gan_lab.training.module import AdversarialModule


class StopError(KeyboardInterrupt):
    """Raised by a second signal, to end the run at once.

    Attributes:
        status: exit status of the process.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class Checkpointing(Callback):
    """Saves `last.ckpt`, keeps the one before it, and the best by the chosen metric.

    Runs last among the callbacks, so that it saves an evaluation at the same step, too.

    Signals: Ctrl-C, SIGTERM and SIGHUP (a closed terminal) end the step, save and stop; a second Ctrl-C ends at once.
    In a SLURM job, SIGUSR1 and SIGTERM (preemption) also requeue the job, which then resumes. Outside of SLURM, a
    second SIGTERM ends at once, and SIGUSR1 is not handled: it ends the process unsaved.

    Args:
        run_dir: the run folder; checkpoints go to its `checkpoints/`.
        every_kimg: thousands of images between two checkpoints.
        every_minutes: also save after this time; null for never. It does not affect training.
        max_requeues: how often a SLURM job may be requeued.
        evaluation: callback that determines the best.

    Attributes:
        requeued: whether the job was requeued.
    """

    def __init__(
        self,
        *,
        run_dir: str | Path,
        every_kimg: float,
        every_minutes: float | None = 10,
        max_requeues: int = 100,
        evaluation: Evaluation | None = None,
    ) -> None:
        check_interval("checkpointing", every_kimg)
        if every_minutes is not None and not 0 < every_minutes < math.inf:
            raise InputError(
                f"callbacks.checkpointing.every_minutes={every_minutes} must be positive, or null"
            )
        if max_requeues < 0:
            raise InputError(
                f"callbacks.checkpointing.max_requeues={max_requeues} must be 0 or more"
            )
        self.folder = Path(run_dir) / "checkpoints"
        self.every_kimg = every_kimg
        self.every_minutes = every_minutes
        self.max_requeues = max_requeues
        self.evaluation = evaluation
        self.requeued = False
        self.best_value: float | None = None
        self.best_kimg: float | None = None
        self._saved_at = 0.0
        self._signal: int | None = None
        self._stopped_by: int | None = None
        self._signal_anywhere = DelayedAllReduce()
        self._handlers: dict[int, Any] = {}
        self._folder_id: tuple[int, int] | None = None

    @property
    def exit_status(self) -> int:
        """Exit status: 0; 128 + signal when stopped (so that `train && evaluate` stops); 75 when requeued."""
        if self._stopped_by is None:
            return 0
        return slurm.REQUEUED if self.requeued else 128 + self._stopped_by

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far, and its metric."""
        return {"best_key": self._key, "best_value": self.best_value, "best_kimg": self.best_kimg}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`, unless the metric has changed."""
        if state_dict["best_key"] == self._key:
            self.best_value = state_dict["best_value"]
            self.best_kimg = state_dict["best_kimg"]

    def on_fit_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Handle the first Ctrl-C as a request to stop."""
        self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._request)

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Handle further signals, and start the stopwatch."""
        self._saved_at = time.monotonic()
        if isinstance(trainer.strategy, ManualDDPStrategy):
            self._signal_anywhere.timeout = trainer.strategy.timeout
        self._folder_id = identity(self.folder.parent)
        # only here: the Trainer sets its own handler between the two hooks
        for number in slurm.PREEMPT_SIGNALS if slurm.in_job() else {signal.SIGTERM}:
            self._handlers[number] = signal.signal(number, self._request)
        if HANGUP is not None and minds_hangup():
            self._handlers[HANGUP] = signal.signal(HANGUP, self._request)
        slurm.unblock_signals()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when due, after an improvement, or when the run ends."""
        better = self._is_better(module)
        # one number for both, since all ranks share it: the signal, and whether a save is due by rank 0's clock
        signal_and_late = 2 * (self._signal or 0) + int(trainer.is_global_zero and self._is_late())
        stopped_by, late = divmod(self._signal_anywhere(signal_and_late), 2)
        if better or stopped_by or trainer.should_stop or module.due(self.every_kimg):
            self.save(trainer, module)
            if better and trainer.is_global_zero:
                link(self.folder / LAST, self.folder / BEST)
        elif late:
            with own_buffers(module):
                self.save(trainer, module)
        if stopped_by:
            log_stop(trainer, module, stopped_by)
            self._stop(trainer, module, stopped_by)

    def save(self, trainer: Trainer, module: AdversarialModule) -> None:
        """Write `last.ckpt`; the old one becomes `previous.ckpt`.

        Raises:
            InputError: when the run folder was removed or cannot be written.
        """
        check_finite(module)
        if self._folder_id is not None and identity(self.folder.parent) != self._folder_id:
            raise InputError(
                f"{self.folder.parent} was deleted or moved while it was trained, so the run ends; put it back, and "
                "the same command goes on from its last checkpoint"
            )
        if trainer.is_global_zero and (self.folder / LAST).exists():
            link(self.folder / LAST, self.folder / PREVIOUS)
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_at = time.monotonic()

    def _is_late(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.every_minutes is not None and minutes >= self.every_minutes

    def teardown(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:  # type: ignore[override]
        """Restore signal handlers."""
        slurm.block_signals()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _stop(self, trainer: Trainer, module: AdversarialModule, number: int) -> None:
        self._stopped_by = number
        then = "the same command goes on"
        if slurm.in_job():
            first = trainer.is_global_zero
            refusal = slurm.requeue(number, max_requeues=self.max_requeues) if first else None
            # wait until the job is requeued: the first process that exits stops the others
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
        key, higher_is_better = self.evaluation.best
        value = self.evaluation.values.pop(key, None)
        if value is None or not math.isfinite(value):
            return False
        if self.best_value is not None and (
            value <= self.best_value if higher_is_better else value >= self.best_value
        ):
            return False
        self.best_value, self.best_kimg = value, module.kimg
        return True

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            leave_terminal()
        # SLURM may send several signals, and a closing terminal signals this process and its parents
        again = self._signal is not None and number != HANGUP
        if again and (number == signal.SIGINT or not slurm.in_job()):
            raise StopError(number)
        self._signal = self._signal or number


def log_stop(trainer: Trainer, module: AdversarialModule, number: int) -> None:
    """Log the metrics so far, so that the logs end where the checkpoint does.

    On resuming, the entry is removed (`JsonLogger.rewind`): the next one has the complete means.
    """
    logs = [callback for callback in trainer.callbacks if isinstance(callback, TrainingLog)]  # type: ignore[attr-defined]
    if not any(module.due(one.every_kimg) for one in logs):
        log(trainer, module, {**module.stats.means(), STOPPED: float(number)})


@contextmanager
def own_buffers(module: AdversarialModule) -> Iterator[None]:
    """Restore each rank's own buffers after saving their mean.

    The time of a checkpoint depends on the clock; training must not.
    """
    kept = [buffer.clone() for buffer in module.buffers()] if several_ranks() else []
    yield
    for buffer, before in zip(module.buffers(), kept, strict=False):
        buffer.copy_(before)


class PostHocAverages(Callback):
    """Keeps two power-function EMAs of the generator for post-hoc EMA, saved in checkpoints and snapshots.

    It costs two more copies of G in memory, in each checkpoint and in each snapshot, and two passes over G's weights
    per step. The average for samples during training is not affected.

    Args:
        run_dir: the run folder; snapshots go to its `ema/`.
        every_kimg: thousands of images between two snapshots.
        lengths: sigma_rel of the averages, two or more; see `gan_lab.training.ema`.

    Raises:
        InputError: for invalid lengths.
    """

    def __init__(
        self, *, run_dir: str | Path, every_kimg: float, lengths: Sequence[float] = LENGTHS
    ) -> None:
        check_interval("post_hoc_ema", every_kimg)
        if len(set(lengths)) < 2:
            raise InputError(f"callbacks.post_hoc_ema.lengths={list(lengths)}: give two or more")
        self.run_dir = Path(run_dir)
        self.every_kimg = every_kimg
        self._gammas = {float(length): exponent(length) for length in lengths}
        self._averages: dict[float, dict[str, Tensor]] = {}
        self._buffers: dict[str, Tensor] = {}
        self._images_seen = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the averages so far."""
        return Snapshot(self._images_seen, self._averages, self._buffers).as_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`; averages of other lengths start again."""
        found = Snapshot.of(state_dict)
        if set(found.averages) == set(self._gammas):
            self._images_seen = found.images_seen
            self._averages = {length: dict(kept) for length, kept in found.averages.items()}

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Start or resume the averages; delete snapshots after the checkpoint."""
        weights = averaged(module)
        if self._images_seen != module.images_seen or not self._averages:
            if module.images_seen:
                warn(
                    f"post-hoc averages start at {module.kimg:g} kimg, so long ones have too much of the weights "
                    "at that time"
                )
            self._averages = {
                length: {name: value.detach().clone() for name, value in weights.items()}
                for length in self._gammas
            }
        for kept in self._averages.values():
            for name, value in weights.items():
                kept[name] = kept[name].to(value.device)
        if trainer.is_global_zero:
            for path in (self.run_dir / FOLDER).glob(f"kimg*{SUFFIX}"):
                if snapshot_kimg(path) > module.kimg:
                    path.unlink()
        self._images_seen = module.images_seen

    @torch.no_grad()
    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages, and save a snapshot when due."""
        weights = averaged(module)
        shown = module.images_seen - self._images_seen
        self._images_seen = module.images_seen
        for length, gamma in self._gammas.items():
            kept = self._averages[length]
            share = 1 - decay(gamma, images_seen=module.images_seen, images=shown)
            torch._foreach_lerp_([kept[name] for name in weights], list(weights.values()), share)
        self._buffers = {
            name: value
            for name, value in module.generator_ema.state_dict().items()
            if name not in weights
        }
        if trainer.is_global_zero and module.due(self.every_kimg):
            state = {"state_dict": self.state_dict(), "clock": {"images_seen": self._images_seen}}
            AtomicCheckpointIO().save_checkpoint(state, snapshot_path(self.run_dir, module.kimg))


def averaged(module: AdversarialModule) -> dict[str, Tensor]:
    """Return the averaged tensors of the generator: parameters, and statistics if its own average has them."""
    found: dict[str, Tensor] = dict(module.generator.named_parameters())
    if module.ema.buffers == "average":
        floats = ((n, b) for n, b in module.generator.named_buffers() if b.is_floating_point())
        found |= {n: b for n, b in floats if n in module.generator.state_dict()}
    return {name: value.detach() for name, value in found.items()}
