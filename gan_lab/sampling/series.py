"""A numbered series of images that a generator is to draw, any part of which can be drawn at any time."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lab.sampling.directions import Directions
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Seeds
from gan_lab.sampling.points import Points
from gan_lab.sampling.rendering import Rendering


@dataclass(frozen=True)
class Block:
    """Some images in a row.

    Attributes:
        start: number of the first.
        pixels: uint8 [n, C, H, W], on the CPU.
        labels: int64 [n], float32 [n, num_classes], or None, on the CPU.
        inputs: z [n, Z], or w [n, L, D] of generators with styles, as it was drawn from; on the CPU.
        names: of the images: seed and class.
    """

    start: int
    pixels: Tensor
    labels: Tensor | None
    inputs: Tensor
    names: list[str]


@dataclass(frozen=True, eq=False)
class Series:
    """What is to be drawn: image `i` is the same one whichever part of the series is asked for.

    Attributes:
        gan: what draws.
        rendering: how.
        count: of images.
        seed: one for all, or one for each image.
        chosen: labels [count]; None has them drawn.
        points: what the images are made from in place of seeds.
        directions: along which they are moved; None for none.
        amounts: how far along the first so many directions, in deviations.
        stem: name of those points.
    """

    gan: Gan
    rendering: Rendering
    count: int
    seed: Seeds = 0
    chosen: Tensor | None = None
    points: Points | None = None
    directions: Directions | None = None
    amounts: tuple[float, ...] = ()
    stem: str = "latents"

    def block(self, start: int, stop: int) -> Block:
        """Draw images `start` to `stop`."""
        inputs, labels = self._inputs(start, stop)
        if self.directions is not None:
            inputs = self.directions.apply(inputs, self.amounts)
        gan, rendering = self.gan, self.rendering
        if gan.has_styles:
            images = gan.synthesize(
                inputs,
                noise=rendering.noise,
                seed=self.seed,
                start=start,
                transform=rendering.transform(),
            )
        else:
            images = gan.render(inputs, labels)
        pixels = gan.spec.decode(images).cpu()
        labels = None if labels is None else labels.cpu()
        return Block(start, pixels, labels, inputs.cpu(), self._names(start, stop, labels))

    def _inputs(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        gan, rendering = self.gan, self.rendering
        if self.points is not None:
            points = self.points[start:stop]
            if not gan.has_styles:
                return points.values, points.labels
            w = points.styles(gan, truncation=rendering.truncation, center=rendering.center)
            return w, points.labels
        count = stop - start
        threshold = None if gan.has_styles else rendering.truncation
        z = gan.latents(count, seed=self.seed, start=start, truncation=threshold)
        if self.chosen is None:
            labels = gan.labels(count, seed=self.seed, start=start)
        else:
            labels = self.chosen[start:stop]
        if not gan.has_styles:
            return z, labels
        w = gan.styles(z, labels, truncation=rendering.truncation, center=rendering.center)
        return w, labels

    def _names(self, start: int, stop: int, labels: Tensor | None) -> list[str]:
        names = []
        for i in range(start, stop):
            if self.points is not None:
                name = f"{self.stem}_{i:06d}"
            elif isinstance(self.seed, int):
                name = f"seed{self.seed}_{i:06d}"
            else:
                name = f"seed{self.seed[i]:06d}"
            if labels is not None and labels.ndim == 1:
                name += class_suffix(int(labels[i - start]), self.gan)
            names.append(name)
        return names


def labels_for(classes: list[int] | None, each: int) -> Tensor | None:
    """Return labels [len(classes) * each], class by class; None for None."""
    return None if classes is None else torch.tensor(classes).repeat_interleave(each)


_MOST_NAMED = 20  # classes in a message

_LONGEST_TEXT = 40  # of seeds in the name of a folder


def named_classes(gan: Gan) -> str:
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


def class_suffix(label: int, gan: Gan) -> str:
    """Return the end of a file's name: _class3, or _class3_cat where classes have names other than their numbers."""
    name = slug(gan.class_names[label]) if label < len(gan.class_names) else ""
    return f"_class{label}" + (f"_{name}" if name and name != str(label) else "")
