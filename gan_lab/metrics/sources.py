"""Sources of images for metrics: a data set, a generator or files, indexed so that all processes agree."""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.base import SampleDataset, digest
from gan_lab.data.cache import check_size, read_header
from gan_lab.data.decoding import DECODE_ERRORS, MAX_MEGAPIXELS, check_regular
from gan_lab.data.image_folder import ImageFolder, Zip
from gan_lab.data.metadata import MAX_LABEL, AmbiguousClasses
from gan_lab.data.sample import SampleKind
from gan_lab.data.source import Source, scan
from gan_lab.data.transform import ImageSize
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.sampler import Sources

_DECODING_THREADS = 8


class ImageSource(ABC):
    """Indexed stored samples of one shape.

    Attributes:
        name: for messages.
        count: number of samples; None (unlimited) for a generator.
        shape: of one stored sample, such as [C, H, W].
        kind: of sample; None if unknown.
        num_classes: at least 2 with labels, else 0.
        class_names: one for each class.
        description: what determines the images, for results.
        in_memory: whether reading is so fast that prefetching is useless.
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
        """Identifies the images: a key for caches."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Tensor:
        """Samples `start` to `stop`, [stop - start, ...], for feature networks, on any device.

        Raises:
            InputError: naming an image that cannot be read.
        """

    def stored(self, start: int, stop: int) -> Tensor:
        """The same samples with all their bits; as `read` gives them where these are all."""
        return self.read(start, stop)

    def labels(self, start: int, stop: int) -> Tensor | None:
        """Labels of those images, int64 [stop - start] on the CPU, or None."""
        return None


def label_difference(one: ImageSource, other: ImageSource) -> str | None:
    """Return how the classes of two sets differ, as a sentence; None if they do not, or one has none.

    Names that are numbers are not compared.
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
        dataset: its mirror images are only used with `flips`.
        num: maximum number, a fixed random choice; None takes all.
        flips: whether to take the mirror images as well.
        name: for messages.
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
        return self.dataset.spec.kind.measured(self.stored(start, stop))

    def stored(self, start: int, stop: int) -> Tensor:
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
    """Stored samples of a generator; those of one `read` are computed in one forward pass.

    Args:
        gan: the generator.
        seed: of all images.
        truncation: psi of generators with styles, threshold of z of others; None for neither.
        origin: identifies generator and weights, by the checkpoint's SHA-256; empty for no caching.
        name: for messages.
        description: what determines the images, besides seed and truncation.
        discriminate: logits [N] of stored samples and their classes by the discriminator of its training; None if it is
            not available.

    Raises:
        InputError: for a truncation that the generator does not support.
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
        discriminate: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    ) -> None:
        gan.check_truncation(truncation)
        self.gan = gan
        self.discriminate = discriminate
        self.name = name
        self.num_classes = 0 if gan.attributes else gan.num_classes
        self.class_names = tuple(gan.class_names) or tuple(map(str, range(self.num_classes)))
        self._seed = seed
        self._truncation = truncation
        self._origin = origin
        self.description = {**(description or {}), "seed": seed, "truncation": truncation}
        if gan.num_classes:
            self.description["labels"] = gan.labels_drawn
        self.shape = gan.spec.shape
        self.kind = gan.spec.kind

    def use_data(self, sources: Sources | None, label_rows: NDArray[np.float32] | None) -> None:
        """Translate the data's sources, and draw attributes from their rows, unless others were given."""
        self.gan.sources = self.gan.sources or sources
        if self.gan.attributes and label_rows is not None:
            self.gan.label_rows = label_rows
            self.description = {**self.description, "labels": self.gan.labels_drawn}

    @property
    def fingerprint(self) -> str:
        # some pixels differ between devices and versions of torch by rounding
        return digest(
            self._origin,
            self._seed,
            self._truncation,
            self.gan.device.type,
            torch.__version__,
            *(() if self.gan.label_rows is None else (self.gan.label_rows.tobytes(),)),
        )

    def read(self, start: int, stop: int) -> Tensor:
        return self.gan.spec.kind.measured(self.stored(start, stop))

    def stored(self, start: int, stop: int) -> Tensor:
        count = stop - start
        latents = self.gan.latents(count, seed=self._seed, start=start, truncation=self._truncation)
        return self.gan.spec.decode(self.gan.synthesize(latents, batch_size=count))

    def labels(self, start: int, stop: int) -> Tensor | None:
        if not self.num_classes:
            return None
        return self.gan.labels(stop - start, seed=self._seed, start=start)


