"""A small classifier of scikit-learn's digits, trained on first use; not comparable with other features."""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.data.base import ImageDataset
from gan_lab.data.digits import Digits
from gan_lab.data.images import to_float
from gan_lab.metrics.cache import tensors_sha256
from gan_lab.metrics.classifier import (
    ClassifierFeatures,
    Training,
    cached_classifier,
    isolated,
    train,
)


@dataclass(frozen=True, kw_only=True)
class Recipe(Training):
    """Hyperparameters of the classifier.

    Args:
        width: of the feature layer; well below the 360 held-out digits, for a covariance of full rank.
        max_shift: pixels by which training digits are shifted.
        lowest_accuracy: required accuracy on held-out digits.
    """

    image_size: int = 16
    channels: int = 16
    width: int = 64
    epochs: int = 15
    max_shift: int = 1
    learning_rate: float = 6e-3
    seed: int = 0
    lowest_accuracy: float = 0.97


class DigitsClassifier(nn.Module):
    """Two convolutions and a hidden layer, the features."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.image_size = recipe.image_size
        channels = recipe.channels
        self.body = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * channels * (recipe.image_size // 4) ** 2, recipe.width),
            nn.ReLU(),
        )
        self.head = nn.Linear(recipe.width, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, width] and logits [N, 10] of grey images in [-1, 1] [N, 1, size, size]."""
        features = self.body(images)
        return features, self.head(features)

    @torch.inference_mode()
    def measure(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, width] and most likely digit [N] of uint8 images [N, C, H, W] of any size, on the CPU.

        Colours are averaged; the alpha channel of RGBA images is left out.
        """
        features, logits = self.outputs(images)
        return features, logits.argmax(dim=1)

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, width] and logits [N, 10] of the same images."""
        grey = to_float(images.cpu())[:, :3].mean(dim=1, keepdim=True)  # [N, 1, H, W]
        size = (self.image_size, self.image_size)
        if grey.shape[2:] != size:
            grey = F.interpolate(grey, size, mode="bilinear", antialias=True)
        with torch.autocast("cpu", enabled=False):
            features, logits = self(grey)
        return features, logits


def load_classifier(recipe: Recipe | None = None) -> tuple[DigitsClassifier, str]:
    """Load the classifier from the cache, or train it.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    recipe = recipe or Recipe()
    train, held_out = (
        stored_images(
            Digits(split=split, image_size=recipe.image_size, resample="bicubic", channels=1)
        )
        for split in ("train", "val")
    )
    data = tensors_sha256({"images": train[0], "labels": train[1]})
    return cached_classifier(
        "digits",
        f"{dataclasses.asdict(recipe)} {data}",
        lambda: DigitsClassifier(recipe),
        lambda: train_classifier(recipe, *train),
        held_out,
        recipe.lowest_accuracy,
    )


def stored_images(dataset: ImageDataset) -> tuple[Tensor, Tensor]:
    """All images of a small set, not mirrored: uint8 [N, C, H, W] and labels [N]."""
    batch = dataset.__getitems__(range(dataset.num_stored))
    assert batch.labels is not None
    return batch.real, batch.labels


def train_classifier(recipe: Recipe, images: Tensor, labels: Tensor) -> DigitsClassifier:
    """Train the classifier, independent of the caller's random state.

    Args:
        recipe: how.
        images: uint8 [N, 1, size, size].
        labels: int64 [N].
    """
    with isolated(recipe.seed) as generator:
        classifier = DigitsClassifier(recipe)
        images = to_float(images)
        train(
            classifier, labels, recipe, recipe.epochs * len(labels) // recipe.batch_size, generator,
            lambda chosen: _shift(images[chosen], recipe.max_shift, generator),
        )  # fmt: skip
    return classifier.eval()


def _shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `most` pixels in both directions, filling with black."""
    num, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most), value=-1)[:, 0]
    down, right = torch.randint(2 * most + 1, (2, num, 1), generator=generator)
    rows, columns = torch.arange(height) + down, torch.arange(width) + right  # [N, H], [N, W]
    return padded[torch.arange(num)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


class DigitsFeatures(ClassifierFeatures):
    """Features [64] and logits [10] of handwritten digits, on the CPU."""

    name = "gan_lab digits classifier"
    short = "digits"
    transform = "uint8, grey, antialiased bilinear to 16x16"
    channels: tuple[int, ...] = (1, 3, 4)

    def __init__(self) -> None:
        super().__init__(batch_size=64)
        self.outputs = {"features": Recipe().width, "logits": 10}

    def _load(self, device: torch.device) -> str:
        self.classifier, sha256 = load_classifier()
        return sha256


class StackedDigitsFeatures(DigitsFeatures):
    """Which of 1000 modes an image of three stacked digits shows: 100 red + 10 green + blue.

    The classifier errs on some digits, so a few percent of the images count for another mode, which hardly changes the
    number of modes or their uniformity.
    """

    name = "gan_lab digits classifier, on each channel"
    short = "stacked_digits"
    transform = "uint8, antialiased bilinear to 16x16"
    channels = (3,)

    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"modes": 1}

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        red, green, blue = (
            self.classifier.outputs(images[:, c : c + 1])[1].argmax(1) for c in range(3)
        )
        return {"modes": (100 * red + 10 * green + blue).float()[:, None]}
