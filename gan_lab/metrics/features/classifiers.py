"""Small classifiers of the built-in data (digits, phantoms, tones) as features, trained on first use on the CPU.

The same data and seed give the same weights. Their features are comparable with no others.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.data.audio import FULL_SCALE
from gan_lab.data.base import SampleDataset
from gan_lab.data.builtin import PHANTOM_CLASSES, PITCHES, TONE_LENGTH, Digits, Phantoms, Tones
from gan_lab.data.images import to_float
from gan_lab.errors import InputError
from gan_lab.metrics.cache import cached_tensors, tensors_sha256
from gan_lab.metrics.features import Extractor

SIDE = 32  # pixels of an image that ImageClassifier takes
WIDTH = 64  # of the features of all classifiers

_CHANNELS = 16  # of ImageClassifier's first convolution


class Classifier(nn.Module):
    """A body that gives features [N, 64], and a linear head."""

    body: nn.Sequential
    head: nn.Linear

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 64] and logits [N, classes] of a batch of `inputs`."""
        features = self.body(x)
        return features, self.head(features)

    def inputs(self, stored: Tensor) -> Tensor:
        """Return what `forward` takes, of stored samples."""
        return stored

    def outputs(self, stored: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 64] and logits [N, classes] of stored samples, in float32."""
        with torch.autocast("cpu", enabled=False):
            features, logits = self(self.inputs(stored))
        return features, logits


C = TypeVar("C", bound=Classifier)


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

    One thread, because splitting sums over threads changes their last bits. Initialization uses the global generator,
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
    with torch.random.fork_rng(devices=[]):  # initializing changes the caller's random state
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
    """Features and logits of a small classifier that is trained on first use, on the CPU.

    Args:
        load: returns the classifier and the SHA-256 of its weights.
        num_classes: of its logits.
    """

    classifier: Classifier

    def __init__(self, load: Callable[[], tuple[Classifier, str]], num_classes: int) -> None:
        super().__init__(batch_size=64)
        self._load_classifier = load
        self.outputs = {"features": WIDTH, "logits": num_classes}

    def load(self, device: torch.device) -> None:
        # a forward pass takes a millisecond: no need for a GPU
        super().load(torch.device("cpu"))

    def _load(self, device: torch.device) -> str:
        self.classifier, sha256 = self._load_classifier()
        return sha256

    def _forward(self, stored: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        features, logits = self.classifier.outputs(stored)
        return {"features": features, "logits": logits}


def all_samples(dataset: SampleDataset) -> tuple[Tensor, Tensor]:
    """Return all stored samples [N, ...] of a small data set, not mirrored, and their labels [N]."""
    count = len(dataset) // (2 if dataset.flip else 1)
    batch = dataset.__getitems__(range(count))
    assert batch.labels is not None
    return batch.real, batch.labels


# Any images, and phantoms


class ImageClassifier(Classifier):
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


def load_phantoms_classifier(
    steps: int = 500, lowest_accuracy: float = 0.93
) -> tuple[ImageClassifier, str]:
    """Load the classifier of data=phantoms from the cache, or train it.

    Args:
        steps: of training.
        lowest_accuracy: required accuracy on held-out slices, whose organs may be tiny.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    num_classes = len(PHANTOM_CLASSES)
    data = Phantoms(split="val")

    def seen(data: Phantoms) -> tuple[Tensor, Tensor]:
        images, labels = all_samples(data)
        return as_seen(data.spec.kind.measured(images)), labels

    def train() -> ImageClassifier:
        images, labels = seen(Phantoms(split="train"))
        return train_classifier(images, labels, num_classes=num_classes, steps=steps, seed=0)

    return cached_classifier(
        "phantoms",
        f"{steps} {data.fingerprint}",
        lambda: ImageClassifier(channels=1, num_classes=num_classes),
        train,
        seen(data),
        lowest_accuracy,
    )


