"""Base class of metrics for training, directions of metrics, metrics=auto and metrics=none."""

import re
from contextlib import suppress
from typing import Literal, Protocol

from gan_lab.console import say, warn
from gan_lab.data.base import SampleDataset
from gan_lab.data.builtin import Digits, StackedDigits
from gan_lab.data.datamodule import DataModule
from gan_lab.data.text import Lines
from gan_lab.errors import InputError
from gan_lab.metrics.sources import ImageSource


class Metrics(Protocol):
    """Base class of the Hydra group `metrics=`; outside of the LightningModule, so that checkpoints lack its networks.

    Attributes:
        best: key of the metric that chooses the best checkpoint, or None.
        mode: "min" or "max": whether lower or higher is better.
        provenance: description of the metrics (extractor and its SHA-256, transform, numbers of images), complete
            after `prepare`.
    """

    @property
    def best(self) -> str | None: ...

    @property
    def mode(self) -> Literal["min", "max"]: ...

    @property
    def provenance(self) -> dict[str, str | int]: ...

    def prepare(self, data: DataModule) -> None:
        """Load networks and statistics of the real images. Called before step 0.

        Every rank must call it.

        Raises:
            InputError: when the metrics cannot be computed for these data.
        """
        ...

    def check_data(self, data: DataModule) -> None:
        """Check whether the metrics can be computed for these data, as far as that shows before anything is loaded.

        Raises:
            InputError: as `prepare`.
        """
        ...

    def compute(self, fakes: ImageSource) -> dict[str, float]:
        """Compute the metrics of generated images; all ranks must call it and share the work.

        Returns:
            Metrics by key, without the prefix `metrics/`. A metric that could not be prepared is absent.
        """
        ...


class NoMetrics:
    """metrics=none: computes nothing."""

    def __init__(self) -> None:
        self.best: str | None = None
        self.mode: Literal["min", "max"] = "min"
        self.provenance: dict[str, str | int] = {}

    def prepare(self, data: DataModule) -> None:
        """Do nothing."""

    def check_data(self, data: DataModule) -> None:
        """Accept any data."""

    def compute(self, fakes: ImageSource) -> dict[str, float]:
        return {}


# Default metrics, by the data.


class MetricsByData:
    """metrics=auto: the digits' own metrics, n-grams for text, FID for other images, KID for few of them.

    Default metrics never abort training: if they cannot be computed (no weights, RGBA), there is a warning before the
    first step. With explicit `metrics=fid` that is an error.

    Args:
        digits: for scikit-learn's digits.
        stacked_digits: for three of them in an image.
        text: for all text.
        other: for all other images.
        small: for sets of images too small for `other`.

    Attributes:
        best: of the chosen metrics; None until `prepare`, and without metrics.
        mode: of the chosen metrics.
        provenance: of the chosen metrics.
    """

    def __init__(
        self,
        *,
        digits: Metrics,
        stacked_digits: Metrics,
        text: Metrics,
        other: Metrics,
        small: Metrics,
    ) -> None:
        self._by_kind: dict[type, Metrics] = {
            Digits: digits,
            StackedDigits: stacked_digits,
            Lines: text,
        }
        self._other, self._small = other, small
        self._chosen: Metrics = NoMetrics()

    @property
    def best(self) -> str | None:
        return self._chosen.best

    @property
    def mode(self) -> Literal["min", "max"]:
        return self._chosen.mode

    @property
    def provenance(self) -> dict[str, str | int]:
        return self._chosen.provenance

    def choose_for(self, dataset: SampleDataset) -> Metrics:
        """Return the metrics for a data set; none for unknown kinds of samples."""
        chosen = self.of_class(type(dataset))
        if chosen is self._other and not dataset.spec.is_image:
            warn(
                f"metrics=auto supports images and text, not {dataset.spec.kind.name}: no metrics are computed"
            )
            return NoMetrics()
        return chosen

    def of_class(self, kind: type) -> Metrics:
        """Return the metrics for a class of data."""
        known = (metrics for one, metrics in self._by_kind.items() if issubclass(kind, one))
        return next(known, self._other)

    def candidates(self, kind: type) -> tuple[Metrics, ...]:
        """Return the metrics for data of a class, in order of preference."""
        chosen = self.of_class(kind)
        return (chosen, self._small) if chosen is self._other else (chosen,)

    def choose(self, data: DataModule) -> Metrics:
        """Return the metrics that `prepare` chooses for some data, as far as that shows before anything is loaded."""
        candidates = self.candidates(type(data.train))
        if candidates[0] is self._other and not data.spec.is_image:
            return NoMetrics()
        for metrics in candidates:
            with suppress(InputError):
                metrics.check_data(data)
                return metrics
        return candidates[0]

    def check_data(self, data: DataModule) -> None:
        """Accept any data: without a suitable metric, training has none."""

    def prepare(self, data: DataModule) -> None:
        """Choose metrics by the data, and prepare them."""
        chosen = self.choose_for(data.train)
        try:
            chosen.prepare(data)
        except InputError as error:
            if chosen is not self._other or not self._prepare_small(data):
                warn(f"{error} (training goes on without these metrics, as metrics=auto allows)")
                return
            chosen = self._small
            if chosen.best is not None:
                say(f"metrics=auto takes {chosen.best}: {error}".partition(";")[0])
        self._chosen = chosen

    def _prepare_small(self, data: DataModule) -> bool:
        try:
            self._small.prepare(data)
        except InputError:  # for the same reason, already reported
            return False
        return True

    def compute(self, fakes: ImageSource) -> dict[str, float]:
        """Compute the chosen metrics."""
        return self._chosen.compute(fakes)


Direction = Literal["min", "max"]

# prefixes of keys from `ProtocolMetric.key`: usual names of metrics, or short names
_SMALLER = re.compile(
    r"((clean_|class_|s)?fid|(clean_)?kid|fd|kd|ppl|path|kl_modes|memorized|js[0-9]+|copied|ks_gray|copies|membership)(\d|_|$)"
)
_LARGER = re.compile(
    r"(is|score|precision|recall|density|coverage|accuracy|modes|eq|eqt|eqr|words|utility)(\d|_|$)"
)
# beside metrics: uncertainties and references
_BESIDE = re.compile(r"_(se|std|real|bigram|unigram)$")


def direction(key: str) -> Direction | None:
    """Return "min" or "max": whether lower or higher is better, by the metric's key; None if unknown.

    Args:
        key: as in metrics.jsonl, with `metrics/` or without.
    """
    name = key.removeprefix("metrics/")
    if _BESIDE.search(name):
        return None
    if _SMALLER.match(name):
        return "min"
    return "max" if _LARGER.match(name) else None
