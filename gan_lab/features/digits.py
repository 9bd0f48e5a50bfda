"""The small classifier of scikit-learn's digits, trained on the spot, whose features compare with nothing else."""

import torch
from torch import Tensor

from gan_lab.features.base import Extractor
from gan_lab.metrics.digits_classifier import DigitsClassifier, Recipe, load_classifier


class DigitsFeatures(Extractor):
    """Features [64] and logits [10] of handwritten digits, on the CPU."""

    name = "gan_lab digits classifier"
    short = "digits"
    transform = "uint8, grey, antialiased bilinear to 16x16"
    channels: tuple[int, ...] = (1, 3, 4)

    def __init__(self) -> None:
        super().__init__(batch_size=64)
        self.outputs = {"features": Recipe().width, "logits": 10}
        self._classifier: DigitsClassifier | None = None

    def load(self, device: torch.device) -> None:
        # a forward pass takes a millisecond: nothing is gained elsewhere
        super().load(torch.device("cpu"))

    def _load(self, device: torch.device) -> str:
        self._classifier, sha256 = load_classifier()
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        assert self._classifier is not None
        features, logits = self._classifier.outputs(images)
        return {"features": features, "logits": logits}


class StackedDigitsFeatures(DigitsFeatures):
    """Which of 1000 modes an image of three stacked digits shows: 100 red + 10 green + blue.

    The classifier takes some real digits for others, so a few percent of the images count for another mode; that
    alters neither the number of modes nor their evenness much, since every mode then gets from others what it gives.
    """

    name = "gan_lab digits classifier, on each channel"
    short = "stacked_digits"
    transform = "uint8, antialiased bilinear to 16x16"
    channels = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"modes": 1}

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        assert self._classifier is not None
        red, green, blue = (
            self._classifier.outputs(images[:, c : c + 1])[1].argmax(1) for c in range(3)
        )
        return {"modes": (100 * red + 10 * green + blue).float()[:, None]}
