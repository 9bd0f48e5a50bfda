"""What a sample is: its kind, its shape, its representation for networks, and its labels.

The dataset states it once, as a `SampleSpec`. Networks' sizes, files, grids, metrics and exports are
derived from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from pydantic import Field, FiniteFloat
from torch import Tensor, nn

from gan_lab.config import ClassCounts, ClassNames, Count, build, take
from gan_lab.data.decoding import DECODE_ERRORS, regular_file
from gan_lab.errors import InputError
from gan_lab.run import write


class SampleKind(ABC):
    """Images, sound, text: how samples of a kind are stored, written and shown.

    Other code does not depend on the kind, except by `SampleSpec.is_image` where it needs 8-bit pixels.

    A subclass is built from the arguments in `arguments`, which are kept with the run.

    Attributes:
        name: in one word, such as "image".
        suffix: of a file that holds one sample, such as ".png".
        suffixes: of all files that `write` supports, if several.
        axes: what the dimensions of a stored sample are.
        media_type: of what `media` returns: an image, audio or text, which browsers show or play.
        is_precise: whether values are finer than the 8 bits that bfloat16 keeps; the layers of networks that see and
            make samples then compute in float32, whatever the precision of the others.
    """

    name: str
    suffix: str
    suffixes: tuple[str, ...] = ()
    axes: tuple[str, ...]
    media_type = "image/png"
    is_precise = False

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments: JSON values."""
        return {}

    @abstractmethod
    def to_float(self, stored: Tensor) -> Tensor:
        """Return stored samples [N, ...] as float32, in the range that networks are made for, mostly [-1, 1]."""

    @abstractmethod
    def to_stored(self, values: Tensor) -> Tensor:
        """Return floats [N, ...] as they are stored, rounded and clamped; the inverse of `to_float`."""

    @abstractmethod
    def encoded(self, stored: Tensor) -> bytes:
        """Return one stored sample [...] as the content of a file with `suffix`, without loss."""

    @abstractmethod
    def decoded(self, data: bytes) -> Tensor:
        """Return the stored sample [...] in the content of a file; the inverse of `encoded`.

        Raises:
            InputError: or another of DECODE_ERRORS when it holds no such sample.
        """

    def write(self, stored: Tensor, path: Path) -> None:
        """Write one stored sample [...] to a file."""
        write(path, self.encoded(stored))

    def read(self, path: Path) -> Tensor:
        """Read one stored sample [...] from a file.

        Raises:
            InputError: naming the file when it holds no such sample.
        """
        try:
            with regular_file(path) as file:
                return self.decoded(file.read())
        except DECODE_ERRORS as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise InputError(f"{path} is no {self.name} that can be read ({reason})") from error

    @abstractmethod
    def preview(self, stored: Tensor) -> Tensor:
        """Draw stored samples [N, ...] as uint8 images [N, C, H, W] with 1, 3 or 4 channels: for grids and loggers."""

    def zip_options(self, shape: Sequence[int]) -> str:
        """Return the options that read a zip of files of such samples, such as "data=zip"; empty where none do."""
        return ""

    def measured(self, stored: Tensor) -> Tensor:
        """Return the input of feature networks for stored samples [N, ...]: by default the samples."""
        return stored

    def media(self, stored: Tensor) -> bytes:
        """Return one stored sample [...] as a file of `media_type`, for pages and loggers; by default its preview."""
        buffer = BytesIO()
        to_pil(self.preview(stored[None])[0]).save(buffer, format="PNG")
        return buffer.getvalue()


