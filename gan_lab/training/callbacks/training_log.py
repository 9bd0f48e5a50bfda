"""The training log: means of losses, logits and gradient norms, speed, a guard against NaN; and progress."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from gan_lab.console import ShowProgress, console, progress_bar, say, warn
from gan_lab.errors import InputError
from gan_lab.training.advice import Adviser
from gan_lab.training.loggers import METRICS_FILE, RunLogger, run_loggers
from gan_lab.training.loggers.files import intact_entries
from gan_lab.training.module import AdversarialModule


class NonFiniteError(RuntimeError):
    """Training diverged: a loss, a penalty or a weight is NaN or infinite."""


class TrainingLog(Callback):
    """Logs every `every_kimg`, and stops a run whose metrics are no longer finite.

    Running means are read from the device only at these entries, so other steps need no synchronization.

    Entries of all callbacks have the seconds of training so far, `time/total_s`, including evaluations, grids and
    saving, but not steps lost by resuming from an earlier checkpoint. They are saved in the checkpoint. The share of
    the time that steps wait for data is `time/data_share`.

    Attributes:
        metrics: of the latest entry.

    Args:
        every_kimg: thousands of images between two entries.
        advice: whether to print and log advice from the log, once each (`gan_lab.training.advice`).
    """

    def __init__(self, *, every_kimg: float, advice: bool = True) -> None:
        check_interval("training_log", every_kimg)
        self.every_kimg = every_kimg
        self._adviser = Adviser() if advice else None
        self._given: list[str] = []
        self._waited = 0.0
        self.metrics: dict[str, float] = {}
        self._since = (0.0, 0)
        self._before = 0.0
        self._began: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training so far, of all sessions together."""
        return self._before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the time outside of the callbacks' states, which must not depend on interruptions."""
        checkpoint["seconds"] = self.seconds

    def on_load_checkpoint(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the time."""
        self._before = checkpoint.get("seconds", 0.0)

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Remove log entries after the checkpoint, and start the stopwatches."""
        self._began = time.perf_counter()
        for logger in run_loggers(trainer):
            # a run killed before its first checkpoint saved nothing
            logger.rewind(module.kimg if module.images_seen else -1.0)
        self._since = (time.perf_counter(), module.images_seen)
        log_file = Path(trainer.default_root_dir) / METRICS_FILE
        if self._adviser is not None and module.images_seen and log_file.exists():
            for entry in intact_entries(log_file)[0]:
                # printed before the run was interrupted
                self._given += map(str, self._adviser.see(entry))

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, batch: Any, batch_idx: int
    ) -> None:
        """Compute gradient norms in steps with an entry; exclude evaluations from the speed."""
        now = time.perf_counter()
        if module.images_seen == self._since[1]:
            self._since, self._waited = (now, module.images_seen), 0.0
        elif module.step_ended is not None:
            self._waited += now - module.step_ended
        shown = module.batch_size * module.d_steps
        every = self.every_kimg * 1000
        module.measure_gradients = (
            module.images_seen + shown
        ) // every > module.images_seen // every

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log and check when due."""
        if not module.due(self.every_kimg):
            return
        metrics = module.stats.take()
        now, before = time.perf_counter(), self._since
        self._since = (now, module.images_seen)
        metrics["speed/img_per_s"] = (module.images_seen - before[1]) / (now - before[0])
        metrics["time/data_share"] = self._waited / (now - before[0])
        check_finite_metrics(metrics, module.kimg)
        self.metrics = metrics
        log(trainer, module, metrics)

    def advise(self, entry: Mapping[str, float], loggers: Sequence[RunLogger]) -> None:
        """Print and log advice from an entry of any callback."""
        for one in [] if self._adviser is None else self._adviser.see(entry):
            warn(str(one))
            self._given.append(str(one))
            for logger in loggers:
                logger.log_advice(self._given, one.kimg)


def log(trainer: Trainer, module: AdversarialModule, metrics: Mapping[str, float]) -> None:
    """Log metrics with every logger, with the clock, in kimg, and the seconds so far."""
    entry = {"kimg": module.kimg, **metrics}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, TrainingLog):
            entry["time/total_s"] = callback.seconds
    for logger in trainer.loggers:
        logger.log_metrics(entry, step=round(module.kimg))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, TrainingLog):
            callback.advise(entry, run_loggers(trainer))


def check_interval(name: str, every_kimg: float) -> None:
    """Check that an interval is positive.

    Raises:
        InputError: naming the key.
    """
    if every_kimg <= 0:
        raise InputError(f"callbacks.{name}.every_kimg={every_kimg} must be positive")


def check_finite_metrics(metrics: Mapping[str, float], kimg: float) -> None:
    """Check that metrics are finite.

    Raises:
        NonFiniteError: naming them.
    """
    wrong = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise NonFiniteError(
            f"training diverged at {kimg:g} kimg: {', '.join(wrong)}. Lower the learning rates, raise a penalty's "
            "weight or use precision 32-true"
        )


def check_finite(module: AdversarialModule) -> None:
    """Check that the losses since the last entry and all weights are finite.

    Every rank must call it; it also synchronizes running statistics.

    Raises:
        NonFiniteError: naming the losses, or the first such parameter.
    """
    module.synchronize()
    check_finite_metrics(module.stats.means(), module.kimg)
    names, parameters = zip(*module.named_parameters(), strict=True)
    norms = torch.stack([n.cpu() for n in torch._foreach_norm([p.detach() for p in parameters])])
    if not torch.isfinite(norms).all():
        wrong = int((~torch.isfinite(norms)).nonzero()[0])
        check_finite_metrics({f"the norm of {names[wrong]}": float(norms[wrong])}, module.kimg)


class ProgressBar(Callback):
    """A progress bar on a terminal, otherwise a line at each log entry.

    Args:
        training_log: whose latest metrics are shown.
    """

    def __init__(self, *, training_log: TrainingLog) -> None:
        self.training_log = training_log
        self._bar = ExitStack()
        self._show: ShowProgress | None = None
        self._begin = (0.0, 0)
        self._shown: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Open the bar."""
        self._shown = self.training_log.metrics
        self._begin = (time.perf_counter(), module.images_seen)
        if console.is_terminal:
            bar = progress_bar(
                "kimg", module.total_images / 1000, completed=round(module.kimg), transient=False
            )
            self._show = self._bar.enter_context(bar)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar; without a terminal, print a line for new metrics."""
        new = self.training_log.metrics is not self._shown
        self._shown = self.training_log.metrics
        if self._show is not None:
            self._show(module.kimg, describe(self._shown))
        elif new:
            say(f"{module.kimg:8.1f} kimg  {describe(self._shown)}  {self._left(module)}")

    def teardown(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:  # type: ignore[override]
        """Close the bar."""
        self._bar.close()
        self._show = None

    def _left(self, module: AdversarialModule) -> str:
        shown = module.images_seen - self._begin[1]
        missing = max(module.total_images - module.images_seen, 0)
        seconds = (time.perf_counter() - self._begin[0]) * missing / shown
        return f"{seconds / 60:.1f} min left"


def describe(metrics: dict[str, float]) -> str:
    """Return speed and losses in one line."""
    if not metrics:
        return ""
    losses = "  ".join(
        f"{name.removeprefix('loss/')} {value:.3f}"
        for name, value in metrics.items()
        if name.startswith("loss/")
    )
    return f"{metrics['speed/img_per_s']:.0f} img/s  {losses}"
