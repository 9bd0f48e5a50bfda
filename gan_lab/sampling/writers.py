"""Requested samples, drawn in blocks, and writers of their files."""

import io
import json
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from gan_lab.console import in_a_line, say
from gan_lab.data.images import save_png
from gan_lab.data.media import enlarged
from gan_lab.data.sample import SampleKind, to_pil
from gan_lab.errors import InputError
from gan_lab.run import naming, publish, temporary_path, write
from gan_lab.sampling.directions import Directions
from gan_lab.sampling.latents import SUFFIX, Attributes, Latents, Seeds, by_name, seed_indices
from gan_lab.sampling.sampler import Sampler


@dataclass(frozen=True)
class SampleBlock:
    """Consecutive images.

    Attributes:
        start: number of the first.
        samples: as they are stored, [n, ...], on the CPU.
        latents: that they were made of, on the CPU.
        names: of the images: seed and class.
    """

    start: int
    samples: Tensor
    latents: Latents
    names: list[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleRequest:
    """The samples to draw.

    Attributes:
        gan: the generator.
        count: of images.
        seed: one for all, or one for each image.
        labels: [count], or attributes by name for each image; None draws them.
        latents: of the images, instead of seeds, which then only determine random noise.
        stem: name of those latents.
        truncation: as in `Sampler.sample`; likewise `truncation_center` and `noise`.
        transform: of the image plane, [3, 3], or None.
        directions: to move latents along; None for none.
        amounts: along the first directions, in deviations.
    """

    gan: Sampler
    count: int
    seed: Seeds = 0
    labels: Tensor | Sequence[Attributes] | None = None
    latents: Latents | None = None
    stem: str = "latents"
    truncation: float | None = None
    truncation_center: str = "mean"
    noise: str = "const"
    transform: Tensor | None = None
    directions: Directions | None = None
    amounts: tuple[float, ...] = ()

    @property
    def label_sets(self) -> list[Attributes]:
        """The different attributes that are given, in order."""
        found: list[Attributes] = []
        if isinstance(self.labels, Sequence):
            found += [one for i, one in enumerate(self.labels) if one not in self.labels[:i]]
        return found

    def block(self, start: int, stop: int) -> SampleBlock:
        """Draw images `start` to `stop` in one forward pass."""
        latents = self._latents(start, stop)
        if self.directions is not None:
            latents = latents.replace(self.directions.apply(latents.values, self.amounts))
        images = self.gan.synthesize(
            latents, noise=self.noise, transform=self.transform, batch_size=stop - start
        )
        kept = latents.replace(latents.values.cpu())
        samples = self.gan.spec.decode(images).cpu()
        return SampleBlock(start, samples, kept, self._names(start, kept))

    def _latents(self, start: int, stop: int) -> Latents:
        if self.latents is not None:
            drawn = seed_indices(stop - start, self.seed, start)
            part = self.latents[start:stop]
            return self.gan.as_latents(
                part.replace(part.values, seeds=drawn),
                truncation=self.truncation,
                truncation_center=self.truncation_center,
            )
        return self.gan.latents(
            stop - start,
            seed=self.seed,
            start=start,
            labels=None if self.labels is None else self.labels[start:stop],
            truncation=self.truncation,
            truncation_center=self.truncation_center,
        )

    def _names(self, start: int, latents: Latents) -> list[str]:
        names, sets = [], self.label_sets
        for i in range(start, start + len(latents)):
            if self.latents is not None:
                name = f"{self.stem}_{i:06d}"
            elif isinstance(self.seed, int):
                name = f"seed{self.seed}_{i:06d}"
            else:
                name = f"seed{self.seed[i]:06d}"
            if latents.labels is not None and latents.labels.ndim == 1:
                name += class_suffix(int(latents.labels[i - start]), self.gan)
            elif len(sets) > 1 and isinstance(self.labels, Sequence):
                name += f"_labels{sets.index(self.labels[i])}"
            names.append(name)
        return names


def labels_for(
    given: Sequence[int] | Sequence[Attributes] | None, each: int
) -> Tensor | Sequence[Attributes] | None:
    """Repeat each of some classes or attributes: labels [len(given) * each]; None for None."""
    if given is None:
        return None
    attributes = by_name(given)
    if attributes is not None:
        return [one for one in attributes for _ in range(each)]
    return torch.tensor(given).repeat_interleave(each)


_MOST_NAMED = 20  # classes in a message

_LONGEST_TEXT = 40  # of seeds in the name of a folder


def named_classes(gan: Sampler) -> str:
    """List the classes for messages."""
    last = gan.num_classes - 1
    numbers = f"there are {gan.num_classes}, 0 to {last}"
    if not gan.class_names or gan.class_names == [str(i) for i in range(gan.num_classes)]:
        return numbers
    names = ", ".join(
        f"{i} {in_a_line(name)}" for i, name in enumerate(gan.class_names[:_MOST_NAMED])
    )
    more = ", ..." if gan.num_classes > _MOST_NAMED else ""
    return f"{numbers}: {names}{more}"


def slug(name: str) -> str:
    """Make a name usable in a file name."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:_LONGEST_TEXT]


def class_suffix(label: int, gan: Sampler) -> str:
    """Return a file name's suffix: _class3, or _class3_cat if classes have names."""
    name = slug(gan.class_names[label]) if label < len(gan.class_names) else ""
    return f"_class{label}" + (f"_{name}" if name and name != str(label) else "")


LOSSLESS = {"lossless": True, "quality": 80, "method": 4}  # for WebP, quality then means effort

# Pillow's name of a format, and how it is written
ENCODINGS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}

