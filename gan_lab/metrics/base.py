"""What training asks of a set of metrics, and the set that measures nothing."""

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from gan_lab.data.datamodule import ImageDataModule
    from gan_lab.metrics.images import ImageSource


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

        It may run on every rank at once, and each of them must call it.

        Raises:
            InputError: when the figures cannot be computed for these data.
        """
        ...

    def compute(self, fakes: "ImageSource") -> dict[str, float]:
        """Measure generated images; where there are several ranks, all of them call it and share the work.

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

    def compute(self, fakes: "ImageSource") -> dict[str, float]:
        return {}
