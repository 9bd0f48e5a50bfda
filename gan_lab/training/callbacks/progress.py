"""Training progress: kimg, img/s, losses and time left."""

import time
from contextlib import ExitStack
from typing import Any

from lightning import Callback, Trainer

from gan_lab.console import ShowProgress, console, progress_bar, say
from gan_lab.training.callbacks.training_log import TrainingLog
from gan_lab.training.module import AdversarialModule


class ProgressBar(Callback):
    """A progress bar on a terminal, a line at each log entry elsewhere.

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
        """Move the bar; off a terminal, print a line when there are new metrics."""
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
