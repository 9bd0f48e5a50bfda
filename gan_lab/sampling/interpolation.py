"""Pictures on the way from point to point: between seeds, classes or saved latents.

In z, over great circles (White 2016, https://arxiv.org/abs/1609.04468): points between two Gaussian latents on a
straight line are shorter than any that the generator has seen. In w, straight (Karras et al. 2019, section 4.1,
https://arxiv.org/abs/1812.04948). Loops are cubic splines. Labels are mixed as vectors: of generators whose class is an
embedding (BigGAN and others), that morphs one class into the other (Brock et al. 2019, figure 8,
https://arxiv.org/abs/1809.11096).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from gan_lab.data.images import Images
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.labels import Labels, as_vectors
from gan_lab.sampling.points import Points, Source, as_points
from gan_lab.sampling.rendering import Rendering, check_rendering

METHODS = ("linear", "spherical", "spline")

_PARALLEL = 1e-6  # sine of an angle below which great circles are taken for lines


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Interpolate between vectors on the sphere.

    Directions are interpolated over the great circle and lengths linearly, which makes no difference to generators that
    normalise z, and leaves z as long as others know it. Vectors in one line are interpolated on it.

    Args:
        a: [N, ..., D].
        b: of the same shape.
        t: places [N], or one for all; 0 for a and 1 for b.

    Returns:
        [N, ..., D] in the type of a.
    """
    start, end = (v.double().norm(dim=-1, keepdim=True).clamp_min(1e-300) for v in (a, b))
    first, second = a.double() / start, b.double() / end
    place = torch.as_tensor(t, dtype=torch.float64, device=a.device)
    place = place.reshape(-1, *[1] * (a.ndim - 1))
    angle = (first * second).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    mixed = (((1 - place) * angle).sin() * first + (place * angle).sin() * second) / sine
    # near 0 and 180 degrees there is no one great circle
    mixed = torch.where(sine < _PARALLEL, torch.lerp(first, second, place), mixed)
    return (mixed * torch.lerp(start, end, place)).to(a.dtype)


@dataclass(frozen=True)
class Way:
    """A way through key points.

    Attributes:
        points: [K, ...].
        method: "linear", "spherical" (over great circles of the last dimension, lengths linearly), or "spline" (cubic:
            velocity and acceleration are continuous).
        closed: whether the way leads back to the first point.
        lengths: of "spline": whether directions and lengths have splines of their own, so that no point between is
            shorter than those around it; for z, whose length generators know.

    Raises:
        InputError: for another method, or fewer than two points.
    """

    points: Tensor
    method: str = "linear"
    closed: bool = False
    lengths: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method={self.method!r} must be one of {', '.join(METHODS)}")
        if len(self.points) < 2:
            raise InputError(
                "a way needs two key points or more; give more seeds, classes or latents"
            )

    @property
    def segments(self) -> int:
        """Number of parts between two key points."""
        return len(self.points) - (0 if self.closed else 1)

    def places(self, frames: int) -> Tensor:
        """Return places [T], float64: `frames` in each segment, and of an open way its end.

        A closed way ends one step before its beginning, so that it can be repeated.
        """
        if frames < 1:
            raise InputError(f"frames={frames} must be at least 1 for each segment")
        count = self.segments * frames + (0 if self.closed else 1)
        return torch.arange(count, dtype=torch.float64) / frames

    def at(self, places: Tensor) -> Tensor:
        """Return points [T, ...] in the type of the key points."""
        if self.method == "spline":
            return self._splined(places)
        index = places.floor().long().clamp(0, self.segments - 1)
        share = places - index
        a = self.points[index]
        b = self.points[(index + 1) % len(self.points)]
        if self.method == "spherical":
            return slerp(a, b, share)
        share = share.reshape(-1, *[1] * (a.ndim - 1))
        return torch.lerp(a.double(), b.double(), share.to(a.device)).to(a.dtype)

    def _splined(self, places: Tensor) -> Tensor:
        points = self.points.double()
        if not self.lengths:
            return self._spline(points)(places).to(self.points)
        length = points.norm(dim=-1, keepdim=True).clamp_min(1e-300)
        direction = self._spline(points / length)(places)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        return (direction * self._spline(length.log())(places).exp()).to(self.points)

    def _spline(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        knots = points.cpu()
        if self.closed:
            knots = torch.cat([knots, knots[:1]])
        ends = "periodic" if self.closed else "natural"
        spline = CubicSpline(range(len(knots)), knots.numpy(), bc_type=ends)
        return lambda places: torch.from_numpy(spline(places.numpy()))


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
