"""Metrics of features, for protocols: what each needs of real and generated images, and its value."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import FeatureSet, Form, Needs
from gan_lab.metrics.features import Extractor
from gan_lab.metrics.functional import (
    density_coverage,
    diversity,
    frechet_distance_from_statistics,
    gaussian_statistics,
    inception_score,
    kernel_distance,
    nearest,
    precision_recall,
    prepared,
    reject_small_sample,
    squared_radii,
)
from gan_lab.metrics.sources import ImageSource, label_difference


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One result.

    Attributes:
        key: name and number of images: "fid50k_full".
        value: the metric.
        uncertainty: of the kind `uncertainty_kind`; None if unknown.
        uncertainty_kind: "se", standard error of the mean, or "std", deviation over parts.
        detail: further results by name: numbers, texts and lists.
    """

    key: str
    value: float
    uncertainty: float | None = None
    uncertainty_kind: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MetricContext:
    """Context of a metric: extractor, numbers of images, sources.

    Attributes:
        extractor: of the features.
        num_fake: generated images.
        num_real: real images for statistics; 0 without real images, and while unknown.
        num_real_features: real images whose features are kept, likewise.
        all_real: whether statistics use all real images.
        fake: the generated images, once known.
        real: the real images, if any, once known.
        held_out: those of `reference_split`, if any, once known.
    """

    extractor: Extractor
    num_fake: int
    num_real: int
    num_real_features: int
    all_real: bool
    fake: ImageSource | None = None
    real: ImageSource | None = None
    held_out: ImageSource | None = None

    def key(self, kind: str, output: str, short: str, *, form: Form | None) -> str:
        """Name a metric by its usual name if it has one, else by the extractor, with the numbers of images.

        `fid50k_full` is of 50,000 generated images against all real ones, `fid50k` against 50,000 of more,
        `fid50k_real10k` against 10,000 of more. Without a usual name it is `fd_digits_1437`.

        Args:
            kind: of metric, as in `Extractor.names`.
            output: of the extractor.
            short: prefix of the extractor's name for metrics without a usual name.
            form: needed of the real images, or None.
        """
        name = self.extractor.names.get((kind, output))
        if name is None:
            layer = {"features": "", "logits": ""}.get(output, output.removeprefix("features"))
            name = f"{short}_{self.extractor.short}{layer}_"
        return f"{name}{in_thousands(self.num_fake)}{self._real_suffix(form)}"

    def _real_suffix(self, form: Form | None) -> str:
        if form is None:
            return ""
        number = self.num_real if form == "statistics" else self.num_real_features
        if self.all_real and number == self.num_real:
            return "_full"
        return "" if number == self.num_fake else f"_real{in_thousands(number)}"


def in_thousands(number: int) -> str:
    """Return 10000 as "10k", 1437 as "1437"."""
    return f"{number // 1000}k" if number and number % 1000 == 0 else str(number)


MOST_IN_SUBSET = 1000  # images, usual for KID


