"""Where images to measure come from: numbered ones, so that a block of them is the same in any process."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.base import SampleDataset, digest
from gan_lab.data.sample import SampleKind
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan

_DECODING_THREADS = 8


class ImageSource(ABC):
    """Numbered stored samples of one shape.

    Attributes:
        name: what a user would call it.
        count: how many there are; None for a generator, which has as many as are asked for.
        shape: of one stored sample, such as [C, H, W].
        kind: of sample; None where nothing says so.
        num_classes: at least 2 where images have labels, else 0.
        class_names: of the labels; as many as `num_classes`.
        description: what decides the images, for results.
        in_memory: whether reading takes so little time that nothing is gained by doing it ahead.
    """

    name: str
    count: int | None
    shape: tuple[int, ...]
    kind: SampleKind | None = None
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    description: Mapping[str, Any] = {}
    in_memory: bool = True

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names what the images are: a key for caches."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Tensor:
        """Samples `start` to `stop`, [stop - start, ...], as they are stored, on any device.

        Raises:
            InputError: naming an image that cannot be read.
        """

    def labels(self, start: int, stop: int) -> Tensor | None:
        """Labels of those images, int64 [stop - start] on the CPU; None where there are none."""
        return None


def label_difference(one: ImageSource, other: ImageSource) -> str | None:
    """Return how the classes of two sets differ, as a sentence; None where they do not, or one set has none.

    Names that are only numbers say nothing, and are not compared.
    """
    if not one.num_classes or not other.num_classes:
        return None
    if one.num_classes != other.num_classes:
        return f"{one.name} has {one.num_classes} classes and {other.name} {other.num_classes}"
    numbers = tuple(map(str, range(one.num_classes)))
    if numbers in (one.class_names, other.class_names):
        return None
    for label, (ours, theirs) in enumerate(zip(one.class_names, other.class_names, strict=True)):
        if ours != theirs:
            return f"class {label} is {ours!r} of {one.name} and {theirs!r} of {other.name}"
    return None


class DatasetImages(ImageSource):
    """The stored images of a data set, or some of them.

    Args:
        dataset: whose mirror images count only with `flips`.
        num: how many at most; fewer than there are gives a random choice, always the same one. None takes all.
        flips: whether to take the mirror images as well.
        name: what a user would call it.
    """

    def __init__(
        self, dataset: SampleDataset, *, num: int | None = None, flips: bool = False, name: str = ""
    ) -> None:
        if flips and not dataset.flip:
            raise InputError(
                "flips=true measures mirror images, too, and the data have none; set data.flip=true"
            )
        self.dataset = dataset
        total = len(dataset) if flips else dataset.num_stored
        chosen = total if num is None else min(num, total)
        if flips and chosen < total:
            raise InputError(f"num_real={num} with flips=true: leave one of them out")
        self._images = dataset if chosen == len(dataset) else RealSample(dataset, num=chosen)
        self.whole = chosen == total
        self.name = name or f"{dataset.split} split of {type(dataset).__name__}"
        self.count = chosen
        self.shape = dataset.spec.shape
        self.kind = dataset.spec.kind
        if dataset.num_classes > 1:
            self.num_classes = dataset.num_classes
            self.class_names = tuple(dataset.class_names)
        self.in_memory = dataset.in_memory
        self.description = {
            "images": self.name,
            "count": chosen,
            "of": total,
            "mirrored": flips,
            "fingerprint": self.fingerprint,
            **({"origin": dataset.origin} if dataset.origin else {}),
        }

    @property
    def fingerprint(self) -> str:
        return self._images.fingerprint

    def read(self, start: int, stop: int) -> Tensor:
        if self.in_memory:
            return self._images.__getitems__(range(start, stop)).real
        parts = [range(i, min(i + 8, stop)) for i in range(start, stop, 8)]
        with ThreadPoolExecutor(_DECODING_THREADS) as pool:
            return torch.cat(
                list(pool.map(lambda part: self._images.__getitems__(part).real, parts))
            )

    def labels(self, start: int, stop: int) -> Tensor | None:
        if not self.num_classes:
            return None
        stored = torch.from_numpy(self._images.labels)
        return stored.repeat(2 if len(self._images) > len(stored) else 1)[start:stop]


class GanImages(ImageSource):
    """What a generator draws, as samples are stored. The samples of one `read` are computed in one forward pass.

    Args:
        gan: what draws.
        seed: of all images.
        truncation: psi of generators with styles, threshold of z of others; None for neither.
        origin: names generator and weights; for a checkpoint, holds its SHA-256. Empty where nothing is cached.
        name: what a user would call it.
        description: what decides the images, besides seed and truncation.

    Raises:
        InputError: for a truncation that means nothing to the generator.
    """

    count = None

    def __init__(
        self,
        gan: Gan,
        *,
        seed: int,
        truncation: float | None = None,
        origin: str = "",
        name: str = "generated images",
        description: Mapping[str, Any] | None = None,
    ) -> None:
        gan.check_truncation(truncation)
        self.gan = gan
        self.name = name
        self.num_classes = 0 if gan.spec.attributes else gan.num_classes
        self.class_names = tuple(gan.class_names) or tuple(map(str, range(self.num_classes)))
        self._seed = seed
        self._truncation = truncation
        self._origin = origin
        self.description = {**(description or {}), "seed": seed, "truncation": truncation}
        self.shape = gan.spec.shape
        self.kind = gan.spec.kind

    @property
    def fingerprint(self) -> str:
        # rounding differs between kinds of devices and versions of torch, and with it some of the pixels
        return digest(
            self._origin, self._seed, self._truncation, self.gan.device.type, torch.__version__
        )

    def read(self, start: int, stop: int) -> Tensor:
        count = stop - start
        latents = self.gan.latents(count, seed=self._seed, start=start, truncation=self._truncation)
        return self.gan.spec.decode(self.gan.synthesize(latents, batch_size=count))

    def labels(self, start: int, stop: int) -> Tensor | None:
        if not self.num_classes:
            return None
        return self.gan.labels(stop - start, seed=self._seed, start=start)


# The real images that generated ones are compared with, when they are not simply the whole data set.


class RealSample(SampleDataset):
    """Stored images of a data set, without their mirror images.

    Args:
        whole: where they are taken from.
        num: how many; fewer than there are gives a random choice, which depends on the numbers alone.
    """

    def __init__(self, whole: SampleDataset, *, num: int) -> None:
        # the order of a data set is mostly that of its classes, so the first ones would be no sample of it
        chosen = np.sort(np.random.default_rng(0).permutation(whole.num_stored)[:num])
        super().__init__(split=whole.split, spec=whole.spec, labels=whole.labels[chosen])
        self.in_memory = whole.in_memory
        self._whole = whole
        self._chosen = chosen

    @property
    def fingerprint(self) -> str:
        """Digest of the whole and of the choice."""
        return digest(self._whole.fingerprint, self._chosen.tobytes())

    def load(self, index: int) -> Tensor:
        return self._whole.load(int(self._chosen[index]))

    def load_source(self, index: int) -> Tensor:
        return self._whole.load_source(int(self._chosen[index]))

    def name(self, index: int) -> str:
        return self._whole.name(int(self._chosen[index]))

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        images = self._whole.__getitems__(self._chosen[stored].tolist()).real
        return images, stored
