"""Metrics of images instead of features: gray levels, and accuracy of a classifier trained on them."""

from collections.abc import Iterator
from typing import Any

import torch
from scipy.stats import ks_2samp
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric, in_thousands
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.features.classifiers import as_seen, train_classifier
from gan_lab.metrics.sources import ImageSource

_BLOCK = 64  # images that are read at a time


class ImageMetric(ProtocolMetric):
    """Compares generated images with real ones without an extractor.

    Args:
        key: of the metric; None for the default.
    """

    def __init__(self, *, key: str | None = None) -> None:
        super().__init__(key=key)

    def key(self, context: MetricContext) -> str:
        return self._key or f"{self.short}_{in_thousands(context.num_fake)}"

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if context.fake is None:
            return
        real_images(context, self.kind)
        if len(context.fake.shape) != 3:
            raise InputError(
                f"metrics.{self.kind} is of images, and {context.fake.name} have the shape {list(context.fake.shape)}"
            )


def real_images(context: MetricContext, kind: str) -> ImageSource:
    """Return the real images, for a metric that needs more than features.

    Raises:
        InputError: when they are not there.
    """
    if context.real is None or context.real.count is None:
        raise InputError(
            f"metrics.{kind} needs real images; give a run whose data are there, or real= with images"
        )
    return context.real


def held_out_images(context: MetricContext, kind: str) -> ImageSource:
    """Return the held-out images.

    Raises:
        InputError: when the data have none.
    """
    if context.held_out is None:
        raise InputError(
            f"metrics.{kind} needs held-out images, and the data have none; train with "
            "data.val_fraction=0.1, or give others: held_out=FOLDER"
        )
    return context.held_out


def blocks(count: int, size: int = _BLOCK) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of images that are read together."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


class GrayLevels(ImageMetric):
    """Kolmogorov-Smirnov distance of the levels of generated and real pixels, with all their bits.

    The largest difference between the shares of pixels up to a level: 0 for the same levels, 1 where all levels of one
    set lie below those of the other. It ignores where in an image levels are.

    Args:
        num_pixels: of each image, at the same random positions of all.
        key: of the metric; None for the default.
    """

    kind, short = "gray_levels", "ks_gray"
    has_references = True

    def __init__(self, *, num_pixels: int = 1024, key: str | None = None) -> None:
        super().__init__(key=key)
        if num_pixels < 1:
            raise InputError(f"metrics.gray_levels.num_pixels={num_pixels} must be at least 1")
        self._num_pixels = num_pixels

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        value = self._distance(fake.source, context.num_fake, context)
        return [MetricValue(key=self.key(context), value=value)]

    def references(
        self, real: FeatureSet | None, other: FeatureSet | None, context: MetricContext
    ) -> list[MetricValue]:
        """Evaluate the other split: the metric of a generator that draws from it."""
        if other is None:
            return []
        value = self._distance(other.source, other.count, context)
        return [MetricValue(key=f"{self.key(context)}_real", value=value)]

    def _distance(self, images: ImageSource, count: int, context: MetricContext) -> float:
        real = real_images(context, self.kind)
        ours, theirs = self._levels(images, count), self._levels(real, context.num_real)
        return float(ks_2samp(ours.numpy(), theirs.numpy(), method="asymp").statistic)

    def _levels(self, images: ImageSource, count: int) -> Tensor:
        """Levels of some pixels of all images, float32."""
        size = torch.Size(images.shape).numel()
        chosen = torch.randint(
            size, (self._num_pixels,), generator=torch.Generator().manual_seed(0)
        )
        parts = [
            images.stored(start, stop).cpu().flatten(1).float()[:, chosen].flatten()
            for start, stop in blocks(count)
        ]
        return torch.cat(parts)


class Utility(ImageMetric):
    """Accuracy on held-out real images of a small classifier that learned from generated images and their labels.

    `<key>_real` is the accuracy of one trained on the same number of real images, for comparison. Both see images in 8
    bits at 32x32, and differ from seed to seed in weights and batches. Known as "train on synthetic, test on real":
    Esteban et al. 2017, https://arxiv.org/abs/1706.02633; Ravuri & Vinyals 2019, https://arxiv.org/abs/1905.10887.

    Args:
        seeds: how many classifiers of each kind; the uncertainty is their standard deviation.
        steps: of training, of 64 images each.
        key: of the metric; None for the default.
    """

    kind, short = "utility", "utility"

    def __init__(self, *, seeds: int = 3, steps: int = 400, key: str | None = None) -> None:
        super().__init__(key=key)
        if seeds < 2 or steps < 1:
            raise InputError(
                f"metrics.utility: seeds={seeds} must be at least 2, and steps={steps} at least 1"
            )
        self._seeds, self._steps = seeds, steps

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if context.fake is None:
            return
        for images in (
            context.fake,
            real_images(context, self.kind),
            held_out_images(context, self.kind),
        ):
            if images.num_classes < 2:
                raise InputError(
                    f"metrics.utility trains a classifier, and {images.name} have no classes; give data and a "
                    "generator with classes"
                )
            if images.num_classes != context.fake.num_classes:
                raise InputError(
                    f"metrics.utility: {context.fake.name} have {context.fake.num_classes} classes and {images.name} "
                    f"{images.num_classes}"
                )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        training = real_images(context, self.kind)
        held_out = held_out_images(context, self.kind)
        assert training.count is not None and held_out.count is not None
        count = min(context.num_fake, training.count)
        order = torch.randperm(training.count, generator=torch.Generator().manual_seed(0))[:count]
        test = _examples(held_out, torch.arange(held_out.count))
        key = self.key(context)
        common = {
            "images": count,
            "held_out": held_out.count,
            # the accuracy of always predicting the most frequent class
            "most_frequent": float(test[1].bincount().max() / len(test[1])),
        }
        return [
            self._value(name, _examples(source, rows), test, fake.source.num_classes, common)
            for name, source, rows in (
                (key, fake.source, torch.arange(count)),
                (f"{key}_real", training, order.sort().values),
            )
        ]

    def _value(
        self,
        key: str,
        examples: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        num_classes: int,
        common: dict[str, Any],
    ) -> MetricValue:
        found = []
        for seed in range(self._seeds):
            classifier = train_classifier(
                *examples, num_classes=num_classes, steps=self._steps, seed=seed
            )
            found.append(classifier.predict(test[0]) == test[1])
        right = torch.stack(found).double()  # [seeds, N]
        classes = {
            label: right[:, test[1] == label].mean().item() for label in test[1].unique().tolist()
        }
        accuracies = right.mean(1)
        return MetricValue(
            key=key,
            value=accuracies.mean().item(),
            uncertainty=accuracies.std().item(),
            uncertainty_kind="std",
            detail={**common, "accuracies": accuracies.tolist(), "accuracy_of_class": classes},
        )


def _examples(images: ImageSource, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Images `rows` of a source as the classifier sees them, [N, C, 32, 32], and their labels [N]."""
    last = int(rows[-1]) + 1
    seen, labels = [], []
    for start, stop in blocks(last):
        chosen = rows[(rows >= start) & (rows < stop)] - start
        if len(chosen):
            seen.append(as_seen(images.read(start, stop).cpu()[chosen]))
            found = images.labels(start, stop)
            assert found is not None
            labels.append(found.cpu()[chosen])
    return torch.cat(seen), torch.cat(labels)
