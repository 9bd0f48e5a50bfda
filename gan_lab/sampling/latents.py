"""Latents, labels and noise: functions of (seed, index), and files of latents."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.run import write
from gan_lab.seeding import Stream, derive_seed

SUFFIX = ".safetensors"

SHAPES = {"z": "[N, Z]", "w": "[N, L, D]"}


# one seed for all images, or one for each, whose first image it is
Seeds = int | Sequence[int]

SeedIndex = tuple[int, int]  # (seed, index): what an image is drawn from

Attributes = Mapping[str, float]  # values by name; others are drawn

# a class for all or each image, vectors (mixed classes or attributes), or attributes by name
# classes by index or name, vectors, or attributes by name
Labels = (
    int
    | str
    | Sequence[int]
    | Sequence[str]
    | Sequence[Sequence[float]]
    | Tensor
    | Attributes
    | Sequence[Attributes]
)


def seed_indices(num_images: int, seed: Seeds = 0, start: int = 0) -> list[SeedIndex]:
    """Return (seed, index) of images `start` to `start + num_images`.

    Args:
        num_images: how many.
        seed: of all, with indices from `start` on; or one for each image, from the `start`-th on, with index 0.
        start: the first.

    Raises:
        InputError: for no images, negative seeds, or fewer seeds than images.
    """
    if not isinstance(num_images, Integral) or num_images < 1:
        raise InputError(f"num_images={num_images!r} must be a whole number, at least 1")
    if isinstance(seed, int):
        found = [(seed, i) for i in range(start, start + num_images)]
    else:
        found = [(int(one), 0) for one in seed[start : start + num_images]]
        if len(found) < num_images:
            raise InputError(
                f"{len(seed)} seeds are too few for images {start} to {start + num_images}"
            )
    for one, _ in found:
        if one < 0:
            raise InputError(f"seed={one} must be from 0")
    return found


def draw_z(
    drawn: Sequence[SeedIndex],
    dim: int,
    threshold: float | None = None,
    *,
    distribution: str = "normal",
) -> Tensor:
    """Draw z [N, dim], standard normal or uniform in [-1, 1]; normal ones beyond a threshold are drawn again."""
    rows = []
    for seed, index in drawn:
        generator = torch.Generator().manual_seed(derive_seed(seed, index))
        z = torch.randn(dim, generator=generator)
        if threshold is not None:
            uniform = torch.rand(dim, generator=generator, dtype=torch.float64)
            z = redraw_beyond(z, uniform, threshold)
        rows.append(z)
    drawn_z = torch.stack(rows)
    # the distribution function maps any distribution to a uniform one
    return drawn_z if distribution == "normal" else 2 * torch.special.ndtr(drawn_z) - 1


def draw_labels(drawn: Sequence[SeedIndex], weights: Sequence[float]) -> Tensor:
    """Draw labels int64 [N] in proportion to the classes' weights."""
    shares = torch.tensor(weights, dtype=torch.float64)
    thresholds = shares.cumsum(0) / shares.sum()
    draws = [
        torch.rand(
            (),
            generator=torch.Generator().manual_seed(derive_seed(seed, index, Stream.LABELS)),
            dtype=torch.float64,
        )
        for seed, index in drawn
    ]
    found = torch.searchsorted(thresholds, torch.stack(draws), right=True)
    return found.clamp(max=len(weights) - 1)


def draw_label_vectors(drawn: Sequence[SeedIndex], vectors: Tensor) -> Tensor:
    """Draw label vectors float32 [N, K] from the rows of others [M, K], each as often as the others."""
    return vectors[draw_labels(drawn, [1] * len(vectors))]


def by_index(labels: Labels, class_names: Sequence[str]) -> Labels:
    """Replace names of classes by their indices; other labels stay.

    Raises:
        InputError: for an unknown name.
    """
    given = [labels] if isinstance(labels, str) else labels
    if not isinstance(given, Sequence) or not all(isinstance(one, str) for one in given):
        return labels
    unknown = [one for one in given if one not in class_names]
    if unknown:
        known = f"they are {', '.join(class_names)}" if class_names else "give their numbers"
        raise InputError(f"labels={labels!r}: there is no class {unknown[0]!r}; {known}")
    indices = [class_names.index(str(one)) for one in given]
    return indices[0] if isinstance(labels, str) else indices


def by_name(labels: Labels) -> list[Attributes] | None:
    """Return attributes given by name as a list, for all or each image; None for other labels."""
    given = [labels] if isinstance(labels, Mapping) else labels
    if not isinstance(given, Sequence) or not given:
        return None
    found = [one for one in given if isinstance(one, Mapping)]
    return found if len(found) == len(given) else None


