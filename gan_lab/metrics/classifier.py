"""Small classifiers, trained on first use: the same weights for the same data and seed."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.metrics.cache import cached_tensors, tensors_sha256
from gan_lab.metrics.features.base import Extractor

SIDE = 32  # pixels that it sees
WIDTH = 64  # of its features

_CHANNELS = 16  # of the first convolution


C = TypeVar("C", bound=Any)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Hyperparameters of `train`."""

    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1


def train(
    classifier: nn.Module,
    labels: Tensor,
    training: Training,
    steps: int,
    generator: torch.Generator,
    batch: Callable[[Tensor], Tensor],
) -> None:
    """Train a classifier with AdamW and one cycle of learning rates.

    Args:
        classifier: samples -> features and logits.
        labels: int64 [N].
        training: hyperparameters.
        steps: batches.
        generator: draws the batches.
        batch: samples of some indices.
    """
    optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.learning_rate, steps)
    for _ in range(steps):
        chosen = torch.randint(len(labels), (training.batch_size,), generator=generator)
        _, logits = classifier(batch(chosen))
        loss = F.cross_entropy(logits, labels[chosen], label_smoothing=training.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@contextmanager
def isolated(seed: int) -> Iterator[torch.Generator]:
    """Isolate the training from the caller's random state and settings.

    One thread, because splitting sums over threads changes their last bits. Initialisation uses the global generator,
    whose state is restored.
    """
    threads = torch.get_num_threads()
    generator = torch.default_generator
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.random.fork_rng(devices=[]),
    ):
        try:
            torch.set_num_threads(1)
            generator.manual_seed(seed)
            yield generator
        finally:
            torch.set_num_threads(threads)


def cached_classifier(
    name: str,
    key: str,
    build: Callable[[], C],
    train: Callable[[], C],
    held_out: tuple[Tensor, Tensor],
    lowest_accuracy: float,
) -> tuple[C, str]:
    """Load a classifier from the cache, or train it, and check its accuracy on held-out samples.

    Args:
        name: of the data.
        key: everything that determines the weights, except the version of torch.
        build: makes an untrained network.
        train: makes a trained one.
        held_out: stored samples and labels.
        lowest_accuracy: below this, RuntimeError is raised.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    # weights depend on the version of torch by rounding
    digest = hashlib.sha256(f"{key} {torch.__version__}".encode()).hexdigest()[:16]
    weights = cached_tensors(f"{name}-classifier-{digest}.pt", lambda: train().state_dict())
    with torch.random.fork_rng(devices=[]):  # initialising changes the caller's random state
        classifier = build()
    classifier.load_state_dict(weights)
    classifier.eval().requires_grad_(False)
    found = classifier.outputs(held_out[0])[1].argmax(1)
    accuracy = (found == held_out[1]).double().mean().item()
    if accuracy < lowest_accuracy:
        raise RuntimeError(
            f"the {name} classifier has an accuracy of {accuracy:.1%} on held-out samples, below {lowest_accuracy:.0%}"
        )
    return classifier, tensors_sha256(weights)


class ClassifierFeatures(Extractor):
    """Features and logits of a small classifier that is trained on first use, on the CPU."""

    classifier: Any

    def load(self, device: torch.device) -> None:
        # a forward pass takes a millisecond: no need for a GPU
        super().load(torch.device("cpu"))

    def _forward(self, stored: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        features, logits = self.classifier.outputs(stored)
        return {"features": features, "logits": logits}


class ImageClassifier(nn.Module):
    """Three convolutions and a hidden layer, whose activations are the features.

    Args:
        channels: of images.
        num_classes: of logits.
    """

    def __init__(self, *, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [channels, *(_CHANNELS * 2**i for i in range(3))]
        self.body = nn.Sequential()
        for ins, outs in pairwise(widths):
            self.body.extend(
                [
                    nn.Conv2d(ins, outs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outs),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                ]
            )
        self.body.extend(
            [nn.Flatten(), nn.Linear(widths[-1] * (SIDE // 8) ** 2, WIDTH), nn.LeakyReLU(0.1)]
        )
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 64] and logits [N, classes] of images [N, C, 32, 32] in [-1, 1]."""
        features = self.body(images)
        return features, self.head(features)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of images [N, C, 32, 32], in float32."""
        with torch.autocast("cpu", enabled=False):
            features, logits = self(images)
        return features, logits

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Most likely class [N] of images [N, C, 32, 32] in [-1, 1]."""
        with torch.autocast("cpu", enabled=False):
            return torch.cat([self(part)[1].argmax(1) for part in images.split(256)])


def as_seen(images: Tensor) -> Tensor:
    """Return stored 8-bit images [N, C, H, W] as the classifier sees them, float32 [N, C, 32, 32] on the CPU."""
    values = images.cpu().float() / 127.5 - 1
    return F.interpolate(values, (SIDE, SIDE), mode="bilinear", antialias=True)


def train_classifier(
    images: Tensor, labels: Tensor, *, num_classes: int, steps: int, seed: int
) -> ImageClassifier:
    """Train on the CPU with one thread; no random state of the caller is read or moved.

    Args:
        images: as `as_seen` returns them.
        labels: int64 [N].
        num_classes: that there are.
        steps: of 64 images each.
        seed: of weights and batches.
    """
    with isolated(seed) as generator:
        classifier = ImageClassifier(channels=images.shape[1], num_classes=num_classes)
        train(classifier, labels, Training(), steps, generator, lambda chosen: images[chosen])
    return classifier.eval().requires_grad_(False)