class Representation(nn.Module):
    """How networks see a sample: `encode` before the discriminator, `decode` after the generator.

    This one is the identity. Subclasses keep statistics of the data in buffers, which are saved with the run and
    every export. It is built from the arguments in `arguments`.
    """

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments: JSON values."""
        return {}

    def check(self, spec: "SampleSpec") -> None:
        """Check that it can represent such samples.

        Raises:
            InputError: with the reason.
        """

    def measure(self, samples: Iterable[Tensor]) -> None:
        """Compute statistics of training samples [N, ...] (from `SampleKind.to_float`) before training."""

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one encoded sample, given that of a stored one."""
        return stored

    @property
    def pack_name(self) -> str:
        """Name what `pack` returns, where it is worth being stored beside the data; else empty."""
        return ""

    def pack(self, samples: Tensor) -> Tensor:
        """Return the part of `encode` that can be done once, before training; `unpack` does the rest."""
        return samples

    def unpack(self, packed: Tensor) -> Tensor:
        """Return what networks see of packed samples [N, ...]."""
        return packed

    def encode(self, samples: Tensor) -> Tensor:
        """Return what networks see of samples [N, ...], as `SampleKind.to_float` gives them."""
        return samples

    def decode(self, values: Tensor) -> Tensor:
        """Decode generated samples; the inverse of `encode`, exact or approximate."""
        return values


