"""Pictures on the way from point to point: between seeds, classes or saved latents.

In z, over great circles (White 2016, https://arxiv.org/abs/1609.04468): points between two Gaussian latents on a
straight line are shorter than any that the generator has seen. In w, straight (Karras et al. 2019, section 4.1,
https://arxiv.org/abs/1812.04948). Loops are cubic splines. Labels are mixed as vectors: of generators whose class is an
embedding (BigGAN and others), that morphs one class into the other (Brock et al. 2019, figure 8,
https://arxiv.org/abs/1809.11096).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lab.editing.points import Points
from gan_lab.editing.sources import Source, as_points
from gan_lab.editing.ways import Way
from gan_lab.editing.ways import slerp as slerp
from gan_lab.errors import InputError
from gan_lab.images import Images
from gan_lab.labels import Labels, as_vectors
from gan_lab.rendering import Rendering, check_rendering
from gan_lab.sampling import Gan

SPACES = ("z", "w")


@dataclass(frozen=True)
class Journey:
    """A way through a latent space and its pictures.

    Attributes:
        gan: that makes them.
        way: of z [K, Z] or w [K, L, D].
        labels: the way of label vectors [K, num_classes]; None where no labels are needed.
        rendering: of z; w was truncated at the key points.
    """

    gan: Gan
    way: Way
    labels: Way | None
    rendering: Rendering

    def images(self, places: Tensor) -> Tensor:
        """Make pictures [T, C, H, W] at places [T] of the way, on the generator's device."""
        values = self.way.at(places)
        if self.way.points.ndim == 3:
            return self.gan.synthesize(values, noise=self.rendering.noise)
        labels = None if self.labels is None else self.labels.at(places)
        return self.gan.render(values, labels, self.rendering)

    def batches(self, places: Tensor, *, batch_size: int = 64) -> Iterator[Tensor]:
        """Yield pictures [n, C, H, W] at places [T], `batch_size` at a time."""
        for part in places.split(batch_size):
            yield self.images(part)


def journey(
    gan: Gan,
    source: Source,
    *,
    labels: Labels | None = None,
    space: str | None = None,
    method: str | None = None,
    loop: bool = False,
    truncation: float | None = None,
    center: str = "mean",
    noise: str = "const",
) -> Journey:
    """Lay a way through key points.

    Args:
        gan: the generator.
        source: key points: seeds, z [K, Z], w [K, L, D], or points of a file.
        labels: of the key points: one, as many as points, or several for one point, which then changes its class only.
        space: "z" or "w"; None for w where there are styles.
        method: "linear", "spherical" or "spline"; None for a spline in a loop, else spherical in z and linear in w.
        loop: whether to go back to the first point; the pictures can then be repeated without a seam.
        truncation: as in `Gan.sample`; likewise `center` and `noise` ("random" would flicker and is refused).

    Raises:
        InputError: for one point alone, or what the generator has not.
    """
    rendering = Rendering(truncation=truncation, center=center, noise=noise)
    check_rendering(gan.generator, rendering, styles=gan.has_styles)
    if noise == "random":
        raise InputError("noise=random would flicker from picture to picture; choose const or none")
    points = as_points(gan, source, labels=labels, truncation=truncation)
    space = space or ("w" if gan.has_styles else "z")
    check_space(gan, points, space)
    if method is None:
        method = "spline" if loop else {"z": "spherical", "w": "linear"}[space]
    if space == "w":
        w = points.styles(gan, truncation=truncation, center=center)
        return Journey(gan, Way(w, method, loop), None, rendering)
    way = Way(points.values, method, loop, lengths=True)
    vectors = None
    if points.labels is not None:
        straight = "linear" if method == "spherical" else method
        vectors = Way(as_vectors(points.labels, gan.num_classes), straight, loop)
    return Journey(gan, way, vectors, rendering)


def check_space(gan: Gan, points: Points, space: str) -> None:
    """Refuse a space that there is not.

    Raises:
        InputError: with the reason.
    """
    if space not in SPACES:
        raise InputError(f"space={space!r} must be one of {', '.join(SPACES)}")
    if space == "w" and not gan.has_styles:
        raise InputError(f"space=w: {gan.kind} has no styles w; set space=z")
    if space == "z" and points.z is None:
        raise InputError("space=z: these latents are styles w, of which no z is known; set space=w")


def interpolate(
    gan: Gan,
    source: Source,
    *,
    frames: int = 8,
    labels: Labels | None = None,
    space: str | None = None,
    method: str | None = None,
    loop: bool = False,
    truncation: float | None = None,
    center: str = "mean",
    noise: str = "const",
) -> Images:
    """Make pictures on the way from point to point; see `Gan.interpolate`."""
    way = journey(
        gan,
        source,
        labels=labels,
        space=space,
        method=method,
        loop=loop,
        truncation=truncation,
        center=center,
        noise=noise,
    )
    made = [images.cpu() for images in way.batches(way.way.places(frames))]
    return Images(torch.cat(made))
