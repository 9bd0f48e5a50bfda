"""The progress bar: kimg, img/s, losses and time left."""

import time
from typing import Any

from lightning import Callback, Trainer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gan_lab.console import console
from gan_lab.training.callbacks.training_log import TrainingLog
from gan_lab.training.module import AdversarialModule


class ProgressBar(Callback):
    """A bar on a terminal, a line at each log entry elsewhere.

    Args:
        training_log: whose latest metrics are shown.
    """

    def __init__(self, *, training_log: TrainingLog) -> None:
        self.training_log = training_log
        self._progress: Progress | None = None
        self._task: Any = None
        self._begin = (0.0, 0)
        self._shown: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Open the bar on rank zero."""
        self._shown = self.training_log.metrics
        self._begin = (time.perf_counter(), module.images_seen)
        if not trainer.is_global_zero or not console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.fields[kimg]} kimg"),
            BarColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(
            "",
            total=module.total_images,
            completed=module.images_seen,
            kimg=f"{module.kimg:.1f}",
            metrics="",
        )
        self._progress.start()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; off a terminal, print a line when there are new metrics."""
        new = self.training_log.metrics is not self._shown
        self._shown = self.training_log.metrics
        if self._progress is not None:
            self._progress.update(
                self._task,
                completed=module.images_seen,
                kimg=f"{module.kimg:.1f}",
                metrics=describe(self._shown),
            )
        elif new and trainer.is_global_zero:
            console.print(
                f"{module.kimg:8.1f} kimg  {describe(self._shown)}  {self._left(module)}",
                soft_wrap=True,
            )

    def teardown(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:  # type: ignore[override]
        """Close the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

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
