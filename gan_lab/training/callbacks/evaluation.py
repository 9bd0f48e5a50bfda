"""Metrics of the moving average during training."""

import time
from typing import Any

import torch
from lightning import Callback, Trainer

from gan_lab.config import suggestion
from gan_lab.console import warn
from gan_lab.errors import InputError
from gan_lab.metrics.base import Metrics
from gan_lab.metrics.feature_metrics import Frechet
from gan_lab.metrics.features.dinov2 import LEARNED_ON, DINOv2
from gan_lab.metrics.protocol import Protocol
from gan_lab.metrics.sources import GanImages
from gan_lab.sampling.gan import Gan
from gan_lab.training.callbacks.training_log import check_finite, check_interval, log
from gan_lab.training.module import AdversarialModule

UNBIASED_IMAGES = 10_000  # images for the metrics of a second feature network


class Evaluation(Callback):
    """Evaluates samples of the moving average every `every_kimg` and at the end.

    Its share of the time so far is logged, too.

    Attributes:
        values: the latest metrics, with the `metrics/` prefix.
        unbiased: additional metrics of another network, if those of D's own feature network are biased.

    Args:
        metrics: to compute.
        every_kimg: thousands of images between two evaluations.
        seed: of the samples, the same at each evaluation.
        objective: key of metrics.jsonl by which a sweep compares runs; an unknown metric ends the run at its first
            evaluation.
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
        self.unbiased: Protocol | None = None
        self._spent = 0.0
        self._began = time.perf_counter()

    def setup(self, trainer: Trainer, module: AdversarialModule, stage: str) -> None:  # type: ignore[override]
        """Get weights and real statistics before the first step."""
        # before the best value is restored, which depends on the metric
        self.metrics.prepare(trainer.datamodule)  # type: ignore[attr-defined]
        self.unbiased = self._unbiased_metrics(module.discriminator.features_of, trainer)
        self._began = time.perf_counter()

    def _unbiased_metrics(self, learned: str | None, trainer: Trainer) -> Protocol | None:
        """Warn if D's feature network biases the metrics; return additional DINOv2 metrics if its weights are there."""
        extractor = str(self.metrics.provenance.get("extractor"))
        if learned == LEARNED_ON and "dinov2" in extractor:
            warn(
                f"D sees DINOv2's features, as {extractor} does: these metrics overestimate quality; "
                "compute others, too (gan-lab evaluate features=inception)"
            )
        if learned != "ImageNet" or "inception" not in extractor:
            return None
        features = DINOv2()
        there = features.published.usual_path.is_file()
        beside = (
            f"{features.name} is computed as well"
            if there
            else f"gan-lab prefetch features=dinov2 gets {features.name}, which would be computed as well"
        )
        warn(
            f"D sees features of {learned}, as Inception does: FID overestimates quality (Kynkaanniemi et "
            f"al. 2023, https://arxiv.org/abs/2203.06026); {beside}"
        )
        if not there:
            return None
        unbiased = Protocol(
            name="unbiased", features=features, metrics={"fd": Frechet()}, num_fake=UNBIASED_IMAGES
        )
        unbiased.prepare(trainer.datamodule)  # type: ignore[attr-defined]
        return unbiased

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate when due.

        Raises:
            InputError: for an unknown objective.
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
            if self.unbiased is not None:
                found |= self.unbiased.compute(GanImages(gan, seed=self.seed))
        # rounding may differ between ranks, which must agree on the best
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
            raise InputError(f"objective={wanted} is not a metric of this run{hint}")

    @property
    def best(self) -> tuple[str, bool] | None:
        """The key that chooses the best checkpoint and its direction, or None."""
        if not self.metrics.best:
            return None
        return f"metrics/{self.metrics.best}", self.metrics.mode == "max"
