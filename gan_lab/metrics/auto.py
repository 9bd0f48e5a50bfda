"""The metrics that suit the data, where none were asked for."""

from typing import Literal

from gan_lab.console import warn
from gan_lab.data.base import ImageDataset
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.digits import Digits
from gan_lab.data.stacked_digits import StackedDigits
from gan_lab.errors import InputError
from gan_lab.metrics.base import Metrics, NoMetrics
from gan_lab.metrics.images import ImageSource


class MetricsByData:
    """The digits' own figures for scikit-learn's digits, alone or stacked, FID for everything else.

    What nobody asked for stops no run: where FID cannot be computed (no weights, too few images, RGBA) a warning says
    so before the first step. Ask for it, `metrics=fid`, to have that refused.

    Args:
        digits: for scikit-learn's digits.
        stacked_digits: for three of them in an image.
        other: for all other data.

    Attributes:
        best: of the chosen metrics; None until `prepare`, and where nothing can be measured.
        mode: of the chosen metrics.
        protocol: of the chosen metrics.
    """

    def __init__(self, *, digits: Metrics, stacked_digits: Metrics, other: Metrics) -> None:
        self._by_kind: dict[type, Metrics] = {Digits: digits, StackedDigits: stacked_digits}
        self._other = other
        self._chosen: Metrics = NoMetrics()

    @property
    def best(self) -> str | None:
        return self._chosen.best

    @property
    def mode(self) -> Literal["min", "max"]:
        return self._chosen.mode

    @property
    def protocol(self) -> dict[str, str | int]:
        return self._chosen.protocol

    def suiting(self, images: ImageDataset) -> Metrics:
        """Return the metrics for such images."""
        return self.of_kind(type(images))

    def of_kind(self, kind: type) -> Metrics:
        """Return the metrics for images of a class of data."""
        return self._by_kind.get(kind, self._other)

    def prepare(self, data: ImageDataModule) -> None:
        """Choose by the data, and prepare what was chosen."""
        chosen = self.suiting(data.train)
        try:
            chosen.prepare(data)
        except InputError as error:
            warn(f"{error} (training goes on without these figures, as metrics=auto allows)")
        else:
            self._chosen = chosen

    def compute(self, fakes: ImageSource) -> dict[str, float]:
        """Measure with the chosen metrics."""
        return self._chosen.compute(fakes)
