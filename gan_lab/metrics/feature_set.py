"""Features of a set of images: checks, and files."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from gan_lab.config import ClassNames, limited, take
from gan_lab.data.cache import MAX_ROWS, read_arrays
from gan_lab.errors import InputError
from gan_lab.metrics.features import Extractor
from gan_lab.metrics.sources import ImageSource
from gan_lab.run import replacing

# what a metric needs of an output
Form = Literal["statistics", "features"]

Needs = Mapping[str, Form]

# needs of all metrics
AllNeeds = frozenset[tuple[str, Form]]


class Moments:
    """Mean and covariance of features in batches, in float64.

    The update of Chan, Golub & LeVeque 1979 (http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf,
    equation 2.1); sums of squares would lose precision.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add features [N, width]; the result depends on their order only in the last bits."""
        features = features.double()
        mean = features.mean(0)
        centered = features - mean
        self._add(len(features), mean, centered.T @ centered)

    def join(self, count: int, stacked: Tensor) -> None:
        """Add the moments of `count` features, as `stacked` returns them."""
        self._add(count, stacked[0], stacked[1:])

    def stacked(self) -> Tensor:
        """Return the mean above the sums of squares around it, float64 [1 + width, width]."""
        return torch.cat([self.mean[None], self._scatter])

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        shift = mean - self.mean
        total = self.count + count
        self._scatter += scatter
        self._scatter += torch.outer(shift, shift) * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance [width, width], of two features or more."""
        return self._scatter / (self.count - 1)


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Features and statistics of a set of images.

    Attributes:
        source: where the images are from.
        count: how many images the statistics are of.
        whole: whether it is all images of the source.
        features: output -> float32 [M, width] on the CPU, M <= count, of the images `rows`.
        rows: int64 [M], which images of the source the features are of.
        statistics: output -> (mean [width], covariance [width, width]), float64, of all `count` images.
        labels: int64 [M] of the features; None for images without.
        device: to compute metrics of the features on.
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
        """Features [M, width] of an output, on the device for metrics."""
        return self.features[output].to(self.device)

    def of_class(self, output: str, label: int) -> Tensor:
        """Features of the images of a class."""
        if self.labels is None:
            raise InputError(f"{self.source.name} has no labels")
        return self.features[output][self.labels == label]


def union(*needs: Needs) -> AllNeeds:
    """Return the union of several metrics' needs."""
    return frozenset(item for some in needs for item in some.items())


# Checks of features.


def check_features(features: Tensor, *, least: int = 1) -> None:
    """Check the shape and values of features.

    Raises:
        InputError: for another shape than [N, D] with N >= `least`, and for NaN or infinity.
    """
    if features.ndim != 2 or len(features) < least:
        raise InputError(
            f"features have shape {list(features.shape)}; expected [N, D] with N >= {least}"
        )
    if not torch.isfinite(features).all():
        raise InputError("features hold NaN or infinity; check the images")


def check_pair(real: Tensor, fake: Tensor, *, least: int = 1) -> None:
    """Check that two sets of features can be compared.

    Raises:
        InputError: as `check_features`, and for unequal widths.
    """
    check_features(real, least=least)
    check_features(fake, least=least)
    if real.shape[1] != fake.shape[1]:
        raise InputError(
            f"features of unequal widths: {real.shape[1]} (real) and {fake.shape[1]} (generated)"
        )


_META = "gan_lab"

# description in a file of features
_DESCRIPTION: dict[str, Any] = {
    **dict.fromkeys(
        ("extractor", "sha256", "transform", "precision", "source", "fingerprint"), str
    ),
    "description": dict[str, Any],
    "count": Annotated[int, Field(ge=1, le=MAX_ROWS)],
    "whole": bool,
    "shape": list[Annotated[int, Field(ge=1, le=MAX_ROWS)]],
    "class_names": ClassNames,
}


