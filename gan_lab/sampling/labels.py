"""Labels as people give them: a class, a class for each image, or vectors that mix classes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError

Labels = int | Sequence[int] | Sequence[Sequence[float]] | Tensor


def check_labels(labels: Labels, num_images: int, num_classes: int) -> Tensor:
    """Return labels int64 [N], or float32 [N, num_classes] where they mix classes.

    Args:
        labels: one class for all, one for each image, or vectors [N, num_classes] of the classes' shares.
        num_images: N.
        num_classes: of the generator.

    Raises:
        InputError: for an unconditional generator, a class that there is not, or another shape.
    """
    if not num_classes:
        raise InputError("labels were given to a generator without classes; leave them out")
    try:
        chosen = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"labels={labels!r} are not whole numbers") from error
    if chosen.is_floating_point() and chosen.ndim == 2:
        return _vectors(chosen, num_images, num_classes)
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise InputError(
            f"labels={labels!r} are not whole numbers (nor vectors [N, {num_classes}] of shares)"
        )
    if chosen.ndim == 0:
        chosen = chosen.expand(num_images)
    if chosen.shape != (num_images,):
        raise InputError(
            f"labels have shape {tuple(chosen.shape)}; give one, or one for each of {num_images} images"
        )
    if chosen.min() < 0 or chosen.max() >= num_classes:
        wrong = chosen[(chosen < 0) | (chosen >= num_classes)][0]
        raise InputError(
            f"class {int(wrong)} is out of range: there are {num_classes}, 0 to {num_classes - 1}"
        )
    return chosen.long()


def check_classes(num_classes: int, spec: SampleSpec, *, origin: Path) -> None:
    """Check that what a file says of classes fits a generator.

    Raises:
        InputError: naming the file.
    """
    if not num_classes or spec.attributes:
        return
    for what, found in (("class counts", spec.class_counts), ("class names", spec.class_names)):
        if found and len(found) != num_classes:
            raise InputError(
                f"{origin} is damaged: it has {len(found)} {what} of a generator of {num_classes} classes"
            )
    if spec.class_counts and not any(spec.class_counts):
        raise InputError(f"{origin} is damaged: no class has an image")


def _vectors(labels: Tensor, num_images: int, num_classes: int) -> Tensor:
    if labels.shape != (num_images, num_classes):
        raise InputError(
            f"label vectors have shape {tuple(labels.shape)}; {num_images} images of {num_classes} classes take "
            f"{(num_images, num_classes)}"
        )
    if not labels.isfinite().all():
        raise InputError("label vectors hold NaN or infinity")
    return labels.float()


def as_vectors(labels: Tensor, num_classes: int) -> Tensor:
    """Return labels [N] as vectors float32 [N, num_classes]; vectors are returned as they are."""
    if labels.ndim == 2:
        return labels.float()
    return torch.nn.functional.one_hot(labels, num_classes).float()
