"""Metrics by name: what each needs of real and of generated images, and what it makes of their features."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import FeatureSet, Form, Needs
from gan_lab.metrics.features.base import Extractor
from gan_lab.metrics.frechet import (
    frechet_distance_from_statistics,
    gaussian_statistics,
    refuse_small_sample,
)
from gan_lab.metrics.images import ImageSource, label_difference
from gan_lab.metrics.inception_score import inception_score
from gan_lab.metrics.kernel import kernel_distance


@dataclass(frozen=True, kw_only=True)
class MetricValue:
    """One result.

    Attributes:
        key: what it is of how many images: "fid50k_full".
        value: the metric.
        uncertainty: how far it may be off, by the kind of `uncertainty_kind`; None where that is not known.
        uncertainty_kind: "se", standard error of the mean, or "std", deviation over parts.
        detail: what else was found, by name; plain numbers, texts and lists.
    """

    key: str
    value: float
    uncertainty: float | None = None
    uncertainty_kind: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MetricContext:
    """What is known before anything is extracted.

    Attributes:
        extractor: in whose features.
        num_fake: generated images.
        num_real: real images whose statistics are taken; 0 without real images, and as long as that is not known.
        num_real_features: real images whose features are kept, likewise.
        all_real: whether statistics are of all real images that there are.
        fake: the generated images, once they are known.
        real: the real images, where there are any, once they are known.
    """

    extractor: Extractor
    num_fake: int
    num_real: int
    num_real_features: int
    all_real: bool
    fake: ImageSource | None = None
    real: ImageSource | None = None

    def key(self, kind: str, output: str, short: str, *, form: Form | None) -> str:
        """Name a metric: what others call it where it is that, else by the extractor; with the numbers of images.

        `fid50k_full` is of 50,000 generated images against all real ones, `fid50k` against 50,000 of more,
        `fid50k_real10k` against 10,000 of more. What has no name among others is `fd_digits_1437`.

        Args:
            kind: of metric, as in `Extractor.names`.
            output: of the extractor.
            short: stands before the extractor's name where the metric has no name among others.
            form: of the real images that it is made with, None without.
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


