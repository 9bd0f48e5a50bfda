"""Which of the 1000 modes of stacked digits a generator covers, and how evenly.

Metz et al. 2017, https://arxiv.org/abs/1611.02163: a classifier names the digit in each channel; the number of modes
found in 26,000 samples, and the divergence of their frequencies from those of the data, which are uniform here.
"""

from typing import Literal

import torch
from torch import Tensor

from gan_lab.console import say
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.stacked_digits import MODES, StackedDigits
from gan_lab.errors import InputError
from gan_lab.images import to_uint8
from gan_lab.metrics.base import Fakes
from gan_lab.metrics.digits_classifier import DigitsClassifier, load_classifier


class StackedDigitsMetrics:
    """Modes covered and Kullback-Leibler divergence.

    - `modes`: how many of the 1000 modes were generated at least once.
    - `kl_modes`: KL(generated || uniform) over modes, in nats. Even a perfect generator has about
      999 / (2 num_images) for its finite sample (0.019 at 26,000).

    The classifier takes some real digits for others, so a few percent of the images count for another mode; that
    alters neither figure much, since every mode then gets from others what it gives.

    Args:
        num_images: generated for one evaluation; 26,000 in the paper.

    Attributes:
        best: "kl_modes".
        mode: "min".
        protocol: how the figures are made; filled in by `prepare`.

    Raises:
        InputError: for too few images.
    """

    def __init__(self, *, num_images: int = 26_000) -> None:
        if num_images < MODES:
            raise InputError(
                f"metrics.num_images={num_images} cannot cover {MODES} modes; give 26000, as is usual"
            )
        self.best: str | None = "kl_modes"
        self.mode: Literal["min", "max"] = "min"
        self.protocol: dict[str, str | int] = {}
        self._num_images = num_images
        self._classifier: DigitsClassifier | None = None

    def prepare(self, data: ImageDataModule) -> None:
        """Train the classifier or take it from the cache.

        Raises:
            InputError: when the data are not the stacked digits.
        """
        if not isinstance(data.train, StackedDigits):
            raise InputError(
                f"metrics=stacked_digits measures stacked digits, and the data are {type(data.train).__name__}; "
                "set data=stacked_digits, or other metrics"
            )
        self._classifier, sha256 = load_classifier()
        self.protocol = {
            "extractor": "gan_lab digits classifier, on each channel",
            "extractor_sha256": sha256,
            "transform": "uint8, antialiased bilinear to 16x16",
            "real": "uniform over 1000 modes",
            "num_images": self._num_images,
        }
        say(f"metrics: modes of {self._num_images} stacked digits by classifier {sha256[:8]}")

    def compute(self, fakes: Fakes) -> dict[str, float]:
        """Generate `num_images` images and count their modes; `prepare` comes first."""
        assert self._classifier is not None, "prepare() comes before compute()"
        modes = [self.modes(to_uint8(images)) for images, _ in fakes(self._num_images)]
        counts = torch.cat(modes).bincount(minlength=MODES)
        return {"modes": float((counts > 0).sum()), "kl_modes": divergence_from_uniform(counts)}

    def modes(self, images: Tensor) -> Tensor:
        """Return the mode [N] of uint8 images [N, 3, H, W]."""
        assert self._classifier is not None
        red, green, blue = (self._classifier.measure(images[:, c : c + 1])[1] for c in range(3))
        return 100 * red + 10 * green + blue


def divergence_from_uniform(counts: Tensor) -> float:
    """Return KL(counts / N || uniform) in nats; modes that never occur add nothing."""
    p = counts.double() / counts.sum()
    return float(torch.special.xlogy(p, p * len(counts)).sum())