_LARGEST_SIDE, _LARGEST_AREA = 16384, 2**27  # of a grid, pixels


class Writer(ABC):
    """Writes images as they are drawn.

    Attributes:
        ordered: whether it needs all blocks in order, in one process; otherwise each process writes its own.
    """

    ordered = True

    @abstractmethod
    def add(self, block: SampleBlock) -> None:
        """Take the next images."""

    @abstractmethod
    def finish(self) -> str:
        """Finish the file and return its name."""

    def abandon(self) -> None:  # noqa: B027 (most have nothing half done)
        """Remove partial files."""


class SingleFiles(Writer):
    """A file for each sample, named by seed and class.

    Args:
        folder: where.
        suffix: of the files.
        save: writes one stored sample to a path.
        count: of all samples.
    """

    ordered = False

    def __init__(
        self, folder: Path, *, suffix: str, save: Callable[[Tensor, Path], object], count: int
    ) -> None:
        self._folder = folder
        self._suffix = suffix
        self._save = save
        self._count = count
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, block: SampleBlock) -> None:
        for name, sample in zip(block.names, block.samples, strict=True):
            self._save(sample, self._folder / f"{name}{self._suffix}")

    def finish(self) -> str:
        return f"*{self._suffix} ({self._count})"


def save_image(image: Tensor, path: Path, *, quality: int) -> None:
    """Write one uint8 image [C, H, W] in the format of the path's suffix."""
    # tens of thousands of files, easily redrawn: a sync each would cost more than drawing
    write(path, encode(image, kind=path.suffix[1:], quality=quality), sync=False)


def encode(image: Tensor, *, kind: str, quality: int = 95) -> bytes:
    """Return one uint8 image [C, H, W] as a file.

    Raises:
        InputError: for transparency in a JPEG.
    """
    options: Mapping[str, object] = {}
    if kind == "jpeg":
        if len(image) == 4:
            raise InputError(
                "format=jpeg has no transparency, and these images have it; use png or webp"
            )
        # 4:4:4: no chroma subsampling
        options = {"quality": quality, "subsampling": 0}
    elif kind == "webp":
        options = LOSSLESS
    buffer = io.BytesIO()
    to_pil(image).save(buffer, format=ENCODINGS[kind], **options)
    return buffer.getvalue()


