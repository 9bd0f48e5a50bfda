"""Evaluation protocols: which features of how many real and generated images, and which metrics of them.

The same object is used during training (`metrics=`) and afterwards (`gan-lab evaluate protocol=`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from gan_lab.console import say, warn
from gan_lab.data.datamodule import DataModule
from gan_lab.errors import InputError, counted
from gan_lab.metrics.base import direction
from gan_lab.metrics.cache import ChunkStore, MemoryChunks
from gan_lab.metrics.extraction import (
    Extraction,
    Progress,
    extract_fakes,
    extract_real,
    no_progress,
)
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric
from gan_lab.metrics.feature_set import AllNeeds, FeatureSet, union
from gan_lab.metrics.features import Extractor, WeightsUnavailable
from gan_lab.metrics.generator_metrics import GeneratorMetric
from gan_lab.metrics.sources import DatasetImages, ImageSource

_PLENTY = 10**6  # images, of which there are enough for every metric


class Protocol:
    """Everything that determines a metric but the samples (of which networks see `SampleKind.measured`).

    Args:
        name: of the protocol, for results.
        features: makes features of images.
        metrics: what is computed, by a name of the user's choice; None removes one that a config inherits from another.
        num_fake: generated images.
        num_real: real images, a fixed random choice; None takes all of the data set, or `num_fake` images if a
            generator stands in for real data.
        num_real_features: upper limit on real images whose features are kept one by one (KID, precision and recall);
            means and covariances are of all `num_real`. None for no limit.
        split: "train" or "val", of the data that real images are from.
        flips: whether mirror images are real images, too; needs data.flip=true.
        weights: "ema" or "raw", of the generator, the default of `evaluate`; training uses "ema".
        truncation: the default of `evaluate`; training has none.
        best: which of `metrics` chooses the best checkpoint; None for none.
        mode: "min" or "max": whether lower or higher is better.
        reference_split: "train" or "val": another split, evaluated as if it were generated: `<key>_real` is what a
            generator of that split would get. Some metrics also use it in other ways.
        dataset: class of the data that the features are of, "gan_lab.data.builtin.Digits"; None for any.
        required: whether missing weights are an error in training. If not, a warning is printed, `best`
            becomes None, and there are no metrics.
        batch_size: images that are computed or read at a time; it changes metrics by rounding alone.
        device: where features are made; None takes the trainer's, or the accelerator that is there.

    Attributes:
        mode: "min" or "max".
        provenance: how the metrics are made, for results; filled in by `prepare`.

    Raises:
        InputError: for metrics that cannot be made of so many images or of these features, for two of one name, and
            for a `mode` that would take the worst for the best.
    """

    def __init__(
        self,
        *,
        name: str,
        features: Extractor,
        metrics: Mapping[str, ProtocolMetric | None],
        num_fake: int,
        num_real: int | None = None,
        num_real_features: int | None = 50_000,
        split: Literal["train", "val"] = "train",
        flips: bool = False,
        weights: Literal["ema", "raw"] = "ema",
        truncation: float | None = None,
        best: str | None = None,
        mode: Literal["min", "max"] = "min",
        reference_split: Literal["train", "val"] | None = None,
        dataset: str | None = None,
        required: bool = True,
        batch_size: int = 64,
        device: str | None = None,
    ) -> None:
        chosen = {key: metric for key, metric in metrics.items() if metric is not None}
        check_choice(name, chosen, num_fake=num_fake, best=best)
        self.name = name
        self.features = features
        self.metrics = chosen
        self.weights = weights
        self.truncation = truncation
        self.mode: Literal["min", "max"] = mode
        self.required = required
        self.num_fake = num_fake
        self.batch_size = batch_size
        self.split: Literal["train", "val"] = split
        self.reference_split: Literal["train", "val"] | None = reference_split
        self.provenance: dict[str, str | int] = {}
        self._num_real = num_real
        self._num_real_features = num_real_features
        self._flips = flips
        self._dataset = dataset
        self._best = best
        self._device = device
        self._context = MetricContext(
            extractor=features,
            num_fake=num_fake,
            num_real=num_real or 0,
            num_real_features=min(num_real or 0, num_real_features or num_real or 0),
            all_real=num_real is None,
        )
        self._real: FeatureSet | None = None
        self._real_source: ImageSource | None = None
        self._held_out: ImageSource | None = None
        self._ready = False
        self._references: list[MetricValue] = []
        keys = {each: metric.key(self._context) for each, metric in chosen.items()}
        check_keys(name, keys, best=best, mode=mode)

    # Used in training ------------------------------------------------------------------------------------------

    @property
    def best(self) -> str | None:
        """Key of the metric that chooses the best checkpoint."""
        return None if self._best is None else self.metrics[self._best].key(self._context)

    def prepare(self, data: DataModule) -> None:
        """Load the network and get the real images' features, from the cache if they are there.

        Raises:
            InputError: for data or weights that cannot be used; for missing weights when they are required.
        """
        self.check_data(data)
        real, reference = self.real_images(data), self.reference_images(data)
        self.check(real=real, reference=reference)
        try:
            self.load(self._choose_device(data))
        except WeightsUnavailable as error:
            if self.required:
                raise
            warn(f"{error}. The run goes on without {', '.join(self._keys())}")
            self._best = None
            return
        self.measure_real(real, reference=reference)

    def check_data(self, data: DataModule) -> None:
        """Check the number, size and channels of the real images.

        Raises:
            InputError: with the remedy.
        """
        self.check(real=self.real_images(data))

    def compute(self, fakes: ImageSource) -> dict[str, float]:
        """Draw and measure `num_fake` images; nothing when there are no weights."""
        if not self._ready:
            return {}
        found: dict[str, float] = {}
        for metric in self.measure(fakes, MemoryChunks()):
            found[metric.key] = metric.value
            if metric.uncertainty is not None:
                found[f"{metric.key}_{metric.uncertainty_kind}"] = metric.uncertainty
        return found

    # Used by evaluate ------------------------------------------------------------------------------------------

    @property
    def real(self) -> FeatureSet | None:
        """Features of the real images, once they are there; None where no metric needs any."""
        return self._real

    @property
    def real_needs(self) -> AllNeeds:
        """(output, form) of all that is needed of real images; empty where no metric compares."""
        return union(*(metric.real for metric in self.metrics.values()))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the metrics besides images, extractor and their numbers, for results."""
        return {
            "metrics": {
                name: {"kind": metric.kind, **metric.settings}
                for name, metric in self.metrics.items()
            },
            "num_real": self._num_real,
            "num_real_features": self._num_real_features,
            "split": self.split,
            "flips": self._flips,
            "extractor_sha256": self.features.sha256,
            "transform": self.features.transform,
            "precision": self.features.precision,
        }

    @property
    def num_real(self) -> int | None:
        """Real images that it takes; None for all."""
        return self._num_real

    def real_images(self, data: DataModule) -> DatasetImages:
        """Return the real images of this protocol.

        Raises:
            InputError: when the data have no such split, or are others than the features are of.
        """
        kind = type(data.train)
        if self._dataset not in (None, f"{kind.__module__}.{kind.__qualname__}"):
            raise InputError(
                f"{self.name} measures {self._dataset}, and the data are {kind.__name__}; choose other metrics, such "
                "as fid, or none"
            )
        dataset = data.train if self.split == "train" else data.val
        if dataset is None:
            raise InputError(
                f"protocol {self.name} measures against the {self.split} split, which the data do not have; set "
                "data.val_fraction=0.1, or protocol.split=train (in training metrics.split=train)"
            )
        return DatasetImages(dataset, num=self._num_real, flips=self._flips)

    def reference_images(self, data: DataModule) -> DatasetImages | None:
        """Return the real images of `reference_split`, evaluated as if generated; None without."""
        dataset = data.train if self.reference_split == "train" else data.val
        return (
            DatasetImages(dataset)
            if self.reference_split is not None and dataset is not None
            else None
        )

    def check(
        self,
        *,
        real: ImageSource | None,
        fake: ImageSource | None = None,
        reference: ImageSource | None = None,
    ) -> None:
        """Check before anything is loaded or extracted.

        Args:
            real: the real images; None without.
            fake: the generated ones, once they are known.
            reference: those of `reference_split`; None where they are not there, or were given before.

        Raises:
            InputError: with what to do.
        """
        for source, wanted, key in (
            (real, self._num_real, "num_real"),
            (fake, self.num_fake, "num_fake"),
        ):
            if source is None:
                continue
            self.features.check(source.shape, source.name)
            if wanted is not None and source.count is not None and source.count < wanted:
                raise InputError(
                    f"{source.name} has {counted(source.count, 'image')}, and protocol {self.name} takes {wanted:,}; "
                    f"give more, or {self._remedy(key, source.count)}"
                )
        self._held_out = reference or self._held_out
        self._context = self._known(real, fake)
        for metric in self.metrics.values():
            metric.check(self._context)

    def _remedy(self, key: str, count: int) -> str:
        """Say how fewer images can be measured: by this protocol, where its metrics can be made of them, or by KID."""
        few = f"protocol.{key}={count}"
        context = replace(
            self._context,
            fake=None,
            real=None,
            num_fake=count if key == "num_fake" else _PLENTY,
            num_real=count if key == "num_real" else _PLENTY,
            num_real_features=count if key == "num_real" else _PLENTY,
        )
        try:
            for metric in self.metrics.values():
                metric.check(context)
        except InputError:
            return f"take KID: protocol=kid_small {few} (in training metrics=kid_small)"
        return f"set {few} (in training metrics.{key}={count})"

    def load(self, device: torch.device) -> None:
        """Load the network.

        Raises:
            WeightsUnavailable: when its weights are missing and cannot be downloaded.
            InputError: when the weights are wrong.
        """
        self.features.load(device)

    def real_extraction(self, real: ImageSource) -> Extraction:
        """Return what is to be extracted of real images."""
        return Extraction(
            source=real,
            extractor=self.features,
            num=self._number_of(real),
            whole=self._is_whole(real),
            needs=self.real_needs,
            max_features=self._num_real_features,
            batch_size=self.batch_size,
        )

    def fake_extraction(self, fake: ImageSource) -> Extraction:
        """Return what is to be extracted of generated images."""
        return Extraction(
            source=fake,
            extractor=self.features,
            num=self.num_fake,
            whole=False,
            needs=union(*(metric.fake for metric in self.metrics.values())),
            batch_size=self.batch_size,
        )

    def measure_real(
        self,
        real: ImageSource,
        *,
        reference: ImageSource | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """Get the features of the real images; the network must be loaded."""
        extraction = self.real_extraction(real)
        self._real_source, self._held_out = real, reference
        self._context = self._known(real, self._context.fake)
        if extraction.needs:
            self._real = extract_real(extraction, progress)
        self._describe(f"{real.name}, {extraction.num} images" if extraction.needs else "none")
        self._measure_references(reference)

    def use_real(self, real: FeatureSet) -> None:
        """Use precomputed real features; the network must be loaded."""
        self._real, self._real_source = real, real.source
        self._describe(f"{real.source.name}, {real.count} images")

    def _describe(self, real: str) -> None:
        self.provenance = {
            "protocol": self.name,
            "extractor": self.features.name,
            "extractor_sha256": self.features.sha256,
            "transform": self.features.transform,
            "precision": self.features.precision,
            "real": real,
            "num_images": self.num_fake,
        }
        self._ready = True

    def measure(
        self, fakes: ImageSource, store: ChunkStore, progress: Progress = no_progress
    ) -> list[MetricValue]:
        """Measure generated images against the real ones.

        Raises:
            InputError: for images that cannot be measured.
        """
        return self.metrics_of(self.extract(fakes, store, progress), store)

    def extract(
        self, fakes: ImageSource, store: ChunkStore, progress: Progress = no_progress
    ) -> FeatureSet:
        """Return the features of generated images; those of real ones must be there.

        Raises:
            InputError: for images that cannot be measured.
        """
        assert self._ready, "measure_real() comes before the generated images"
        self.check(real=self._real_source, fake=fakes)
        return extract_fakes(self.fake_extraction(fakes), store, progress)

    @property
    def of_generator(self) -> list[GeneratorMetric]:
        """Metrics of the generator itself."""
        return [f for f in self.metrics.values() if isinstance(f, GeneratorMetric)]

    @property
    def context(self) -> MetricContext:
        """The context of the metrics; complete after `check`."""
        return self._context

    def metrics_of(
        self, fake: FeatureSet, store: ChunkStore | None = None, progress: Progress = no_progress
    ) -> list[MetricValue]:
        """Return the metrics of extracted images, and of their generator.

        Args:
            fake: the images.
            store: for results of the generator, so that they survive a kill; None for none.
            progress: called with the number of the generator's items done.
        """
        results: list[MetricValue] = []
        done = 0

        def advance(things: int) -> None:
            progress(done + things)

        for metric in self.metrics.values():
            if isinstance(metric, GeneratorMetric):
                found = metric.measure(fake.source, self._context, store or MemoryChunks(), advance)
                done += len(found)
                results += metric.summary(found, self._context)
            else:
                results += metric.compute(self._real, fake, self._context)
        return results + self._references

    def _known(self, real: ImageSource | None, fake: ImageSource | None) -> MetricContext:
        count = 0 if real is None else self._number_of(real)
        limit = count if self._num_real_features is None else self._num_real_features
        features, whole = min(count, limit), self._is_whole(real)
        if self._real is not None and real is self._real.source:
            # of a file, whose numbers need not be those of this protocol
            count, features, whole = self._real.count, len(self._real.rows), self._real.whole
        return MetricContext(
            extractor=self.features,
            num_fake=self.num_fake,
            num_real=count,
            num_real_features=features,
            all_real=whole,
            fake=fake,
            real=real,
            held_out=self._held_out,
        )

    def _number_of(self, real: ImageSource) -> int:
        """Number of real images; of a generator as many as of the other set."""
        return real.count if real.count is not None else self._num_real or self.num_fake

    def _is_whole(self, real: ImageSource | None) -> bool:
        return self._num_real is None and (real is None or real.count is not None)

    def _keys(self) -> list[str]:
        return [metric.key(self._context) for metric in self.metrics.values()]

    def _choose_device(self, data: DataModule) -> torch.device:
        if self._device is not None:
            return torch.device(self._device)
        if data.trainer is not None:
            return data.trainer.strategy.root_device
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

    def _measure_references(self, other: ImageSource | None) -> None:
        """Compute the references of metrics, and the metrics of another split as if it were generated."""
        referring = [metric for metric in self.metrics.values() if metric.has_references]
        if not referring:
            return
        made = None if other is None else self._extract_split(other, referring)
        self._references = [
            one
            for metric in referring
            for one in metric.references(self._real, made, self._context)
        ]
        chief = [one for one in self._references if one.key.startswith(f"{self.best}_")]
        values = [f"{one.key} is {one.value:.3f}" for one in chief or self._references]
        if values:
            whose = "" if other is None else f"; _real is {other.name}, measured as if generated"
            say(f"metrics: {', '.join(values)}{whose}")

    def _extract_split(self, other: ImageSource, metrics: Sequence[ProtocolMetric]) -> FeatureSet:
        assert other.count is not None
        extraction = Extraction(
            source=other,
            extractor=self.features,
            num=other.count,
            whole=True,
            needs=union(*(metric.fake for metric in metrics)),
            batch_size=self.batch_size,
        )
        return extract_real(extraction)


def check_choice(
    protocol: str, metrics: Mapping[str, ProtocolMetric], *, num_fake: int, best: str | None
) -> None:
    """Check that there are metrics and images, and that `best` is one of the metrics.

    Raises:
        InputError: naming the protocol.
    """
    if not metrics or num_fake < 1:
        raise InputError(
            f"protocol {protocol}: num_fake={num_fake} images and {len(metrics)} metrics; it needs at least one of each"
        )
    if best is not None and best not in metrics:
        raise InputError(
            f"protocol {protocol}: best={best} must be one of its metrics {', '.join(metrics)}"
        )


def check_keys(
    protocol: str, keys: Mapping[str, str], *, best: str | None, mode: Literal["min", "max"]
) -> None:
    """Check that metric names are unique and that `mode` suits `best`.

    Args:
        protocol: whose metrics they are.
        keys: of results, by the names of metrics in the protocol.
        best: name of the metric that chooses; None for none.
        mode: which of its values is the best.

    Raises:
        InputError: naming the metrics.
    """
    metric_of: dict[str, str] = {}
    for metric, key in keys.items():
        if key in metric_of:
            raise InputError(
                f"protocol {protocol}: metrics.{metric_of[key]} and metrics.{metric} would both be called {key}; set "
                "key= of one of them"
            )
        metric_of[key] = metric
    better = None if best is None else direction(keys[best])
    if better not in (None, mode):
        raise InputError(
            f"protocol {protocol}: best={best} with mode={mode} would keep the worst by {keys[str(best)]}; set "
            f"mode={better}"
        )
