"""Metrics of who lies near whom in the space of features: quality, variety, memory; and of classes."""

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric
from gan_lab.metrics.feature_set import FeatureSet, Needs
from gan_lab.metrics.manifold import (
    density_coverage,
    diversity,
    nearest,
    precision_recall,
    prepared,
    squared_radii,
)

_SHOWN = 16  # pairs of a generated and its nearest real image that a result names


class _OfBoth(ProtocolMetric):
    """Needs the features of both sets."""

    def __init__(self, *, output: str, key: str | None, k: int) -> None:
        super().__init__(output=output, key=key)
        self.real: Needs = {output: "features"}
        self.fake: Needs = {output: "features"}
        self.k = k

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        fewest = min(setting.num_fake, setting.num_real_features)
        if fewest <= self.k:
            raise InputError(
                f"{setting.num_fake} generated and {setting.num_real_features} real images for neighbourhoods of "
                f"k={self.k}; give more than {self.k} of each"
            )

    def _two(
        self, setting: MetricContext, kinds: tuple[str, str], values: tuple[Tensor, Tensor]
    ) -> list[MetricValue]:
        keys = [
            f"{self._key}_{kind}"
            if self._key
            else setting.key(kind, self.output, kind, form="features")
            for kind in kinds
        ]
        return [
            MetricValue(key=key, value=value.item(), detail={"k": self.k})
            for key, value in zip(keys, values, strict=True)
        ]


class PrecisionRecall(_OfBoth):
    """Share of generated images that look real, and share of real images that the generator covers.

    Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991.

    Args:
        output: of the extractor.
        key: beginning of both metrics' names; None makes them.
        k: neighbours within a ball; 3 in the paper.
    """

    kind, short = "precision", "precision"

    def __init__(self, *, output: str = "features", key: str | None = None, k: int = 3) -> None:
        super().__init__(output=output, key=key, k=k)

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        values = precision_recall(
            real.on_device(self.output), fake.on_device(self.output), k=self.k
        )
        return self._two(setting, ("precision", "recall"), values)


class DensityCoverage(_OfBoth):
    """The same less moved by single odd images.

    Naeem et al. 2020, https://arxiv.org/abs/2002.09797.

    Args:
        output: of the extractor.
        key: beginning of both metrics' names; None makes them.
        k: neighbours within a ball; 5 in the paper.
    """

    kind, short = "density", "density"

    def __init__(self, *, output: str = "features", key: str | None = None, k: int = 5) -> None:
        super().__init__(output=output, key=key, k=k)

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        values = density_coverage(
            real.on_device(self.output), fake.on_device(self.output), k=self.k
        )
        return self._two(setting, ("density", "coverage"), values)


class Memorisation(_OfBoth):
    """Share of generated images that lie nearer to a real one than real images do to each other.

    "Nearer" is below the distance that a share `quantile` of the real images has to the nearest other one. A generator
    that draws from the same distribution gets about `quantile`, one that repeats training images 1. Real images that
    are there twice raise neither; the real images should be those of training.

    Args:
        output: of the extractor.
        key: of the metric; None makes it.
        quantile: share of real images that counts as too near.
    """

    kind, short = "memorised", "memorised"

    def __init__(
        self, *, output: str = "features", key: str | None = None, quantile: float = 0.01
    ) -> None:
        super().__init__(output=output, key=key, k=1)
        if not 0 < quantile < 1:
            raise InputError(f"metrics.memorisation.quantile={quantile} must lie between 0 and 1")
        self._quantile = quantile

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        ours, theirs = fake.on_device(self.output), real.on_device(self.output)
        distances, which = nearest(ours, theirs)
        among_real = squared_radii(prepared(theirs, theirs, 1)[0], 1).sqrt()
        threshold = among_real.double().quantile(self._quantile)
        order = distances.argsort()[:_SHOWN]
        return [
            MetricValue(
                key=self.key(setting),
                value=(distances < threshold).double().mean().item(),
                detail={
                    "quantile": self._quantile,
                    "threshold": threshold.item(),
                    "median_distance": distances.median().item(),
                    "median_distance_among_real": among_real.median().item(),
                    "nearest": [
                        {
                            "generated": int(fake.rows[i]),
                            "real": int(real.rows[which[i]]),
                            "distance": distances[i].item(),
                        }
                        for i in order.tolist()
                    ],
                },
            )
        ]


class Diversity(ProtocolMetric):
    """Mean distance between two generated images, and as a detail between two real ones.

    Args:
        output: of the extractor.
        key: of the metric; None makes it.
    """

    kind, short = "diversity", "diversity"

    def __init__(self, *, output: str = "features", key: str | None = None) -> None:
        super().__init__(output=output, key=key)
        self.real: Needs = {output: "features"}
        self.fake: Needs = {output: "features"}

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        ours, theirs = (diversity(images.on_device(self.output)).item() for images in (fake, real))
        return [MetricValue(key=self.key(setting), value=ours, detail={"real": theirs})]


class ClassAccuracy(ProtocolMetric):
    """Share of the generated images that the extractor takes for the class that was asked for.

    Its classes have to be those of the data, in the same order: a classifier of these data. It says nothing of variety.
    A generator without classes has no such metric.

    Args:
        output: of the extractor.
        key: of the metric; None makes it.
    """

    kind, short = "accuracy", "accuracy"

    def __init__(self, *, output: str = "logits", key: str | None = None) -> None:
        super().__init__(output=output, key=key)
        self.real: Needs = {}
        self.fake: Needs = {output: "features"}

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        known = setting.extractor.outputs[self.output]
        if setting.fake is not None and setting.fake.num_classes not in (0, known):
            raise InputError(
                f"{setting.extractor.name} knows {known} classes and {setting.fake.name} has "
                f"{setting.fake.num_classes}: class accuracy takes a classifier of the same classes"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        if fake.labels is None:
            return []
        found = fake.features[self.output].argmax(1)
        right = (found == fake.labels).double()
        error = right.std(correction=0) / len(right) ** 0.5
        return [
            MetricValue(
                key=self.key(setting),
                value=right.mean().item(),
                uncertainty=error.item(),
                uncertainty_kind="se",
            )
        ]


class Modes(ProtocolMetric):
    """How many of the extractor's modes were generated, and how evenly.

    `modes`: how many at least once; `kl_modes`: KL(generated || uniform) over modes, in nats, of which even a perfect
    generator has about (modes - 1) / (2 images) for its finite sample. Metz et al. 2017, https://arxiv.org/abs/1611.02163.

    Args:
        output: of the extractor, [N, 1], the number of the mode.
        num_modes: how many there are.
    """

    kind, short = "kl_modes", "kl_modes"

    def __init__(self, *, output: str = "modes", num_modes: int = 1000) -> None:
        super().__init__(output=output, key="kl_modes")
        self.real: Needs = {}
        self.fake: Needs = {output: "features"}
        self._num_modes = num_modes

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        if setting.num_fake < self._num_modes:
            raise InputError(
                f"num_fake={setting.num_fake} cannot cover {self._num_modes} modes; give 26000, as is usual"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        modes = fake.features[self.output][:, 0].round().long()
        counts = modes.bincount(minlength=self._num_modes)
        return [
            MetricValue(key="modes", value=float((counts > 0).sum())),
            MetricValue(key="kl_modes", value=divergence_from_uniform(counts)),
        ]


def divergence_from_uniform(counts: Tensor) -> float:
    """Return KL(counts / N || uniform) in nats; modes that never occur add nothing."""
    p = counts.double() / counts.sum()
    return float(torch.special.xlogy(p, p * len(counts)).sum())
