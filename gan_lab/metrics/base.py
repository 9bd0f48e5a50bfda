"""What training asks of a set of metrics, and the set that measures nothing."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from gan_lab.data.datamodule import ImageDataModule

Fakes = Callable[[int], Iterator[tuple[Tensor, Tensor | None]]]
"""`fakes(num_images)` yields batches that hold that many images in all: floats in [-1, 1] [B, C, H, W], and
their labels, int64 [B], or None when the generator takes none."""


class Metrics(Protocol):
    """A Hydra group, `metrics=`. Never part of a LightningModule: its networks belong in no checkpoint.

    Attributes:
        best: key of the figure that chooses the best checkpoint; None where there is none.
        mode: whether the smallest or the largest value of it is the best.
        protocol: how the figures are made (extractor and its SHA-256, transform, numbers of images), to be kept
            beside them; complete once `prepare` has run.
    """

    @property
    def best(self) -> str | None: ...

    @property
    def mode(self) -> Literal["min", "max"]: ...

    @property
    def protocol(self) -> dict[str, str | int]: ...

    def prepare(self, data: "ImageDataModule") -> None:
        """Get all that needs no generator: networks, statistics of the real images. Called before step 0.

        It may run on every rank at once: what is built lies in the cache, behind a file lock.

        Raises:
            InputError: when the figures cannot be computed for these data.
        """
        ...

    def compute(self, fakes: Fakes) -> dict[str, float]:
        """Measure generated images; on one rank, or on each for itself: nothing is gathered.

        Returns:
            Figures by key, without the prefix `metrics/`. A figure that could not be prepared is absent.
        """
        ...


class NoMetrics:
    """Measures nothing, so that the run needs no network and no second data set."""

    def __init__(self) -> None:
        self.best: str | None = None
        self.mode: Literal["min", "max"] = "min"
        self.protocol: dict[str, str | int] = {}

    def prepare(self, data: "ImageDataModule") -> None:
        """There is nothing to prepare."""

    def compute(self, fakes: Fakes) -> dict[str, float]:
        return {}
