"""A small classifier of data=phantoms, trained on first use; not comparable with other features."""

import torch
from torch import Tensor

from gan_lab.data.phantoms import CLASSES, Phantoms
from gan_lab.metrics.classifier import (
    WIDTH,
    ClassifierFeatures,
    ImageClassifier,
    as_seen,
    cached_classifier,
    train_classifier,
)

_STEPS = 500
_LOWEST_ACCURACY = 0.93  # on held-out slices, whose organs may be tiny


def load_classifier() -> tuple[ImageClassifier, str]:
    """Load the classifier from the cache, or train it.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    data = Phantoms(split="val")

    def train() -> ImageClassifier:
        images, labels = _seen(Phantoms(split="train"))
        return train_classifier(images, labels, num_classes=len(CLASSES), steps=_STEPS, seed=0)

    return cached_classifier(
        "phantoms",
        f"{_STEPS} {data.fingerprint}",
        lambda: ImageClassifier(channels=1, num_classes=len(CLASSES)),
        train,
        _seen(data),
        _LOWEST_ACCURACY,
    )


def _seen(data: Phantoms) -> tuple[Tensor, Tensor]:
    batch = data.__getitems__(range(data.num_stored))
    assert batch.labels is not None
    return as_seen(data.spec.kind.measured(batch.real)), batch.labels


class PhantomsFeatures(ClassifierFeatures):
    """Features [64] and logits [3] of slices of data=phantoms, on the CPU."""

    name = "gan_lab phantoms classifier"
    short = "phantoms"
    transform = "8 bits, mean of channels, antialiased bilinear to 32x32"

    def __init__(self) -> None:
        super().__init__(batch_size=64)
        self.outputs = {"features": WIDTH, "logits": len(CLASSES)}

    def _load(self, device: torch.device) -> str:
        self.classifier, sha256 = load_classifier()
        return sha256

    def _forward(self, stored: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return super()._forward(as_seen(stored.float().mean(1, keepdim=True)), outputs)