class Excerpts:
    """Which samples are taken from the content of a file: by default one, all of it.

    Subclasses, such as the crops of sounds, are built from the arguments in `arguments`, which shards keep.

    Attributes:
        count: of each file.
    """

    count = 1

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments: JSON values."""
        return {}

    def take(self, content: Tensor, number: int) -> Tensor:
        """Return sample `number` of what a file holds, as `SampleKind.decoded` gives it."""
        return content


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """Describes the samples of a data set.

    Attributes:
        kind: how it is stored and shown.
        shape: of one stored sample: [C, H, W], [C, T] or [V, L].
        representation: how networks see it.
        num_classes: of labels int64 [N]; 0 without classes.
        class_names: one for each class, or none.
        class_counts: training samples of each class, or none.
        attributes: names of the entries of label vectors float [N, K], if labels are vectors.
        attribute_ranges: smallest and largest value of each attribute in the data.
        label_vectors: some label vectors of the training data, to draw labels from by default.
        source: spec of the sources, if data are paired; else None.
        num_groups: such as patients, of the training samples; 0 if unknown.
    """

    kind: SampleKind
    shape: tuple[int, ...]
    representation: Representation = field(default_factory=Representation)
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    attributes: tuple[str, ...] = ()
    attribute_ranges: tuple[tuple[float, float], ...] = ()
    label_vectors: tuple[tuple[float, ...], ...] = ()
    source: "SampleSpec | None" = None
    num_groups: int = 0

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Shape of one sample as networks see it."""
        return self.representation.shape(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether samples are 8-bit images: for features that need pixels, such as PNG files and videos."""
        return self.kind.name == "image"

    @property
    def label_width(self) -> int:
        """`num_classes` of networks: classes, or entries of a label vector; 0 without labels."""
        return len(self.attributes) or self.num_classes

    def without_labels(self) -> "SampleSpec":
        """Return the spec for an unconditional run."""
        return replace(self, num_classes=0, attributes=(), attribute_ranges=(), label_vectors=())

    def encode(self, stored: Tensor) -> Tensor:
        """Return what networks see of stored samples [N, ...]."""
        return self.representation.encode(self.kind.to_float(stored))

    def decode(self, values: Tensor) -> Tensor:
        """Return generated samples [N, ...] as they are stored."""
        return self.kind.to_stored(self.representation.decode(values))

    def preview(self, values: Tensor) -> Tensor:
        """Draw generated samples [N, ...], as networks make them, as uint8 images [N, C, H, W]."""
        return self.kind.preview(self.decode(values))

    def network_arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that networks may take from the data.

        `sample_shape` and `num_classes` for all; `image_size` (height, width) and `channels` for what networks see as
        images; `source_shape` for paired data.
        """
        shape = self.encoded_shape
        found: dict[str, Any] = {"sample_shape": shape, "num_classes": self.label_width}
        if len(shape) == 3:
            found |= {"channels": shape[0], "image_size": shape[1:]}
        if self.source is not None:
            found["source_shape"] = self.source.encoded_shape
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values to rebuild the spec from, without the representation's buffers."""
        return {
            "kind": as_node(self.kind),
            "shape": list(self.shape),
            "representation": as_node(self.representation),
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "class_counts": list(self.class_counts),
            "attributes": list(self.attributes),
            "attribute_ranges": [list(ends) for ends in self.attribute_ranges],
            "label_vectors": [list(vector) for vector in self.label_vectors],
            "source": None if self.source is None else self.source.as_dict(),
            "num_groups": self.num_groups,
        }

    @classmethod
    def from_dict(
        cls, node: Mapping[str, Any], *, origin: Path, trust: Sequence[str] = ()
    ) -> "SampleSpec":
        """Make the spec that `as_dict` described.

        Args:
            node: as `as_dict` returns it.
            origin: the file that it was read from.
            trust: packages besides gan_lab whose classes it may name.

        Raises:
            InputError: when it is invalid.
        """

        def part(key: str, kind: Any) -> Any:
            return take(node, key, kind, origin=origin)

        def made(key: str, base: type) -> Any:
            return build(part(key, dict[str, Any]), base, origin=origin, trust=trust)

        source = part("source", dict[str, Any] | None)
        return cls(
            kind=made("kind", SampleKind),
            shape=tuple(part("shape", list[Count])),
            representation=made("representation", Representation),
            num_classes=part("num_classes", Annotated[int, Field(ge=0, le=10**6)]),
            class_names=tuple(part("class_names", ClassNames)),
            class_counts=tuple(part("class_counts", ClassCounts)),
            attributes=tuple(part("attributes", ClassNames)),
            attribute_ranges=tuple(part("attribute_ranges", list[tuple[FiniteFloat, FiniteFloat]])),
            label_vectors=tuple(map(tuple, part("label_vectors", list[list[FiniteFloat]]))),
            source=None if source is None else cls.from_dict(source, origin=origin, trust=trust),
            num_groups=part("num_groups", Annotated[int, Field(ge=0, le=10**9)])
            if "num_groups" in node
            else 0,
        )


def to_pil(image: Tensor) -> Image.Image:
    """Convert one uint8 image [C, H, W] with 1 (gray), 3 (RGB) or 4 (RGBA) channels to a Pillow image."""
    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def as_node(made: SampleKind | Representation | Excerpts) -> dict[str, Any]:
    """Return the configuration node that an object can be built from again."""
    cls = type(made)
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}", **made.arguments}


@dataclass
class Batch:
    """The real samples of one step, with labels and sources.

    Attributes:
        real: [N, ...]: as stored on the host, as networks see them on the device.
        labels: None, classes int64 [N], or vectors float [N, K].
        source: [N, ...], to translate from, for paired data; else None.
    """

    real: Tensor
    labels: Tensor | None = None
    source: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.real)

    def __getitem__(self, part: slice) -> "Batch":
        """Return some of the samples."""
        return self._each(lambda values: values[part])

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device; from pinned memory without waiting."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy to pinned memory, for DataLoader."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        labels = None if self.labels is None else change(self.labels)
        source = None if self.source is None else change(self.source)
        return Batch(change(self.real), labels, source)

    def split(self, size: int) -> list["Batch"]:
        """Cut into consecutive parts of `size` samples; the last may be smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]


def check_same_spec(train: SampleSpec, val: SampleSpec) -> None:
    """Check that two splits hold samples of one shape and of the same classes or attributes.

    Raises:
        InputError: naming what differs.
    """
    for what in ("shape", "class_names", "attributes"):
        ours, theirs = getattr(train, what), getattr(val, what)
        if ours != theirs:
            raise InputError(
                f"{what} is {ours} in the training split but {theirs} in validation; make both the same"
            )
