"""Metrics as torchmetrics classes for any training loop, and torchmetrics classes as metrics of a protocol.

They take features, not images, and accumulate over batches and processes. `metrics=` and `gan-lab evaluate` use the
same functions directly.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.functional import (
    density_coverage,
    frechet_distance_from_statistics,
    inception_score,
    kernel_distance,
    precision_recall,
)


class FrechetDistance(Metric):
    """`frechet_distance` of features in batches, keeping only float64 sums.

    Args:
        width: of the features.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(self, *, width: int) -> None:
        super().__init__()
        for which in ("real", "fake"):
            self.add_state(f"{which}_sum", torch.zeros(width).double(), "sum")
            self.add_state(f"{which}_squares", torch.zeros(width, width).double(), "sum")
            self.add_state(f"{which}_count", torch.tensor(0), "sum")

    def update(self, features: Tensor, *, real: bool) -> None:
        """Add features [N, width] of real or of generated images."""
        which = "real" if real else "fake"
        features = features.double()
        setattr(self, f"{which}_sum", getattr(self, f"{which}_sum") + features.sum(0))
        squares = getattr(self, f"{which}_squares") + features.T @ features
        setattr(self, f"{which}_squares", squares)
        setattr(self, f"{which}_count", getattr(self, f"{which}_count") + len(features))

    def compute(self) -> Tensor:
        """Return the distance, a float64 scalar."""
        return frechet_distance_from_statistics(self._gaussian("real"), self._gaussian("fake"))

    def _gaussian(self, which: str) -> tuple[Tensor, Tensor]:
        total, squares, count = (getattr(self, f"{which}_{k}") for k in ("sum", "squares", "count"))
        mean = total / count
        return mean, (squares - count * torch.outer(mean, mean)) / (count - 1)


class PairMetric(Metric, ABC):
    """Stores all features of both sets."""

    is_differentiable = False
    full_state_update = False
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("real", [], "cat")
        self.add_state("fake", [], "cat")

    def update(self, features: Tensor, *, real: bool) -> None:
        """Add features [N, D] of real or of generated images."""
        (self.real if real else self.fake).append(features)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return both metrics, float64 scalars."""
        return self._of(dim_zero_cat(self.real), dim_zero_cat(self.fake))

    @abstractmethod
    def _of(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]: ...


class KernelDistance(PairMetric):
    """`kernel_distance`: mean and deviation over subsets.

    Args:
        subsets: how many.
        subset_size: features of each set in a subset.
    """

    higher_is_better = False

    def __init__(self, *, subsets: int = 100, subset_size: int = 1000) -> None:
        super().__init__()
        self._subsets, self._subset_size = subsets, subset_size

    def _of(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return kernel_distance(real, fake, subsets=self._subsets, subset_size=self._subset_size)


class PrecisionRecall(PairMetric):
    """`precision_recall`.

    Args:
        k: neighbors within a ball.
    """

    higher_is_better = True

    def __init__(self, *, k: int = 3) -> None:
        super().__init__()
        self._k = k

    def _of(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return precision_recall(real, fake, k=self._k)


class DensityCoverage(PairMetric):
    """`density_coverage`.

    Args:
        k: neighbors within a ball.
    """

    higher_is_better = True

    def __init__(self, *, k: int = 5) -> None:
        super().__init__()
        self._k = k

    def _of(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return density_coverage(real, fake, k=self._k)


class InceptionScore(Metric):
    """`inception_score`: mean and deviation over parts.

    Args:
        splits: number of parts.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    logits: list[Tensor]

    def __init__(self, *, splits: int = 10) -> None:
        super().__init__()
        self._splits = splits
        self.add_state("logits", [], "cat")

    def update(self, logits: Tensor) -> None:
        """Add logits [N, classes] of generated images."""
        self.logits.append(logits)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return both, float64 scalars."""
        return inception_score(dim_zero_cat(self.logits), splits=self._splits)


class TorchMetric(ProtocolMetric):
    """A torchmetrics metric of features as a metric of protocols.

    The metric has `update(features, real=)`, with features [N, width], and `compute()`, of one value or several.

    Args:
        metric: an object, or its Hydra node.
        keys: of the metrics, one for each computed value, used unchanged.
        output: of the extractor.

    Raises:
        InputError: for an object that is not a torchmetrics metric, and without keys.
    """

    kind, short = "torchmetrics", "torchmetrics"
    real_form = fake_form = "features"

    def __init__(self, *, metric: Metric, keys: Sequence[str], output: str = "features") -> None:
        if not isinstance(metric, Metric) or not keys:
            raise InputError(
                f"metrics: {type(metric).__name__} with keys={list(keys)}; give a torchmetrics metric and a key for "
                "each of its values"
            )
        super().__init__(output=output, key=keys[0])
        self._metric, self._keys = metric, list(keys)
        # every process has all features
        metric.sync_on_compute = False

    @property
    def settings(self) -> dict[str, Any]:
        kind = type(self._metric)
        return {"metric": f"{kind.__module__}.{kind.__qualname__}", "output": self.output}

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        metric = self._metric.to(real.device)
        metric.reset()
        metric.update(real.on_device(self.output), real=True)
        metric.update(fake.on_device(self.output), real=False)
        found = metric.compute()
        values = [found] if isinstance(found, Tensor) else list(found)
        metric.reset()
        if len(values) != len(self._keys):
            raise InputError(
                f"metrics: {type(metric).__name__} computes {len(values)} values for keys={self._keys}; give a key for "
                "each"
            )
        pairs = zip(self._keys, values, strict=True)
        return [MetricValue(key=key, value=float(value)) for key, value in pairs]