class GridFile(Writer):
    """A grid of all images, row by row; if there are too many, of the first rows and columns.

    Args:
        path: of the PNG.
        count: of all images.
        columns: of the grid.
        scale: every pixel becomes `scale` x `scale` pixels.
        kind: of sample, for previews.
    """

    def __init__(
        self, path: Path, *, count: int, columns: int, scale: int, kind: SampleKind
    ) -> None:
        self._path = path
        self._kind = kind
        self._columns = columns
        self._rows = -(-count // columns)
        self._scale = scale
        self._edge = 2 if count > 1 else 0  # white pixels between images
        self._canvas: Tensor | None = None

    def add(self, block: SampleBlock) -> None:
        pixels = enlarged(self._kind.preview(block.samples), self._scale)
        channels, height, width = pixels.shape[1:]
        edge = self._edge
        if self._canvas is None:
            self._cut(height + edge, width + edge)
            rows, columns = self._shown
            shape = (channels, rows * (height + edge) + edge, columns * (width + edge) + edge)
            self._canvas = torch.full(shape, 255, dtype=torch.uint8)
        for i, image in enumerate(pixels, start=block.start):
            row, column = divmod(i, self._columns)
            if row < self._shown[0] and column < self._shown[1]:
                top, left = edge + row * (height + edge), edge + column * (width + edge)
                self._canvas[:, top : top + height, left : left + width] = image

    def _cut(self, height: int, width: int) -> None:
        """Decide how many rows and columns of tiles fit."""
        columns = max(1, min(self._columns, _LARGEST_SIDE // width))
        most = min(_LARGEST_SIDE // height, _LARGEST_AREA // (height * width * columns))
        self._shown = max(1, min(self._rows, most)), columns
        if self._shown != (self._rows, self._columns):
            say(
                f"{self._path.name} shows {self._shown[0]} of {self._rows} rows, {columns} of {self._columns} columns"
            )

    def finish(self) -> str:
        assert self._canvas is not None
        save_png(self._canvas, self._path)
        return self._path.name


class TextFile(Writer):
    """Text samples in one file, UTF-8, one per line.

    Args:
        path: of the file.
        kind: of sample, whose `media` is text.
    """

    def __init__(self, path: Path, *, kind: SampleKind) -> None:
        self._path = path
        self._kind = kind
        self._parts: list[str] = []

    def add(self, block: SampleBlock) -> None:
        self._parts += [self._entry(block, i) for i in range(len(block.names))]

    def _entry(self, block: SampleBlock, i: int) -> str:
        return self._kind.media(block.samples[i]).decode()

    def finish(self) -> str:
        write(self._path, "".join(self._parts))
        return self._path.name


class JsonLines(TextFile):
    """Text samples as JSON lines: `text`, `name` (seed and class), and `class` if there are classes.

    Args:
        path: of the file.
        kind: of sample, whose `media` is text.
        class_names: of the labels; empty without classes.
    """

    def __init__(self, path: Path, *, kind: SampleKind, class_names: list[str]) -> None:
        super().__init__(path, kind=kind)
        self._class_names = class_names

    def _entry(self, block: SampleBlock, i: int) -> str:
        entry = {"text": super()._entry(block, i).removesuffix("\n"), "name": block.names[i]}
        labels = block.latents.labels
        if labels is not None and labels.ndim == 1:
            entry["class"] = self._class_names[int(labels[i])]
        return json.dumps(entry, ensure_ascii=False) + "\n"


class Archive(Writer):
    """A zip written member by member, atomically.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = temporary_path(path)
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._archive = zipfile.ZipFile(self._part, "w")

    def add(self, block: SampleBlock) -> None:
        with naming(self._path):
            self._add(block)

    def finish(self) -> str:
        with naming(self._path):
            self._finish()
            self._archive.close()
            publish(self._part, self._path)
        return self._path.name

    @abstractmethod
    def _add(self, block: SampleBlock) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    def abandon(self) -> None:
        self._archive.fp = None  # otherwise its destructor writes the directory
        self._part.unlink(missing_ok=True)


def member(name: str, compression: int) -> zipfile.ZipInfo:
    """Return a member dated 1980-01-01, so that equal content makes equal files."""
    found = zipfile.ZipInfo(name)
    found.compress_type = compression
    found.create_system = 3
    found.external_attr = 0o644 << 16
    return found


class ImagesZip(Archive):
    """PNG files in a folder per class, and dataset.json: for data=zip, or data=image_folder when unpacked.

    Args:
        path: of the zip.
        class_names: of the labels; empty without classes.
        attributes: names of the entries, where labels are vectors.
    """

    def __init__(
        self, path: Path, *, class_names: list[str], attributes: Sequence[str] = ()
    ) -> None:
        super().__init__(path)
        self._class_names = class_names
        self._attributes = list(attributes)
        self._vectors: list[tuple[str, list[float]]] = []
        slugs = [slug(name) for name in class_names]
        distinct = len({name.lower() for name in slugs}) == len(slugs) and all(slugs)
        self._folders = slugs if distinct else [f"class{i}" for i in range(len(slugs))]
        self._labels: list[tuple[str, int]] = []

    def _add(self, block: SampleBlock) -> None:
        given = block.latents.labels
        labels = None if given is None or given.ndim == 2 else given.tolist()
        for i, (name, image) in enumerate(zip(block.names, block.samples, strict=True)):
            folder = "images" if labels is None else self._folders[labels[i]]
            path = f"{folder}/{name}.png"
            data = encode(image, kind="png")
            self._archive.writestr(member(path, zipfile.ZIP_STORED), data)
            if labels is not None:
                self._labels.append((path, labels[i]))
            elif given is not None and self._attributes:
                self._vectors.append((path, given[i].tolist()))

    def _finish(self) -> None:
        metadata: dict[str, object] = {"labels": self._labels or None}
        if self._labels:
            metadata["class_names"] = self._class_names
        if self._vectors:
            metadata |= {"attributes": self._vectors, "attribute_names": self._attributes}
        info = member("dataset.json", zipfile.ZIP_DEFLATED)
        self._archive.writestr(info, json.dumps(metadata).encode())


class Npz(Archive):
    """images [N, H, W, C] uint8 (of other kinds: samples [N, ...]), labels [N] and seed (or seeds [N]), for numpy.load.

    Args:
        path: of the .npz.
        request: to write.
    """

    def __init__(self, path: Path, *, request: SampleRequest) -> None:
        super().__init__(path)
        self._series = request
        self._images: IO[bytes] | None = None
        self._labels: list[Tensor] = []

    def _add(self, block: SampleBlock) -> None:
        is_image = self._series.gan.spec.is_image
        samples = block.samples.permute(0, 2, 3, 1) if is_image else block.samples
        pixels = samples.contiguous().numpy()
        if self._images is None:
            self._images = self._open("images" if is_image else "samples")
            header = {
                "descr": np.lib.format.dtype_to_descr(pixels.dtype),
                "fortran_order": False,
                "shape": (self._series.count, *pixels.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(self._images, header)
        self._images.write(pixels.tobytes())
        if block.latents.labels is not None:
            self._labels.append(block.latents.labels)

    def _open(self, name: str) -> IO[bytes]:
        info = member(f"{name}.npy", zipfile.ZIP_DEFLATED)
        return self._archive.open(info, "w", force_zip64=True)

    def _finish(self) -> None:
        assert self._images is not None
        self._images.close()
        arrays: dict[str, np.ndarray] = {}
        if self._labels:
            arrays["labels"] = torch.cat(self._labels).numpy()
        if self._series.latents is None:
            seed = self._series.seed
            arrays["seed" if isinstance(seed, int) else "seeds"] = np.array(seed)
        for name, values in arrays.items():
            with self._open(name) as opened:
                np.lib.format.write_array(opened, values, allow_pickle=False)

    def abandon(self) -> None:
        if self._images is not None:
            # otherwise it flushes its buffer, maybe to a full disk
            with suppress(OSError):
                self._images.close()
        super().abandon()


class LatentsFile(Writer):
    """Latents that reproduce the images: latents.safetensors.

    Args:
        folder: where.
        metadata: of the file.
    """

    def __init__(self, folder: Path, *, metadata: Mapping[str, str]) -> None:
        self._path = folder / f"latents{SUFFIX}"
        self._metadata = metadata
        self._parts: list[Latents] = []

    def add(self, block: SampleBlock) -> None:
        self._parts.append(block.latents)

    def finish(self) -> str:
        labels = [part.labels for part in self._parts if part.labels is not None]
        whole = self._parts[0].replace(
            torch.cat([part.values for part in self._parts]),
            labels=torch.cat(labels) if labels else None,
            seeds=(),
            metadata=self._metadata,
        )
        whole.save(self._path)
        return self._path.name
