"""Features of real images as a file, to be shared with those who lack the images."""

import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from gan_lab.config import ClassNames, limited, take
from gan_lab.data.npz import MAX_ROWS, read_arrays
from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import AllNeeds, FeatureSet
from gan_lab.metrics.features.base import Extractor
from gan_lab.metrics.images import ImageSource
from gan_lab.run import replacing

_META = "gan_lab"

# what a file says of its features
_DESCRIBED: dict[str, Any] = {
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
    """Images of which only features are there.

    Args:
        path: of the file of features.
        described: what the file says of them.
    """

    def __init__(self, path: Path, described: dict[str, Any]) -> None:
        self.name = f"{described['source']} (features in {path})"
        self.count = described["count"]
        self.shape = tuple(described["shape"])
        self.class_names = tuple(described["class_names"])
        self.num_classes = len(self.class_names)
        self.description = {**described["description"], "features_from": str(path)}
        self._fingerprint = described["fingerprint"]

    @property
    def fingerprint(self) -> str:
        return str(self._fingerprint)

    def read(self, start: int, stop: int) -> Tensor:
        raise InputError(f"{self.name}: the images are not there, only their features")


def is_features_file(path: Path) -> bool:
    """Whether a file was written by `save_features`."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return f"{_META}.npy" in archive.namelist()


def save_features(made: FeatureSet, extractor: Extractor, path: Path) -> None:
    """Write the features and statistics of real images, with all that says what they are of."""
    source = made.source
    described = {
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
        np.savez(file, allow_pickle=False, **{_META: np.array(json.dumps(described))}, **arrays)


def _check_arrays(arrays: dict[str, NDArray[Any]], count: int) -> None:
    """Check that arrays are numbers, as many as there are images.

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


def load_features(path: Path, extractor: Extractor, needs: AllNeeds) -> FeatureSet:
    """Read what `save_features` wrote.

    Args:
        path: of the file.
        extractor: loaded; the file must be of the same one.
        needs: (output, form) of all that is wanted.

    Raises:
        InputError: when the file is damaged, of another extractor, or lacks something.
    """
    try:
        arrays = read_arrays(path)
        described = limited(json.loads(str(arrays.pop(_META))), path)
        for key, kind in _DESCRIBED.items():
            take(described, key, kind, origin=path)
        _check_arrays(arrays, described["count"])
    except (ValueError, KeyError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no whole file of features ({error}); copy or make it again"
        ) from error
    ours = {
        "extractor": extractor.name,
        "sha256": extractor.sha256,
        "transform": extractor.transform,
        "precision": extractor.precision,
    }
    for key, value in ours.items():
        if described[key] != value:
            raise InputError(
                f"{path} holds features made with {key} {described[key]!r}, and the protocol has {value!r}: they "
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
        source=AbsentImages(path, described),
        count=described["count"],
        whole=described["whole"],
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