# Subsets of the real images.


def _shuffled(whole: SampleDataset) -> NDArray[np.int64]:
    """Indices of all stored samples, shuffled (usually they are ordered by class); groups stay together."""
    draw = np.random.default_rng(0)
    groups = whole.groups
    if groups is None:
        return draw.permutation(whole.num_stored)
    _, number = np.unique(groups, return_inverse=True)
    return np.argsort(draw.permutation(number.max() + 1)[number], kind="stable")


class RealSample(SampleDataset):
    """Stored images of a data set, without their mirror images.

    Args:
        whole: the data set.
        num: number of samples; a random choice, of groups if there are some, that only depends on the numbers.
    """

    def __init__(self, whole: SampleDataset, *, num: int) -> None:
        chosen = np.sort(_shuffled(whole)[:num])
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


def open_files(
    path: Path,
    *,
    num: int | None = None,
    image_size: ImageSize = None,
    channels: int | None = None,
    skip_unreadable: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> ImageSource:
    """Open images of one size.

    Args:
        path: a folder, whose sub-folders are classes; a zip; an .npz.
        num: maximum number, a fixed random choice; None takes all.
        image_size: one number or [H, W], to which all are cropped and resized; None for the one size that they have.
        channels: 1, 3, or None for those that all files have.
        skip_unreadable: whether to skip damaged images.
        max_megapixels: larger images count as damaged.

    Raises:
        InputError: for another path, damaged images, mixed sizes or channels.
    """
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a run, a folder or zip of images, or an .npz"
        )
    if path.suffix == ".npz":
        return NpzImages(path, num=num)
    if not path.is_dir() and path.suffix != ".zip":
        raise InputError(
            f"{path} is not a folder, .zip, .npz or .ckpt; give a run, a folder or zip of images, or an .npz"
        )
    try:
        opened = partial(
            ImageFolder if path.is_dir() else Zip,
            split="train",
            root=path,
            image_size=image_size,
            channels=channels,
            skip_unreadable=skip_unreadable,
            max_megapixels=max_megapixels,
        )
        try:
            data = opened()
        except AmbiguousClasses:
            data = opened(classes=False)  # folders are classes only without images beside them
        if channels is None:
            _check_alike(data.source, path, max_megapixels)
        return DatasetImages(data, num=num, name=str(path))
    except InputError as error:
        # data sets name their own keys in errors
        message = str(error).replace("data.root=", "").replace("data.", "files.")
        raise InputError(message) from error


def _check_alike(source: Source, path: Path, max_megapixels: float) -> None:
    kinds, counts = np.unique(
        scan(source, max_megapixels=max_megapixels).shapes[:, 2], return_counts=True
    )
    found = {int(kind): int(count) for kind, count in zip(kinds, counts, strict=True) if kind}
    if len(found) > 1:
        modes = ", ".join(f"{count:,} with {kind}" for kind, count in found.items())
        raise InputError(
            f"the images of {path} have different channels ({modes}); set data.channels=3 to make them all RGB, "
            "or data.channels=1"
        )


# Images in an .npz, as samples are often published: `arr_0` or `images`, uint8 [N, H, W, C].

_IMAGES = ("images", "arr_0", "samples")

_LABELS = ("labels", "arr_1")