class ProtocolMetric(ABC):
    """A kind of metric; the Hydra nodes of a protocol's `metrics`.

    Attributes:
        real: outputs of the real images that it needs, and in which form; empty where it needs none.
        fake: the same of generated images.
        has_references: whether `references` returns any.

    Args:
        output: of the extractor.
        key: name of the metric in results; None makes it of what is measured.
    """

    kind: str
    short: str
    real: Needs
    fake: Needs
    has_references = False

    def __init__(self, *, output: str, key: str | None = None) -> None:
        self.output = output
        self._key = key

    def key(self, setting: MetricContext) -> str:
        """Name the metric."""
        if self._key:
            return self._key
        return setting.key(self.kind, self.output, self.short, form=self.real.get(self.output))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the metric, for results."""
        return {key.lstrip("_"): value for key, value in vars(self).items()}

    def check(self, setting: MetricContext) -> None:
        """Refuse what cannot be measured, before anything is extracted.

        Raises:
            InputError: with the remedy.
        """
        for output in {*self.real, *self.fake}:
            if output not in setting.extractor.outputs:
                raise InputError(
                    f"metrics.{self.kind}: {setting.extractor.name} has no output {output!r}; it has "
                    f"{', '.join(setting.extractor.outputs)}"
                )

    @abstractmethod
    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        """Measure; `real` is None only where none was needed."""

    def references(
        self, real: FeatureSet, other: FeatureSet | None, setting: MetricContext
    ) -> list[MetricValue]:
        """Measure what the metric is to be read beside, once; by default nothing.

        Args:
            real: the real images.
            other: those of another split, measured as if they were generated; None without.
            setting: what is known.
        """
        return []


class Frechet(ProtocolMetric):
    """Frechet distance: FID with Inception's features, sFID with its spatial ones.

    Heusel et al. 2017, https://arxiv.org/abs/1706.08500; sFID: Nash et al. 2021, https://arxiv.org/abs/2103.03841.

    Args:
        output: of the extractor.
        key: of the metric; None makes it.
        allow_singular: take sets of no more images than features, of which the distance is mostly bias.
    """

    kind, short = "frechet", "fd"
    has_references = True

    def __init__(
        self, *, output: str = "features", key: str | None = None, allow_singular: bool = False
    ) -> None:
        super().__init__(output=output, key=key)
        self.real: Needs = {output: "statistics"}
        self.fake: Needs = {output: "statistics"}
        self._allow_singular = allow_singular

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        if self._allow_singular:
            return
        width = setting.extractor.outputs[self.output]
        refuse_small_sample("generated", num=setting.num_fake, width=width)
        refuse_small_sample("real", num=setting.num_real, width=width)

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        value = frechet_distance_from_statistics(
            real.gaussian(self.output), fake.gaussian(self.output)
        )
        width = setting.extractor.outputs[self.output]
        singular = min(real.count, fake.count) <= width
        detail = {"singular": f"no more images than the {width} features"} if singular else {}
        return [MetricValue(key=self.key(setting), value=value.item(), detail=detail)]

    def references(
        self, real: FeatureSet, other: FeatureSet | None, setting: MetricContext
    ) -> list[MetricValue]:
        """Measure the other split: what a generator that draws from it would get."""
        if other is None:
            return []
        found = self.compute(real, other, setting)
        return [MetricValue(key=f"{one.key}_real", value=one.value) for one in found]


class ClassFrechet(ProtocolMetric):
    """Frechet distance of each class, and their mean.

    Args:
        output: of the extractor.
        key: of the mean; None makes it.
        allow_singular: take classes of no more images than features, of which the distance is mostly bias.
    """

    kind, short = "class_frechet", "fd_class"

    def __init__(
        self, *, output: str = "features", key: str | None = None, allow_singular: bool = False
    ) -> None:
        super().__init__(output=output, key=key)
        self.real: Needs = {output: "features"}
        self.fake: Needs = {output: "features"}
        self._allow_singular = allow_singular

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        for source in (setting.real, setting.fake):
            if source is not None and not source.num_classes:
                raise InputError(
                    f"metrics of each class: {source.name} has no labels; leave them out of the protocol"
                )
        if (
            setting.real
            and setting.fake
            and (apart := label_difference(setting.real, setting.fake))
        ):
            raise InputError(f"metrics of each class: {apart}; compare images of the same classes")

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        width = setting.extractor.outputs[self.output]
        names = real.source.class_names
        values: dict[str, float] = {}
        for label, name in enumerate(names):
            sets = [images.of_class(self.output, label) for images in (real, fake)]
            fewest = min(map(len, sets))
            if fewest < 2 or (fewest <= width and not self._allow_singular):
                raise InputError(
                    f"class {name} has {len(sets[0])} real and {len(sets[1])} generated images for {width} features; "
                    "give more, or set allow_singular=true, with which the distance is mostly the bias of few images"
                )
            values[name] = frechet_distance_from_statistics(
                *(gaussian_statistics(features) for features in sets)
            ).item()
        mean = sum(values.values()) / len(values)
        detail = {"classes": values, "singular_allowed": self._allow_singular}
        return [MetricValue(key=self.key(setting), value=mean, detail=detail)]


class Kernel(ProtocolMetric):
    """Kernel distance, KID with Inception's features: without bias, hence for small sets; with its standard error.

    Binkowski et al. 2018, https://arxiv.org/abs/1801.01401.

    Args:
        output: of the extractor.
        key: of the metric; None makes it.
        subsets: how many random subsets it is the mean over.
        subset_size: images of each set in a subset.
        seed: of the subsets.
    """

    kind, short = "kernel", "kd"

    def __init__(
        self,
        *,
        output: str = "features",
        key: str | None = None,
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 2020,
    ) -> None:
        super().__init__(output=output, key=key)
        self.real: Needs = {output: "features"}
        self.fake: Needs = {output: "features"}
        self._subsets, self._subset_size, self._seed = subsets, subset_size, seed

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        fewest = min(setting.num_fake, setting.num_real_features)
        if fewest < self._subset_size:
            raise InputError(
                f"the kernel distance takes subsets of {self._subset_size}, and there are {setting.num_fake} generated "
                f"and {setting.num_real_features} real images; give more, or set the metric's subset_size="
                f"{max(2, fewest // 2)} (+protocol.metrics.kid.subset_size= of gan-lab evaluate)"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        mean, deviation = kernel_distance(
            real.on_device(self.output),
            fake.on_device(self.output),
            subsets=self._subsets,
            subset_size=self._subset_size,
            seed=self._seed,
        )
        return [
            MetricValue(
                key=self.key(setting),
                value=mean.item(),
                uncertainty=deviation.item() * self._error_share(real, fake),
                uncertainty_kind="se",
                detail={
                    "std": deviation.item(),
                    "subsets": self._subsets,
                    "subset_size": self._subset_size,
                },
            )
        ]

    def _error_share(self, real: FeatureSet, fake: FeatureSet) -> float:
        """Standard error of the mean over subsets, in units of their deviation.

        Subsets of n of N images share a part n / N of what varies, which no number of subsets averages out.
        """
        fewest = min(len(images.features[self.output]) for images in (real, fake))
        shared = self._subset_size / fewest
        return (shared + (1 - shared) / self._subsets) ** 0.5


class Score(ProtocolMetric):
    """Inception Score, with its deviation over parts; of generated images alone.

    Salimans et al. 2016, https://arxiv.org/abs/1606.03498.

    Args:
        output: of the extractor.
        key: of the metric; None makes it.
        splits: how many parts.
        seed: of the order in which images are parted.
    """

    kind, short = "score", "score"

    def __init__(
        self, *, output: str = "logits", key: str | None = None, splits: int = 10, seed: int = 2020
    ) -> None:
        super().__init__(output=output, key=key)
        self.real: Needs = {}
        self.fake: Needs = {output: "features"}
        self._splits, self._seed = splits, seed

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        if setting.num_fake < self._splits:
            raise InputError(
                f"a score over {self._splits} parts of {setting.num_fake} images; give more, or set splits=1"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        mean, deviation = inception_score(
            fake.features[self.output], splits=self._splits, seed=self._seed
        )
        return [
            MetricValue(
                key=self.key(setting),
                value=mean.item(),
                uncertainty=deviation.item(),
                uncertainty_kind="std",
                detail={"splits": self._splits},
            )
        ]