class PhantomsFeatures(ClassifierFeatures):
    """Features [64] and logits [3] of slices of data=phantoms, on the CPU."""

    name = "gan_lab phantoms classifier"
    short = "phantoms"
    transform = "8 bits, mean of channels, antialiased bilinear to 32x32"

    def __init__(self) -> None:
        super().__init__(load_phantoms_classifier, len(PHANTOM_CLASSES))

    def _forward(self, stored: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return super()._forward(as_seen(stored.float().mean(1, keepdim=True)), outputs)


# Digits


@dataclass(frozen=True, kw_only=True)
class DigitsRecipe(Training):
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


class DigitsClassifier(Classifier):
    """Two convolutions and a hidden layer, the features."""

    def __init__(self, recipe: DigitsRecipe) -> None:
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

    @torch.inference_mode()
    def measure(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, width] and most likely digit [N] of uint8 images [N, C, H, W] of any size, on the CPU.

        Colors are averaged; the alpha channel of RGBA images is left out.
        """
        features, logits = self.outputs(images)
        return features, logits.argmax(dim=1)

    def inputs(self, stored: Tensor) -> Tensor:
        """Return the same images in gray and [-1, 1], [N, 1, size, size]."""
        gray = to_float(stored.cpu())[:, :3].mean(dim=1, keepdim=True)  # [N, 1, H, W]
        size = (self.image_size, self.image_size)
        if gray.shape[2:] != size:
            gray = F.interpolate(gray, size, mode="bilinear", antialias=True)
        return gray


def load_digits_classifier(recipe: DigitsRecipe | None = None) -> tuple[DigitsClassifier, str]:
    """Load the classifier of digits from the cache, or train it.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    recipe = recipe or DigitsRecipe()
    train, held_out = (
        all_samples(
            Digits(split=split, image_size=recipe.image_size, resample="bicubic", channels=1)
        )
        for split in ("train", "val")
    )
    data = tensors_sha256({"images": train[0], "labels": train[1]})
    return cached_classifier(
        "digits",
        f"{dataclasses.asdict(recipe)} {data}",
        lambda: DigitsClassifier(recipe),
        lambda: train_digits_classifier(recipe, *train),
        held_out,
        recipe.lowest_accuracy,
    )


def train_digits_classifier(
    recipe: DigitsRecipe, images: Tensor, labels: Tensor
) -> DigitsClassifier:
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
    transform = "uint8, gray, antialiased bilinear to 16x16"
    channels: tuple[int, ...] = (1, 3, 4)

    def __init__(self) -> None:
        super().__init__(load_digits_classifier, num_classes=10)


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


# Tones


@dataclass(frozen=True, kw_only=True)
class TonesRecipe(Training):
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


class TonesClassifier(Classifier):
    """Two convolutions over the frames of a spectrogram and a hidden layer, the features."""

    hann: Tensor

    def __init__(self, recipe: TonesRecipe) -> None:
        super().__init__()
        self.register_buffer("hann", torch.hann_window(recipe.window), persistent=False)
        channels = recipe.channels
        frames = 2 * TONE_LENGTH // recipe.window + 1
        self.body = nn.Sequential(
            nn.Conv1d(recipe.window // 2 + 1, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * ((frames + 3) // 4), recipe.width),
            nn.LeakyReLU(0.1),
        )
        self.head = nn.Linear(recipe.width, len(PITCHES))

    def inputs(self, stored: Tensor) -> Tensor:
        """Return log-spectrograms [N, F, T], about from -1 to 1, of clips int16 [N, C, 4096]."""
        values = stored.cpu().float().mean(1) / FULL_SCALE
        window = len(self.hann)
        found = torch.stft(values, window, window // 2, window=self.hann, return_complex=True).abs()
        return found.clamp_min(1e-3).log() / 5


def load_tones_classifier(recipe: TonesRecipe | None = None) -> tuple[TonesClassifier, str]:
    """Load the classifier of data=tones from the cache, or train it.

    Returns:
        The network, and the SHA-256 of its weights.
    """
    recipe = recipe or TonesRecipe()
    data = Tones(split="val")
    return cached_classifier(
        "tones",
        f"{dataclasses.asdict(recipe)} {data.fingerprint}",
        lambda: TonesClassifier(recipe),
        lambda: train_tones_classifier(recipe),
        all_samples(data),
        recipe.lowest_accuracy,
    )


def train_tones_classifier(recipe: TonesRecipe) -> TonesClassifier:
    """Train the classifier, independent of the caller's random state."""
    clips, labels = all_samples(Tones(split="train"))
    with isolated(recipe.seed) as generator:
        classifier = TonesClassifier(recipe)
        frames = classifier.inputs(clips)
        steps = recipe.epochs * len(labels) // recipe.batch_size
        train(classifier, labels, recipe, steps, generator, lambda chosen: frames[chosen])
    return classifier.eval()


class TonesFeatures(ClassifierFeatures):
    """Features [64] and logits [12] of the clips of data=tones, on the CPU."""

    name = "gan_lab tones classifier"
    short = "tones"
    transform = "int16 / 32767, mean of channels, logarithm of |STFT|"

    def __init__(self) -> None:
        super().__init__(load_tones_classifier, len(PITCHES))

    def check(self, shape: tuple[int, ...], what: str) -> None:
        if len(shape) != 2 or shape[1] != TONE_LENGTH:
            raise InputError(
                f"{what} have the shape {list(shape)}, and the tones classifier takes [C, {TONE_LENGTH}]"
            )
