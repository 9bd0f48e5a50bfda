"""The features of a set of images, in full or as mean and covariance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.images import ImageSource

# what a metric wants of an output
Form = Literal["statistics", "features"]

Needs = Mapping[str, Form]

# what is wanted of outputs in all
AllNeeds = frozenset[tuple[str, Form]]


class Moments:
    """Mean and covariance of features that come in parts, in float64.

    The update of Chan, Golub & LeVeque 1979 (http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf,
    equation 2.1), of which sums of squares would lose the digits.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take in further features [N, width]; the order of the parts moves the last bits."""
        features = features.double()
        mean = features.mean(0)
        centred = features - mean
        shift = mean - self.mean
        total = self.count + len(features)
        self._scatter += centred.T @ centred
        self._scatter += torch.outer(shift, shift) * (self.count * len(features) / total)
        self.mean += shift * (len(features) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance [width, width], of two features or more."""
        return self._scatter / (self.count - 1)


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """What was extracted of a set of images.

    Attributes:
        source: where the images are from.
        count: how many images the statistics are of.
        whole: whether these are all images of the source.
        features: output -> float32 [M, width] on the CPU, M <= count, of the images `rows`.
        rows: int64 [M], which images of the source the features are of.
        statistics: output -> (mean [width], covariance [width, width]), float64, of all `count` images.
        labels: int64 [M] of the features; None for images without.
        device: where metrics of the features are computed best.
    """

    source: ImageSource
    count: int
    whole: bool
    features: dict[str, Tensor]
    rows: Tensor
    statistics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    labels: Tensor | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def gaussian(self, output: str) -> tuple[Tensor, Tensor]:
        """Mean [width] and covariance [width, width] of an output, float64."""
        return self.statistics[output]

    def on_device(self, output: str) -> Tensor:
        """Features [M, width] of an output, where metrics of them are computed best."""
        return self.features[output].to(self.device)

    def of_class(self, output: str, label: int) -> Tensor:
        """Features of the images of a class."""
        if self.labels is None:
            raise InputError(f"{self.source.name} has no labels")
        return self.features[output][self.labels == label]


def union(*needs: Needs) -> AllNeeds:
    """Return what serves all of several needs."""
    return frozenset(item for some in needs for item in some.items())


# What all functions of features ask of them.


def check_features(features: Tensor, *, least: int = 1) -> None:
    """Refuse what is no set of features.

    Raises:
        InputError: for another shape than [N, D] with N >= `least`, and for NaN or infinity.
    """
    if features.ndim != 2 or len(features) < least:
        raise InputError(
            f"features have shape {list(features.shape)}; expected [N, D] with N >= {least}"
        )
    if not torch.isfinite(features).all():
        raise InputError(
            "features hold NaN or infinity: look at the images that they were made from"
        )


def check_pair(real: Tensor, fake: Tensor, *, least: int = 1) -> None:
    """Refuse two sets that cannot be compared.

    Raises:
        InputError: as `check_features`, and for unequal widths.
    """
    check_features(real, least=least)
    check_features(fake, least=least)
    if real.shape[1] != fake.shape[1]:
        raise InputError(
            f"features of unequal widths: {real.shape[1]} (real) and {fake.shape[1]} (generated)"
        )
