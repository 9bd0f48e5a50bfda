"""Images and extractors with known content."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gan_lab.data.base import digest
from gan_lab.metrics.features import Extractor
from gan_lab.metrics.sources import ImageSource


def textures(
    num: int, seed: int, *, channels: int = 3, size: int = 32, contrast: float = 1.0
) -> Tensor:
    """uint8 [num, channels, size, size]: waves of random direction, color and brightness."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    u, v, phase = rng.uniform(1, 6, (3, num, channels, 1, 1))
    waves = np.sin(2 * np.pi * (u * x + v * y + phase)) * rng.uniform(0.2, 1, (num, channels, 1, 1))
    return torch.from_numpy(np.rint(127.5 + 127.5 * contrast * waves).astype(np.uint8))


class FixedImages(ImageSource):
    """Given images, repeated if more are requested."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        names: Sequence[str] = (),
        endless: bool = True,
    ) -> None:
        self.images = images
        self._labels = labels
        self.name = "fixed images"
        self.count = None if endless else len(images)
        self.shape = tuple(images.shape[1:])
        if labels is not None:
            self.class_names = tuple(names) or tuple(map(str, range(int(labels.max()) + 1)))
            self.num_classes = len(self.class_names)
        self.description = {"fingerprint": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        return digest(self.images.numpy().tobytes())

    def read(self, start: int, stop: int) -> Tensor:
        return self.images[torch.arange(start, stop) % len(self.images)]

    def labels(self, start: int, stop: int) -> Tensor | None:
        if self._labels is None:
            return None
        return self._labels[torch.arange(start, stop) % len(self._labels)]


class Projection(Extractor):
    """Random projections of the pixels in place of a network; counts the images that it gets.

    Attributes:
        seen: images so far, those that fill up a forward pass not counted.
        stop_after: raise KeyboardInterrupt beyond so many images.
    """

    name = "projection"
    short = "projection"
    transform = "pixels"

    def __init__(self, *, width: int = 16, batch_size: int | None = None, logits: int = 4) -> None:
        super().__init__(batch_size=batch_size)
        self.outputs = {"features": width, "logits": logits}
        self.seen = 0
        self.stop_after: int | None = None
        self.load(torch.device("cpu"))

    def __call__(self, images: Tensor, outputs: Sequence[str]) -> dict[str, Tensor]:  # type: ignore[override]
        if self.stop_after is not None and self.seen + len(images) > self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return super().__call__(images, outputs)

    def _load(self, device: torch.device) -> str:
        return "0" * 64

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        pixels = images.flatten(1).float() / 255
        return {
            name: pixels
            @ torch.randn(
                pixels.shape[1],
                self.outputs[name],
                generator=torch.Generator().manual_seed(len(name)),
            )
            for name in outputs
        }