def set_attributes(rows: Tensor, attributes: Sequence[Attributes], names: Sequence[str]) -> Tensor:
    """Return label vectors [N, K] with the given values replaced.

    Args:
        rows: [N, K].
        attributes: one for all rows, or one for each.
        names: of the K attributes.

    Raises:
        InputError: for other names, other numbers of rows, and numbers that are not finite.
    """
    there = f"the model's attributes are {', '.join(names)}" if names else "the model has none"
    if len(attributes) not in (1, len(rows)):
        raise InputError(
            f"{len(attributes)} sets of attributes for {len(rows)} images; give one, or one for each"
        )
    rows = rows.clone()
    for i, one in enumerate(attributes):
        for name, value in one.items():
            if name not in names:
                raise InputError(f"labels={dict(one)}: {name} is not an attribute; {there}")
            if not is_finite_number(value):
                raise InputError(f"labels={dict(one)}: {name} must be a finite number")
            rows[i if len(attributes) > 1 else slice(None), list(names).index(name)] = value
    return rows


def is_finite_number(value: object) -> bool:
    """Whether a value is a finite number and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def redraw_beyond(z: Tensor, uniform: Tensor, threshold: float) -> Tensor:
    """Draw the components of z beyond a threshold again.

    Redrawing until a component is within the threshold gives the truncated normal distribution. Inverting its
    distribution function does so in one draw.

    Args:
        z: standard normal, any shape.
        uniform: in [0, 1), float64, of the same shape.
        threshold: positive.
    """
    limit = torch.tensor(threshold, dtype=torch.float64)
    below, above = torch.special.ndtr(-limit), torch.special.ndtr(limit)
    drawn = torch.special.ndtri(below + uniform * (above - below)).clamp(-limit, limit)
    return torch.where(z.abs() > threshold, drawn.to(z.dtype), z)


class ImageNoise:
    """Noise for each image from its own generator: the same in any batch, on any device.

    Args:
        drawn: (seed, index) of each image.
    """

    def __init__(self, drawn: Sequence[SeedIndex]) -> None:
        self._generators = [
            torch.Generator().manual_seed(derive_seed(seed, index, Stream.NOISE))
            for seed, index in drawn
        ]

    def __call__(self, constant: Tensor) -> Tensor:
        """Return noise [N, 1, H, W] for the next layer, whose constant noise is [H, W]."""
        drawn = [torch.randn(1, *constant.shape, generator=one) for one in self._generators]
        return torch.stack(drawn).to(constant)


def check_labels(labels: Labels, num_images: int, num_classes: int) -> Tensor:
    """Check labels and return int64 [N], or float32 [N, num_classes] for vectors.

    Args:
        labels: one class for all, one for each image; vectors [N, num_classes] of the classes' shares or of
            attributes, or one such vector for all.
        num_images: N.
        num_classes: of the generator.

    Raises:
        InputError: for an unconditional generator, an unknown class, or another shape.
    """
    if not num_classes:
        raise InputError("labels were given to a generator without classes; leave them out")
    try:
        chosen = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"labels={labels!r} are not whole numbers") from error
    if chosen.is_floating_point() and chosen.shape == (num_classes,):
        chosen = chosen.expand(num_images, -1)
    if chosen.is_floating_point() and chosen.ndim == 2:
        return _check_vectors(chosen, num_images, num_classes)
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


def _check_vectors(labels: Tensor, num_images: int, num_classes: int) -> Tensor:
    if labels.shape != (num_images, num_classes):
        raise InputError(
            f"label vectors have shape {tuple(labels.shape)}; {num_images} images of {num_classes} classes take "
            f"{(num_images, num_classes)}"
        )
    if not labels.isfinite().all():
        raise InputError("label vectors hold NaN or infinity")
    return labels.float()


def check_classes(num_classes: int, spec: SampleSpec, *, origin: Path) -> None:
    """Check that a file's classes match a generator.

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


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents z or w with their labels; truncation has been applied.

        latents = gan.latents(16, labels=3, truncation=0.7)
        gan.synthesize(latents)
        latents[:4].save("four.safetensors")

    Exactly one of z and w is set. In a file they are tensors of these names, and `metadata` is its text metadata:
    "kind" is the command (generate, project, explore), "model" the architecture, then "seed" and so on.

    Attributes:
        z: float32 [N, Z].
        w: float32 [N, L, D].
        labels: int64 [N], float32 [N, num_classes], or None without classes.
        source: stored samples [N, ...] to translate, for generators that do so; else None.
        seeds: (seed, index) of each, from which random noise is drawn; by default those of seed 0. Not kept in files.
        metadata: text by name.

    Raises:
        InputError: for both, none, or other shapes.
    """

    z: Tensor | None = None
    w: Tensor | None = None
    labels: Tensor | None = None
    source: Tensor | None = None
    seeds: Sequence[SeedIndex] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.z is None) == (self.w is None):
            raise InputError("latents are z or w: give one of them")
        name, dims = ("z", 2) if self.w is None else ("w", 3)
        if self.values.ndim != dims or not len(self.values):
            raise InputError(
                f"{name} has shape {tuple(self.values.shape)}; it must be {SHAPES[name]}"
            )
        if self.labels is not None and len(self.labels) != len(self):
            raise InputError(f"{len(self)} latents have {len(self.labels)} labels")
        if self.source is not None and len(self.source) != len(self):
            raise InputError(f"{len(self)} latents have {len(self.source)} sources")
        if not self.seeds:
            object.__setattr__(self, "seeds", seed_indices(len(self)))

    @classmethod
    def of(cls, values: Tensor, labels: Tensor | None = None) -> "Latents":
        """Take a tensor [N, Z] for z and one [N, L, D] for w.

        Raises:
            InputError: for another shape.
        """
        if values.ndim not in (2, 3):
            raise InputError(
                f"latents have shape {list(values.shape)}; give z [N, Z] or w [N, L, D]"
            )
        return cls(z=values, labels=labels) if values.ndim == 2 else cls(w=values, labels=labels)

    @property
    def values(self) -> Tensor:
        """The z or the w."""
        found = self.z if self.w is None else self.w
        assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> "Latents":
        labels = None if self.labels is None else self.labels[rows]
        source = None if self.source is None else self.source[rows]
        return self.replace(self.values[rows], labels=labels, source=source, seeds=self.seeds[rows])

    def split(self, size: int) -> list["Latents"]:
        """Return parts of `size` latents, the last one perhaps smaller."""
        if len(self) <= size:
            return [self]
        return [self[i : i + size] for i in range(0, len(self), size)]

    def expand(self, count: int) -> "Latents":
        """Return one latent `count` times."""
        values, labels, source = self.values, self.labels, self.source
        return self.replace(
            values.expand(count, *values.shape[1:]),
            labels=None if labels is None else labels.expand(count, *labels.shape[1:]),
            source=None if source is None else source.expand(count, *source.shape[1:]),
            seeds=list(self.seeds) * count,
        )

    def replace(self, values: Tensor, **changes: Any) -> "Latents":
        """Return latents of the same kind with other values and other attributes."""
        name = "z" if self.w is None else "w"
        return replace(self, **{name: values, **changes})

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; the folder is created if needed. Returns the path."""
        path = Path(path).expanduser()
        if path.suffix != SUFFIX:
            raise InputError(f"{path}: latents are kept in a file that ends in {SUFFIX}")
        tensors = {"z": self.z, "w": self.w, "labels": self.labels, "source": self.source}
        there = {
            name: rows.cpu().contiguous() for name, rows in tensors.items() if rows is not None
        }
        data = save(there, metadata={name: str(text) for name, text in self.metadata.items()})
        write(path, _sort_header(data))
        return path

    @classmethod
    def read(cls, path: str | Path) -> "Latents":
        """Read a file that `save` wrote.

        Raises:
            InputError: for a missing file or one with other content.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise InputError(
                f"{path} does not exist; give a file of latents, such as latents{SUFFIX}"
            )
        try:
            with safe_open(path, framework="pt") as opened:
                names = set(opened.keys())
                metadata = dict(opened.metadata() or {})
                read = {
                    name: opened.get_tensor(name) for name in names & {"z", "w", "labels", "source"}
                }
            for name in names & {"z", "w"}:
                read[name] = finite_floats(name, read[name])
            for name in names & {"labels", "source"}:
                if not read[name].ndim or read[name].is_complex():
                    raise InputError(
                        f"{path}: {name} is {read[name].dtype} of shape {list(read[name].shape)}"
                    )
        except (SafetensorError, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} is not a complete safetensors file ({error}); save it again"
            ) from error
        if len(names & {"z", "w"}) != 1:
            raise InputError(
                f"{path} holds {', '.join(sorted(names)) or 'nothing'}; latents are one tensor z or w, and labels"
            )
        try:
            return cls(**read, metadata=metadata)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def finite_floats(name: str, values: Tensor) -> Tensor:
    """Return a tensor of a file as float32; ValueError for integers, NaN and the like."""
    if not values.is_floating_point() or not torch.isfinite(values.float()).all():
        raise ValueError(
            f"{name} is {values.dtype}, or not finite: floating-point numbers must be finite"
        )
    return values.float()


# what users give: seeds, z, w, or latents
LatentSource = Latents | Seeds | Tensor


def _sort_header(data: bytes) -> bytes:
    """Return a safetensors file with its header's names in order, so that equal latents make equal files."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]
