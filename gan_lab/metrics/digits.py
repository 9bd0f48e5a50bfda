"""How good generated handwritten digits are, in the features of a small classifier of the real ones.

The keys do not say FID: the features are not Inception's, so the values compare with nothing but each other.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gan_lab.console import say
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.digits import Digits
from gan_lab.errors import InputError
from gan_lab.images import to_uint8
from gan_lab.metrics.base import Fakes
from gan_lab.metrics.digits_classifier import (
    DigitsClassifier,
    Recipe,
    load_classifier,
    stored_images,
)
from gan_lab.metrics.frechet import (
    frechet_distance_from_statistics,
    gaussian_statistics,
    refuse_small_sample,
)


@dataclass(frozen=True)
class _Reference:
    classifier: DigitsClassifier
    statistics: tuple[Tensor, Tensor]  # of the real validation digits
    floor: float


class DigitsMetrics:
    """Frechet distance to the real validation digits and, for conditional generators, accuracy.

    - `fd_digits`: Frechet distance between generated and real validation digits; smaller is better.
    - `fd_digits_real`: the same between the real training and validation digits: what a generator that draws
      from the training set would get, hence the scale of `fd_digits`.
    - `accuracy_digits`: share of the generated digits that the classifier takes for the digit that was asked
      for; only when the generator is given labels. It says nothing of variety.

    The figures are computed on the CPU, whatever the generator runs on.

    Args:
        num_images: generated for one evaluation; more than the 64 features. The default is the number of the
            training digits, so that `fd_digits_real` has the same bias.

    Attributes:
        best: "fd_digits".
        mode: "min".
        protocol: how the figures are made; filled in by `prepare`.

    Raises:
        InputError: for too few images.
    """

    def __init__(self, *, num_images: int = 1437) -> None:
        refuse_small_sample("generated", num=num_images, width=Recipe().width)
        self.best: str | None = "fd_digits"
        self.mode: Literal["min", "max"] = "min"
        self.protocol: dict[str, str | int] = {}
        self._num_images = num_images
        self._reference: _Reference | None = None

    def prepare(self, data: ImageDataModule) -> None:
        """Train the classifier or take it from the cache, and measure the real digits.

        Raises:
            InputError: when the data are not the digits.
        """
        if not isinstance(data.train, Digits) or data.val is None:
            raise InputError(
                f"metrics=digits measures scikit-learn's digits, and the data are {type(data.train).__name__}; "
                "set metrics=fid, or metrics=none, or data=digits"
            )
        classifier, sha256 = load_classifier()
        real, labels = stored_images(data.val)
        features, digits = classifier.measure(real)
        statistics = gaussian_statistics(features)
        train = gaussian_statistics(classifier.measure(stored_images(data.train)[0])[0])
        floor = frechet_distance_from_statistics(statistics, train).item()
        self._reference = _Reference(classifier, statistics, floor)
        self.protocol = {
            "extractor": "gan_lab digits classifier",
            "extractor_sha256": sha256,
            "features": features.shape[1],
            "transform": "uint8, grey, antialiased bilinear to 16x16",
            "real": f"val, {len(real)} stored images",
            "num_images": self._num_images,
        }
        say(
            f"metrics: digits classifier {sha256[:8]} knows {(digits == labels).double().mean():.1%} of the "
            f"{len(labels)} held-out digits; fd_digits of the real training digits is {floor:.3f}"
        )

    def compute(self, fakes: Fakes) -> dict[str, float]:
        """Generate `num_images` digits and measure them; `prepare` comes first."""
        assert self._reference is not None, "prepare() comes before compute()"
        features, correct = [], []
        for images, labels in fakes(self._num_images):
            batch_features, digits = self._reference.classifier.measure(to_uint8(images))
            features.append(batch_features)
            if labels is not None:
                correct.append(digits == labels.cpu())
        fake = gaussian_statistics(torch.cat(features))
        distance = frechet_distance_from_statistics(self._reference.statistics, fake)
        figures = {"fd_digits": distance.item(), "fd_digits_real": self._reference.floor}
        if correct:
            figures["accuracy_digits"] = torch.cat(correct).double().mean().item()
        return figures