class AbsentImages(ImageSource):
    """Images of which only features are available.

    Args:
        path: of the file of features.
        description: the file's description.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.name = f"{description['source']} (features in {path})"
        self.count = description["count"]
        self.shape = tuple(description["shape"])
        self.class_names = tuple(description["class_names"])
        self.num_classes = len(self.class_names)
        self.description = {**description["description"], "features_from": str(path)}
        self._fingerprint = description["fingerprint"]

    @property
    def fingerprint(self) -> str:
        return str(self._fingerprint)

    def read(self, start: int, stop: int) -> Tensor:
        raise InputError(f"{self.name}: only features are available, not the images")


def is_features_file(path: Path) -> bool:
    """Whether a file was written by `save_features`."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return f"{_META}.npy" in archive.namelist()


def save_features(made: FeatureSet, extractor: Extractor, path: Path) -> None:
    """Write the features and statistics of real images, with their description."""
    source = made.source
    description = {
        "extractor": extractor.name,
        "sha256": extractor.sha256,
        "transform": extractor.transform,
        "precision": extractor.precision,
        "source": source.name,
        "description": dict(source.description),
        "fingerprint": source.fingerprint,
        "count": made.count,
        "whole": made.whole,
        "shape": list(source.shape),
        "class_names": list(source.class_names),
    }
    arrays: dict[str, Any] = {"rows": made.rows.numpy()}
    for output, (mean, covariance) in made.statistics.items():
        arrays |= {
            f"mean_{output}": mean.numpy(),
            f"covariance_{output}": covariance.numpy(),
        }
    arrays |= {f"features_{output}": values.numpy() for output, values in made.features.items()}
    if made.labels is not None:
        arrays["labels"] = made.labels.numpy()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{_META: np.array(json.dumps(description))}, **arrays)


def _check_arrays(arrays: dict[str, NDArray[Any]], count: int) -> None:
    """Check that arrays are numbers, with one row per image.

    Raises:
        ValueError: naming the one that is not.
    """
    rows = arrays["rows"]
    if rows.dtype.kind not in "iu" or rows.ndim != 1 or (len(rows) and rows.max() >= count):
        raise ValueError(f"rows are not numbers of {count} images")
    for name, values in arrays.items():
        if values.dtype.kind not in "iufb" or not np.isfinite(values).all():
            raise ValueError(f"{name} holds something else than numbers")
        if name.startswith("features_") and len(values) != len(rows):
            raise ValueError(f"{name} has {len(values)} rows, not {len(rows)}")


def _read_features(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the description and the arrays of a file of features.

    Raises:
        InputError: when the file is damaged.
    """
    try:
        arrays = read_arrays(path)
        description = limited(json.loads(str(arrays.pop(_META))), path)
        for key, kind in _DESCRIPTION.items():
            take(description, key, kind, origin=path)
        _check_arrays(arrays, description["count"])
    except (ValueError, KeyError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not a complete file of features ({error}); copy or make it again"
        ) from error
    return description, arrays


def load_features(path: Path, extractor: Extractor, needs: AllNeeds) -> FeatureSet:
    """Read what `save_features` wrote.

    Args:
        path: of the file.
        extractor: loaded; the file must be of the same one.
        needs: (output, form) of everything needed.

    Raises:
        InputError: when the file is damaged, of another extractor, or lacks something.
    """
    description, arrays = _read_features(path)
    ours = {
        "extractor": extractor.name,
        "sha256": extractor.sha256,
        "transform": extractor.transform,
        "precision": extractor.precision,
    }
    for key, value in ours.items():
        if description[key] != value:
            raise InputError(
                f"{path} holds features made with {key} {description[key]!r}, and the protocol has {value!r}: they "
                "cannot be compared"
            )
    lacking = [
        f"{form} of {output}"
        for output, form in sorted(needs)
        if ("mean_" if form == "statistics" else "features_") + output not in arrays
    ]
    if lacking:
        raise InputError(
            f"{path} lacks {', '.join(lacking)}; leave such metrics out, or write the file again with this protocol "
            "and save_real_features="
        )
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    return FeatureSet(
        source=AbsentImages(path, description),
        count=description["count"],
        whole=description["whole"],
        features={
            output: tensors[f"features_{output}"] for output, form in needs if form == "features"
        },
        rows=tensors["rows"],
        statistics={
            output: (tensors[f"mean_{output}"], tensors[f"covariance_{output}"])
            for output, form in needs
            if form == "statistics"
        },
        labels=tensors.get("labels"),
        device=extractor.device,
    )
