"""The real images that generated ones are compared with, when they are not simply the whole data set."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.base import ImageDataset, digest


class RealSample(ImageDataset):
    """Stored images of a data set, without their mirror images.

    Args:
        whole: where they are taken from.
        num: how many; fewer than there are gives a random choice, which depends on the numbers alone.
    """

    def __init__(self, whole: ImageDataset, *, num: int) -> None:
        # the order of a data set is mostly that of its classes, so the first ones would be no sample of it
        chosen = np.sort(np.random.default_rng(0).permutation(whole.num_stored)[:num])
        super().__init__(
            split=whole.split,
            image_size=whole.image_size,
            channels=whole.channels,
            class_names=whole.class_names,
            labels=whole.labels[chosen],
            flip=False,
        )
        self.in_memory = whole.in_memory
        self._whole = whole
        self._chosen = chosen

    @property
    def fingerprint(self) -> str:
        """Digest of the whole and of the choice."""
        return digest(self._whole.fingerprint, self._chosen.tobytes())

    def load(self, index: int) -> Tensor:
        return self._whole.load(int(self._chosen[index]))

    def name(self, index: int) -> str:
        return self._whole.name(int(self._chosen[index]))

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        images, _ = self._whole.__getitems__(self._chosen[stored].tolist())
        return images, stored
