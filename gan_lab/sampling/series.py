"""A numbered series of samples, which is drawn in blocks; a block is the same whoever draws it, and when."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lab.sampling.directions import Directions
from gan_lab.sampling.latents import Attributes, Latents, Seeds, by_name, seed_indices
from gan_lab.sampling.sampler import Sampler


@dataclass(frozen=True)
class Block:
    """Some images in a row.

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
class Series:
    """What is to be drawn.

    Attributes:
        gan: what draws.
        count: of images.
        seed: one for all, or one for each image.
        labels: [count], or attributes by name for each image; None has them drawn.
        latents: what the images are made from in place of seeds, which then are those of random noise alone.
        stem: name of those latents.
        truncation: as in `Sampler.sample`; likewise `truncation_center` and `noise`.
        transform: of the image plane, [3, 3], or None.
        directions: along which latents are moved; None for none.
        amounts: how far along the first so many directions, in deviations.
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

    def block(self, start: int, stop: int) -> Block:
        """Draw images `start` to `stop` in one forward pass."""
        latents = self._latents(start, stop)
        if self.directions is not None:
            latents = latents.replace(self.directions.apply(latents.values, self.amounts))
        images = self.gan.synthesize(
            latents, noise=self.noise, transform=self.transform, batch_size=stop - start
        )
        kept = latents.replace(latents.values.cpu())
        samples = self.gan.spec.decode(images).cpu()
        return Block(start, samples, kept, self._names(start, kept))

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
    """Return labels [len(given) * each] of classes or attributes, one after the other; None for None."""
    if given is None:
        return None
    named = by_name(given)
    if named is not None:
        return [one for one in named for _ in range(each)]
    return torch.tensor(given).repeat_interleave(each)


_MOST_NAMED = 20  # classes in a message

_LONGEST_TEXT = 40  # of seeds in the name of a folder


def named_classes(gan: Sampler) -> str:
    """Return which classes there are, for messages."""
    last = gan.num_classes - 1
    numbers = f"there are {gan.num_classes}, 0 to {last}"
    if not gan.class_names or gan.class_names == [str(i) for i in range(gan.num_classes)]:
        return numbers
    names = ", ".join(f"{i} {name}" for i, name in enumerate(gan.class_names[:_MOST_NAMED]))
    more = ", ..." if gan.num_classes > _MOST_NAMED else ""
    return f"{numbers}: {names}{more}"


def slug(name: str) -> str:
    """Return a name as part of a file's name."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:_LONGEST_TEXT]


def class_suffix(label: int, gan: Sampler) -> str:
    """Return the end of a file's name: _class3, or _class3_cat where classes have names other than their numbers."""
    name = slug(gan.class_names[label]) if label < len(gan.class_names) else ""
    return f"_class{label}" + (f"_{name}" if name and name != str(label) else "")
