"""A small classifier of data=tones, trained on first use; not comparable with other features."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_lab.data.audio import FULL_SCALE
from gan_lab.data.tones import CLASSES, LENGTH, Tones
from gan_lab.errors import InputError
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
        window: of its spectrogram, in samples, with half of it as hop.
        width: of the feature layer; well below the 1,024 held-out clips, for a covariance of full rank.
        lowest_accuracy: required accuracy on held-out clips.
    """

    window: int = 512
    channels: int = 64
    width: int = 64
    epochs: int = 6
    seed: int = 0
    lowest_accuracy: float = 0.97


class TonesClassifier(nn.Module):
    """Two convolutions over the frames of a spectrogram and a hidden layer, the features."""

    hann: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.register_buffer("hann", torch.hann_window(recipe.window), persistent=False)
        channels = recipe.channels
        frames = 2 * LENGTH // recipe.window + 1
        self.body = nn.Sequential(
            nn.Conv1d(recipe.window // 2 + 1, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * ((frames + 3) // 4), recipe.width),
            nn.LeakyReLU(0.1),
        )
        self.head = nn.Linear(recipe.width, len(CLASSES))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, width] and logits [N, 12] of spectrograms [N, F, T]."""
        features = self.body(frames)
        return features, self.head(features)

    def spectrograms(self, clips: Tensor) -> Tensor:
        """Levels [N, F, T] of clips int16 [N, C, 4096], about from -1 to 1."""
        values = clips.cpu().float().mean(1) / FULL_SCALE
        window = len(self.hann)
        found = torch.stft(values, window, window // 2, window=self.hann, return_complex=True).abs()
        return found.clamp_min(1e-3).log() / 5

    def outputs(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, width] and logits [N, 12] of clips int16 [N, C, 4096], on the CPU."""
        with torch.autocast("cpu", enabled=False):
            features, logits = self(self.spectrograms(clips))
        return features, logits


def load_classifier(recipe: Recipe | None = None) -> tuple[TonesClassifier, str]:
    """Load the classifier from the cache, or train it.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    recipe = recipe or Recipe()
    data = Tones(split="val")
    return cached_classifier(
        "tones",
        f"{dataclasses.asdict(recipe)} {data.fingerprint}",
        lambda: TonesClassifier(recipe),
        lambda: train_classifier(recipe),
        clips(data),
        recipe.lowest_accuracy,
    )


def clips(data: Tones) -> tuple[Tensor, Tensor]:
    """Return all clips int16 [N, 1, 4096] and labels [N]."""
    batch = data.__getitems__(range(len(data)))
    assert batch.labels is not None
    return batch.real, batch.labels


def train_classifier(recipe: Recipe) -> TonesClassifier:
    """Train the classifier, independent of the caller's random state."""
    samples, labels = clips(Tones(split="train"))
    with isolated(recipe.seed) as generator:
        classifier = TonesClassifier(recipe)
        frames = classifier.spectrograms(samples)
        steps = recipe.epochs * len(labels) // recipe.batch_size
        train(classifier, labels, recipe, steps, generator, lambda chosen: frames[chosen])
    return classifier.eval()


class TonesFeatures(ClassifierFeatures):
    """Features [64] and logits [12] of the clips of data=tones, on the CPU."""

    name = "gan_lab tones classifier"
    short = "tones"
    transform = "int16 / 32767, mean of channels, logarithm of |STFT|"

    def __init__(self) -> None:
        super().__init__(batch_size=64)
        self.outputs = {"features": Recipe().width, "logits": len(CLASSES)}

    def check(self, shape: tuple[int, ...], what: str) -> None:
        if len(shape) != 2 or shape[1] != LENGTH:
            raise InputError(
                f"{what} have the shape {list(shape)}, and the tones classifier takes [C, {LENGTH}]"
            )

    def _load(self, device: torch.device) -> str:
        self.classifier, sha256 = load_classifier()
        return sha256
