"""Samples for small networks."""

from torch import Tensor

from gan_lab.data.images import image_spec
from gan_lab.data.sample import Batch, SampleSpec


def images_of(
    size: int | list[int] | tuple[int, int], *, channels: int = 1, classes: int = 0
) -> SampleSpec:
    """Describe images of a size with so many classes."""
    height, width = (size, size) if isinstance(size, int) else size
    return image_spec(
        channels=channels,
        image_size=(height, width),
        class_names=[str(label) for label in range(classes)],
    )


def pair(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return samples and labels of a batch that has both."""
    assert batch.labels is not None
    return batch.real, batch.labels
