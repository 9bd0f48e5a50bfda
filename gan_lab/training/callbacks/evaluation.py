"""Metrics of the moving average during training."""

import time
from typing import Any

import torch
from lightning import Callback, Trainer

from gan_lab.config import suggestion
from gan_lab.errors import InputError
from gan_lab.metrics.base import Metrics
from gan_lab.metrics.images import GanImages
from gan_lab.sampling.gan import Gan
from gan_lab.training.callbacks.training_log import check_finite, check_interval, log
from gan_lab.training.module import AdversarialModule


class Evaluation(Callback):
    """Computes metrics every `every_kimg` and at the end, on samples of the moving average.

    The share of the time since the start that went into it is logged, too.

    Attributes:
        values: the latest metrics, with the `metrics/` prefix.

    Args:
        metrics: what is computed.
        every_kimg: thousands of images between two evaluations.
        seed: of the samples, the same at each evaluation.
        objective: key of metrics.jsonl by which a sweep compares runs; one of metrics/ that nothing measures ends the
            run at its first evaluation.
    """

    def __init__(
        self, *, metrics: Metrics, every_kimg: float, seed: int = 0, objective: str | None = None
    ) -> None:
        check_interval("evaluation", every_kimg)
        self.metrics = metrics
        self.every_kimg = every_kimg
        self.seed = seed
        self.objective = objective
        self.values: dict[str, float] = {}
        self._spent = 0.0
        self._began = time.perf_counter()

    def setup(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:  # type: ignore[override]
        """Get weights and real statistics before the first step."""
        # and before a checkpoint's best value is restored, which is kept only where it is of the same metric
        self.metrics.prepare(trainer.datamodule)  # type: ignore[attr-defined]
        self._began = time.perf_counter()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate when it is time.

        Raises:
            InputError: for an objective that is none of the metrics.
        """
        if not module.due(self.every_kimg):
            return
        check_finite(module)
        begin = time.perf_counter()
        data = trainer.datamodule  # type: ignore[attr-defined]
        gan = Gan(
            module.generator_ema, spec=data.spec, sources=data.sources, label_rows=data.label_rows
        )
        with torch.random.fork_rng(devices=[]):
            found = self.metrics.compute(GanImages(gan, seed=self.seed))
        # the last bits may differ between ranks, which have to agree on what is the best
        found = trainer.strategy.broadcast(found)
        self.values = {f"metrics/{name}": value for name, value in found.items()}
        self._check_objective()
        now = time.perf_counter()
        self._spent += now - begin
        if self.values:
            times = {
                "time/evaluation_s": now - begin,
                "time/evaluation_share": self._spent / (now - self._began),
            }
            log(trainer, module, {**self.values, **times})

    def _check_objective(self) -> None:
        wanted = self.objective
        if wanted is not None and wanted.startswith("metrics/") and wanted not in self.values:
            there = list(self.values)
            hint = suggestion(wanted, there) or f"; there are {', '.join(there) or 'none'}"
            raise InputError(f"objective={wanted} is none of the metrics of this run{hint}")

    @property
    def best(self) -> tuple[str, bool] | None:
        """The key that chooses the best checkpoint and whether more of it is better, or None."""
        if not self.metrics.best:
            return None
        return f"metrics/{self.metrics.best}", self.metrics.mode == "max"
