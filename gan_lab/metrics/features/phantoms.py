"""The small classifier of data=phantoms, trained on the spot, whose features compare with nothing else."""

import hashlib

import torch
from torch import Tensor

from gan_lab.data.phantoms import CLASSES, Phantoms
from gan_lab.metrics.cache import cached_tensors, tensors_sha256
from gan_lab.metrics.classifier import WIDTH, ImageClassifier, as_seen, train_classifier
from gan_lab.metrics.features.base import Extractor

_STEPS = 500
_LOWEST_ACCURACY = (
    0.93  # share of held-out slices, whose organs may be tiny, below which it is not used
)


def load_classifier() -> tuple[ImageClassifier, str]:
    """Take the classifier from the cache, or train it.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    held_out = Phantoms(split="val")

    def train() -> dict[str, Tensor]:
        images, labels = _seen(Phantoms(split="train"))
        return train_classifier(
            images, labels, num_classes=len(CLASSES), steps=_STEPS, seed=0
        ).state_dict()

    # rounding differs between versions of torch, and with it the weights
    made_from = f"{_STEPS} {held_out.fingerprint} {torch.__version__}"
    name = f"phantoms-classifier-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.pt"
    weights = cached_tensors(name, train)
    with torch.random.fork_rng(devices=[]):  # initialising moves the caller's random state
        classifier = ImageClassifier(channels=1, num_classes=len(CLASSES))
    classifier.load_state_dict(weights)
    classifier.eval().requires_grad_(False)
    images, labels = _seen(held_out)
    accuracy = (classifier.predict(images) == labels).double().mean().item()
    if accuracy < _LOWEST_ACCURACY:
        raise RuntimeError(
            f"the classifier knows {accuracy:.1%} of the held-out slices; below {_LOWEST_ACCURACY:.0%} its features "
            "measure nothing"
        )
    return classifier, tensors_sha256(weights)


def _seen(data: Phantoms) -> tuple[Tensor, Tensor]:
    batch = data.__getitems__(range(data.num_stored))
    assert batch.labels is not None
    return as_seen(data.spec.kind.measured(batch.real)), batch.labels


class PhantomsFeatures(Extractor):
    """Features [64] and logits [3] of slices of data=phantoms, on the CPU."""

    name = "gan_lab phantoms classifier"
    short = "phantoms"
    transform = "8 bits, mean of channels, antialiased bilinear to 32x32"

    def __init__(self) -> None:
        super().__init__(batch_size=64)
        self.outputs = {"features": WIDTH, "logits": len(CLASSES)}
        self._classifier: ImageClassifier | None = None

    def load(self, device: torch.device) -> None:
        # a forward pass takes a millisecond: nothing is gained elsewhere
        super().load(torch.device("cpu"))

    def _load(self, device: torch.device) -> str:
        self._classifier, sha256 = load_classifier()
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        assert self._classifier is not None
        with torch.autocast("cpu", enabled=False):
            features, logits = self._classifier(as_seen(images.float().mean(1, keepdim=True)))
        return {"features": features, "logits": logits}