class NpzImages(ImageSource):
    """Images of an .npz, read in chunks: the file may be larger than memory.

    Args:
        path: of the file.
        num: maximum number, a fixed random choice; None takes all.

    Raises:
        InputError: for a file that holds no such images.
    """

    in_memory = False

    def __init__(self, path: Path, *, num: int | None = None) -> None:
        self._path = path
        try:
            check_regular(path)
            self._archive = zipfile.ZipFile(path)
            members = {
                info.filename.removesuffix(".npy"): info for info in self._archive.infolist()
            }
            self._member = _first(members, _IMAGES)
            if self._member is None:
                raise InputError(
                    f"{path} holds {', '.join(members) or 'nothing'}; expected images in {', '.join(_IMAGES)}"
                )
            with self._archive.open(f"{self._member}.npy") as file:
                shape, dtype = read_header(file)
            _check(path, self._member, shape, dtype)
            check_size(path, members[self._member], shape, dtype)
            labels = self._read_labels(_first(members, _LABELS), shape[0])
        except DECODE_ERRORS as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} is not a complete .npz ({error}); copy or make it again"
            ) from error
        self._shape = shape[1:]
        total = shape[0]
        chosen = total if num is None else min(num, total)
        self._rows = np.sort(np.random.default_rng(0).permutation(total)[:chosen])
        self._labels = None if labels is None else labels[self._rows]
        self._file: IO[bytes] | None = None
        self._position = 0
        self.name = str(path)
        self.count = chosen
        self.shape = (self._shape[2], *self._shape[:2])
        if labels is not None and labels.max() > 0:
            self.num_classes = int(labels.max()) + 1
            self.class_names = tuple(map(str, range(self.num_classes)))
        sums = sorted((info.filename, info.CRC, info.file_size) for info in members.values())
        self._fingerprint = digest("npz", *sums, self._rows.tobytes())
        self.description = {
            "images": str(path),
            "count": chosen,
            "of": total,
            "fingerprint": self._fingerprint,
        }

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def read(self, start: int, stop: int) -> Tensor:
        images = np.empty((stop - start, *self._shape), dtype=np.uint8)
        for i, row in enumerate(self._rows[start:stop].tolist()):
            images[i] = self._row(row)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def labels(self, start: int, stop: int) -> Tensor | None:
        if not self.num_classes or self._labels is None:
            return None
        return torch.from_numpy(self._labels[start:stop])

    def _row(self, row: int) -> NDArray[np.uint8]:
        """Image `row` of the array; going back reopens the member, since compressed data cannot seek."""
        size = int(np.prod(self._shape))
        if self._file is None or row < self._position:
            self._file = self._archive.open(f"{self._member}.npy")
            read_header(self._file)
            self._position = 0
        for _ in range(row - self._position):
            self._read_exactly(size)
        self._position = row + 1
        return np.frombuffer(self._read_exactly(size), dtype=np.uint8).reshape(self._shape)

    def _read_exactly(self, size: int) -> bytes:
        assert self._file is not None
        data = self._file.read(size)
        if len(data) != size:
            raise InputError(f"{self._path} ends before its images do; copy or make it again")
        return data

    def _read_labels(self, member: str | None, count: int) -> NDArray[np.int64] | None:
        if member is None:
            return None
        with self._archive.open(f"{member}.npy") as file:
            shape, dtype = read_header(file)
        if dtype.kind not in "iufb" or len(shape) not in (1, 2) or shape[0] != count:
            raise InputError(
                f"{self._path}: {member} has shape {shape} and type {dtype}; labels are whole numbers, "
                f"one for each of {count} images"
            )
        check_size(self._path, self._archive.getinfo(f"{member}.npy"), shape, dtype)
        with self._archive.open(f"{member}.npy") as file:
            labels = np.lib.format.read_array(file, allow_pickle=False)
        if labels.ndim == 2:  # one-hot
            labels = labels.argmax(1)
        if not (labels == np.floor(labels)).all() or labels.min() < 0 or labels.max() > MAX_LABEL:
            raise InputError(
                f"{self._path}: {member} has labels from {labels.min()} to {labels.max()}; allowed: whole numbers "
                f"from 0 to {MAX_LABEL:,}"
            )
        return labels.astype(np.int64)


def _first(members: dict[str, zipfile.ZipInfo], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in members), None)


def _check(path: Path, member: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3, 4) or not shape[0]:
        raise InputError(
            f"{path}: {member} has shape {list(shape)} and type {dtype}; expected uint8 [N, H, W, C] with 1, 3 or 4 "
            "channels"
        )
