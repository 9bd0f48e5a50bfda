"""Ways through key points: straight, over the sphere, or smooth, open or closed.

A place on a way is a number t: 0 at the first key point, 1 at the second, and so on; on a closed way of K points, K is
the first point again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from gan_lab.errors import InputError

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