class ProtocolMetric(ABC):
    """A kind of metric; the Hydra nodes of a protocol's `metrics`.

    Attributes:
        real_form: in which form it needs the output of real images, or None.
        fake_form: the same of generated images.
        real: needed outputs of the real images, and their form.
        fake: the same of generated images.
        has_references: whether `references` returns any.
        needs_discriminator: whether it uses the discriminator, if that is available.

    Args:
        output: of the extractor.
        key: name of the metric in results; None for the default.
    """

    kind: str
    short: str
    real_form: Form | None = None
    fake_form: Form | None = None
    has_references = False
    needs_discriminator = False

    def __init__(self, *, output: str = "features", key: str | None = None) -> None:
        self.output = output
        self.real: Needs = {output: self.real_form} if self.real_form else {}
        self.fake: Needs = {output: self.fake_form} if self.fake_form else {}
        self._key = key

    def key(self, context: MetricContext) -> str:
        """Name the metric."""
        if self._key:
            return self._key
        return context.key(self.kind, self.output, self.short, form=self.real.get(self.output))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the metric, for results."""
        return {key.lstrip("_"): value for key, value in vars(self).items()}

    def check(self, context: MetricContext) -> None:
        """Check before anything is extracted.

        Raises:
            InputError: with what to do.
        """
        for output in {*self.real, *self.fake}:
            if output not in context.extractor.outputs:
                raise InputError(
                    f"metrics.{self.kind}: {context.extractor.name} has no output {output!r}; it has "
                    f"{', '.join(context.extractor.outputs)}"
                )

    @abstractmethod
    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        """Compute the metric; `real` is None only if not needed."""

    def references(
        self, real: FeatureSet | None, other: FeatureSet | None, context: MetricContext
    ) -> list[MetricValue]:
        """Compute reference values for the metric, once; by default none.

        Args:
            real: the real images; None if no metric needs their features.
            other: of another split, evaluated as if generated; None without.
            context: the context.
        """
        return []


class Frechet(ProtocolMetric):
    """Frechet distance: FID with Inception's features, sFID with its spatial ones.

    Heusel et al. 2017, https://arxiv.org/abs/1706.08500; sFID: Nash et al. 2021, https://arxiv.org/abs/2103.03841.

    Args:
        output: of the extractor.
        key: of the metric; None for the default.
        allow_singular: allow sets with no more images than features, whose distance is mostly bias.
    """

    kind, short = "frechet", "fd"
    real_form = fake_form = "statistics"
    has_references = True

    def __init__(
        self, *, output: str = "features", key: str | None = None, allow_singular: bool = False
    ) -> None:
        super().__init__(output=output, key=key)
        self._allow_singular = allow_singular

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if self._allow_singular:
            return
        width = context.extractor.outputs[self.output]
        reject_small_sample("generated", num=context.num_fake, width=width)
        reject_small_sample("real", num=context.num_real, width=width)

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        value = frechet_distance_from_statistics(
            real.gaussian(self.output), fake.gaussian(self.output)
        )
        width = context.extractor.outputs[self.output]
        singular = min(real.count, fake.count) <= width
        detail = {"singular": f"no more images than the {width} features"} if singular else {}
        return [MetricValue(key=self.key(context), value=value.item(), detail=detail)]

    def references(
        self, real: FeatureSet | None, other: FeatureSet | None, context: MetricContext
    ) -> list[MetricValue]:
        """Evaluate the other split: the metric of a generator that draws from it."""
        if other is None:
            return []
        found = self.compute(real, other, context)
        return [MetricValue(key=f"{one.key}_real", value=one.value) for one in found]


class ClassFrechet(ProtocolMetric):
    """Frechet distance of each class, and their mean.

    Args:
        output: of the extractor.
        key: of the mean; None for the default.
        allow_singular: allow classes with no more images than features, whose distance is mostly bias.
    """

    kind, short = "class_frechet", "fd_class"
    real_form = fake_form = "features"

    def __init__(
        self, *, output: str = "features", key: str | None = None, allow_singular: bool = False
    ) -> None:
        super().__init__(output=output, key=key)
        self._allow_singular = allow_singular

    def check(self, context: MetricContext) -> None:
        super().check(context)
        for source in (context.real, context.fake):
            if source is not None and not source.num_classes:
                raise InputError(
                    f"metrics of each class: {source.name} has no labels; leave them out of the protocol"
                )
        if (
            context.real
            and context.fake
            and (difference := label_difference(context.real, context.fake))
        ):
            raise InputError(
                f"metrics of each class: {difference}; compare images of the same classes"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        width = context.extractor.outputs[self.output]
        names = real.source.class_names
        values: dict[str, float] = {}
        for label, name in enumerate(names):
            sets = [images.of_class(self.output, label) for images in (real, fake)]
            fewest = min(map(len, sets))
            if fewest < 2 or (fewest <= width and not self._allow_singular):
                raise InputError(
                    f"class {name} has {len(sets[0])} real and {len(sets[1])} generated images for {width} features; "
                    "give more, or set allow_singular=true, and the distance is mostly bias"
                )
            values[name] = frechet_distance_from_statistics(
                *(gaussian_statistics(features) for features in sets)
            ).item()
        mean = sum(values.values()) / len(values)
        detail = {"classes": values, "singular_allowed": self._allow_singular}
        return [MetricValue(key=self.key(context), value=mean, detail=detail)]


class Kernel(ProtocolMetric):
    """Kernel distance (KID with Inception's features): unbiased, hence for small sets; with its standard error.

    Binkowski et al. 2018, https://arxiv.org/abs/1801.01401.

    Args:
        output: of the extractor.
        key: of the metric; None for the default.
        subsets: number of random subsets.
        subset_size: images of each set in a subset; None takes half of the smaller set, at most 1,000.
        seed: of the subsets.
    """

    kind, short = "kernel", "kd"
    real_form = fake_form = "features"

    def __init__(
        self,
        *,
        output: str = "features",
        key: str | None = None,
        subsets: int = 100,
        subset_size: int | None = MOST_IN_SUBSET,
        seed: int = 2020,
    ) -> None:
        super().__init__(output=output, key=key)
        self._subsets, self._subset_size, self._seed = subsets, subset_size, seed

    def check(self, context: MetricContext) -> None:
        super().check(context)
        fewest = min(context.num_fake, context.num_real_features)
        size = self._size(fewest)
        if fewest < size:
            raise InputError(
                f"the kernel distance takes subsets of {size}, and there are {context.num_fake} generated and "
                f"{context.num_real_features} real images; give more, or take protocol=kid_small (in training "
                "metrics=kid_small)"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        size = self._size(self._fewest(real, fake))
        mean, deviation = kernel_distance(
            real.on_device(self.output),
            fake.on_device(self.output),
            subsets=self._subsets,
            subset_size=size,
            seed=self._seed,
        )
        return [
            MetricValue(
                key=self.key(context),
                value=mean.item(),
                uncertainty=deviation.item() * self._error_share(real, fake),
                uncertainty_kind="se",
                detail={
                    "std": deviation.item(),
                    "subsets": self._subsets,
                    "subset_size": size,
                },
            )
        ]

    def _error_share(self, real: FeatureSet, fake: FeatureSet) -> float:
        """Standard error of the mean over subsets, in units of their deviation.

        Subsets of n of N images share n / N of the variance, which averaging subsets does not remove.
        """
        fewest = self._fewest(real, fake)
        shared = self._size(fewest) / fewest
        return (shared + (1 - shared) / self._subsets) ** 0.5

    def _fewest(self, real: FeatureSet, fake: FeatureSet) -> int:
        return min(len(images.features[self.output]) for images in (real, fake))

    def _size(self, fewest: int) -> int:
        """Images in a subset, where the smaller set has `fewest`."""
        if self._subset_size is not None:
            return self._subset_size
        return min(MOST_IN_SUBSET, max(2, fewest // 2))


class InceptionScore(ProtocolMetric):
    """Inception Score, with its deviation over parts; needs no real images.

    Salimans et al. 2016, https://arxiv.org/abs/1606.03498.

    Args:
        output: of the extractor.
        key: of the metric; None for the default.
        splits: how many parts.
        seed: of the order of the images.
    """

    kind, short = "score", "score"
    fake_form = "features"

    def __init__(
        self, *, output: str = "logits", key: str | None = None, splits: int = 10, seed: int = 2020
    ) -> None:
        super().__init__(output=output, key=key)
        self._splits, self._seed = splits, seed

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if context.num_fake < self._splits:
            raise InputError(
                f"a score over {self._splits} parts of {context.num_fake} images; give more, or set "
                "protocol.metrics.score.splits=1"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        mean, deviation = inception_score(
            fake.features[self.output], splits=self._splits, seed=self._seed
        )
        return [
            MetricValue(
                key=self.key(context),
                value=mean.item(),
                uncertainty=deviation.item(),
                uncertainty_kind="std",
                detail={"splits": self._splits},
            )
        ]


_SHOWN = 16  # pairs of a generated and its nearest real image in a result


class NeighborMetric(ProtocolMetric):
    """A metric, or pair of metrics, of k-nearest neighborhoods of both sets, named in `kinds`."""

    kinds: tuple[str, str]
    real_form = fake_form = "features"

    def __init__(self, *, output: str, key: str | None, k: int) -> None:
        super().__init__(output=output, key=key)
        self.k = k

    def check(self, context: MetricContext) -> None:
        super().check(context)
        fewest = min(context.num_fake, context.num_real_features)
        if fewest <= self.k:
            raise InputError(
                f"{context.num_fake} generated and {context.num_real_features} real images for neighborhoods of "
                f"k={self.k}; give more than {self.k} of each"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        values = self._pair(real.on_device(self.output), fake.on_device(self.output))
        return [
            MetricValue(
                key=f"{self._key}_{kind}"
                if self._key
                else context.key(kind, self.output, kind, form="features"),
                value=value.item(),
                detail={"k": self.k},
            )
            for kind, value in zip(self.kinds, values, strict=True)
        ]

    def _pair(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the metrics named in `kinds`, of features [N, D] and [M, D]."""
        raise AssertionError(f"{type(self).__name__} has no pair of metrics")


class PrecisionRecall(NeighborMetric):
    """Precision: share of generated images in the real manifold; recall: share of real images in the generated one.

    Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991.

    Args:
        output: of the extractor.
        key: prefix of both metrics' names; None for the default.
        k: neighbors within a ball; 3 in the paper.
    """

    kind, short = "precision", "precision"
    kinds = ("precision", "recall")

    def __init__(self, *, output: str = "features", key: str | None = None, k: int = 3) -> None:
        super().__init__(output=output, key=key, k=k)

    def _pair(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return precision_recall(real, fake, k=self.k)


class DensityCoverage(NeighborMetric):
    """Density and coverage: like precision and recall, but robust to outliers.

    Naeem et al. 2020, https://arxiv.org/abs/2002.09797.

    Args:
        output: of the extractor.
        key: prefix of both metrics' names; None for the default.
        k: neighbors within a ball; 5 in the paper.
    """

    kind, short = "density", "density"
    kinds = ("density", "coverage")

    def __init__(self, *, output: str = "features", key: str | None = None, k: int = 5) -> None:
        super().__init__(output=output, key=key, k=k)

    def _pair(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return density_coverage(real, fake, k=self.k)


class Memorization(NeighborMetric):
    """Share of generated images that are nearer to a real one than real images are to each other.

    "Nearer" means below the `quantile` of the real images' distances to their nearest neighbor. A generator of the
    same distribution gets about `quantile`, one that repeats training images 1. Duplicates do not matter; the real
    images should be those of training.

    Args:
        output: of the extractor.
        key: of the metric; None for the default.
        quantile: of the real images' distances.
    """

    kind, short = "memorized", "memorized"

    def __init__(
        self, *, output: str = "features", key: str | None = None, quantile: float = 0.01
    ) -> None:
        super().__init__(output=output, key=key, k=1)
        if not 0 < quantile < 1:
            raise InputError(f"metrics.memorization.quantile={quantile} must lie between 0 and 1")
        self._quantile = quantile

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        ours, theirs = fake.on_device(self.output), real.on_device(self.output)
        distances, which = nearest(ours, theirs)
        among_real = squared_radii(prepared(theirs, theirs, 1)[0], 1).sqrt()
        threshold = among_real.double().quantile(self._quantile)
        order = distances.argsort()[:_SHOWN]
        return [
            MetricValue(
                key=self.key(context),
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
        key: of the metric; None for the default.
    """

    kind, short = "diversity", "diversity"
    real_form = fake_form = "features"

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        ours, theirs = (diversity(images.on_device(self.output)).item() for images in (fake, real))
        return [MetricValue(key=self.key(context), value=ours, detail={"real": theirs})]


class ClassAccuracy(ProtocolMetric):
    """Share of the generated images that the extractor classifies as the class that they were generated for.

    It must be a classifier of the data's classes, in the same order. It does not measure variety. Unconditional
    generators have no such metric.

    Args:
        output: of the extractor.
        key: of the metric; None for the default.
    """

    kind, short = "accuracy", "accuracy"
    fake_form = "features"

    def __init__(self, *, output: str = "logits", key: str | None = None) -> None:
        super().__init__(output=output, key=key)

    def check(self, context: MetricContext) -> None:
        super().check(context)
        known = context.extractor.outputs[self.output]
        if context.fake is not None and context.fake.num_classes not in (0, known):
            raise InputError(
                f"{context.extractor.name} knows {known} classes and {context.fake.name} has "
                f"{context.fake.num_classes}: class accuracy takes a classifier of the same classes"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        if fake.labels is None:
            return []
        found = fake.features[self.output].argmax(1)
        right = (found == fake.labels).double()
        error = right.std(correction=0) / len(right) ** 0.5
        return [
            MetricValue(
                key=self.key(context),
                value=right.mean().item(),
                uncertainty=error.item(),
                uncertainty_kind="se",
            )
        ]


class Modes(ProtocolMetric):
    """How many of the extractor's modes were generated, and how uniformly.

    `modes`: how many at least once; `kl_modes`: KL(generated || uniform) over modes, in nats, of which even a perfect
    generator has about (modes - 1) / (2 images) for its finite sample. Metz et al. 2017, https://arxiv.org/abs/1611.02163.

    Args:
        output: of the extractor, [N, 1], the number of the mode.
        num_modes: their total number.
    """

    kind, short = "kl_modes", "kl_modes"
    fake_form = "features"

    def __init__(self, *, output: str = "modes", num_modes: int = 1000) -> None:
        super().__init__(output=output, key="kl_modes")
        self._num_modes = num_modes

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if context.num_fake < self._num_modes:
            raise InputError(
                f"num_fake={context.num_fake} cannot cover {self._num_modes} modes; give 26000, as is usual"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        modes = fake.features[self.output][:, 0].round().long()
        counts = modes.bincount(minlength=self._num_modes)
        return [
            MetricValue(key="modes", value=float((counts > 0).sum())),
            MetricValue(key="kl_modes", value=divergence_from_uniform(counts)),
        ]


def divergence_from_uniform(counts: Tensor) -> float:
    """Return KL(counts / N || uniform) in nats; missing modes add nothing."""
    p = counts.double() / counts.sum()
    return float(torch.special.xlogy(p, p * len(counts)).sum())
