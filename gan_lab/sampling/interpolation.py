"""Interpolation between seeds, classes or saved latents, and style mixing.

In z, along great circles (White 2016, https://arxiv.org/abs/1609.04468): points on a straight line between Gaussian
latents are shorter than those seen in training. In w, straight (Karras et al. 2019, section 4.1,
https://arxiv.org/abs/1812.04948). Loops are cubic splines. Labels are mixed as vectors: of generators whose class is an
embedding (BigGAN and others), that morphs one class into the other (Brock et al. 2019, figure 8,
https://arxiv.org/abs/1809.11096).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import label_vectors
from gan_lab.sampling.latents import Labels, Latents, LatentSource
from gan_lab.sampling.sampler import BATCH_SIZE, Sampler

METHODS = ("linear", "spherical", "spline")

_PARALLEL = 1e-6  # below this sine of the angle, great circles are replaced by lines


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Interpolate between vectors on the sphere.

    Directions are interpolated along the great circle and lengths linearly, which keeps the usual
    length of z. Collinear vectors are interpolated linearly.

    Args:
        a: [N, ..., D].
        b: of the same shape.
        t: positions [N], or one for all; 0 for a and 1 for b.

    Returns:
        [N, ..., D] in the type of a.
    """
    start, end = (v.double().norm(dim=-1, keepdim=True).clamp_min(1e-300) for v in (a, b))
    first, second = a.double() / start, b.double() / end
    t = torch.as_tensor(t, dtype=torch.float64, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    angle = (first * second).sum(-1, keepdim=True).clamp(-1, 1).acos()
    sine = angle.sin()
    mixed = (((1 - t) * angle).sin() * first + (t * angle).sin() * second) / sine
    # near 0 and 180 degrees the great circle is not unique
    mixed = torch.where(sine < _PARALLEL, torch.lerp(first, second, t), mixed)
    return (mixed * torch.lerp(start, end, t)).to(a.dtype)


@dataclass(frozen=True)
class Path:
    """A path through key points.

    Attributes:
        points: [K, ...].
        method: "linear", "spherical" (over great circles of the last dimension, lengths linearly), or "spline" (cubic:
            velocity and acceleration are continuous).
        closed: whether the path leads back to the first point.
        lengths: for "spline": whether to interpolate directions and lengths separately, so that no point between is
            shorter than its neighbors; for z.

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
                "interpolation needs two key points or more; give more seeds, classes or latents"
            )

    @property
    def segments(self) -> int:
        """Number of parts between two key points."""
        return len(self.points) - (0 if self.closed else 1)

    def positions(self, frames: int) -> Tensor:
        """Return positions [T], float64: `frames` in each segment, and the end of an open path.

        A closed path ends one step before its beginning, so that it can be repeated.
        """
        if frames < 1:
            raise InputError(f"frames={frames} must be at least 1 for each segment")
        count = self.segments * frames + (0 if self.closed else 1)
        return torch.arange(count, dtype=torch.float64) / frames

    def sample(self, positions: Tensor) -> Tensor:
        """Return points [T, ...] in the type of the key points."""
        if self.method == "spline":
            return self._sample_spline(positions)
        index = positions.floor().long().clamp(0, self.segments - 1)
        t = positions - index
        a = self.points[index]
        b = self.points[(index + 1) % len(self.points)]
        if self.method == "spherical":
            return slerp(a, b, t)
        t = t.reshape(-1, *[1] * (a.ndim - 1))
        return torch.lerp(a.double(), b.double(), t.to(a.device)).to(a.dtype)

    def _sample_spline(self, positions: Tensor) -> Tensor:
        points = self.points.double()
        if not self.lengths:
            return self._spline(points)(positions).to(self.points)
        length = points.norm(dim=-1, keepdim=True).clamp_min(1e-300)
        direction = self._spline(points / length)(positions)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        return (direction * self._spline(length.log())(positions).exp()).to(self.points)

    def _spline(self, points: Tensor) -> Callable[[Tensor], Tensor]:
        knots = points.cpu()
        if self.closed:
            knots = torch.cat([knots, knots[:1]])
        ends = "periodic" if self.closed else "natural"
        spline = CubicSpline(range(len(knots)), knots.numpy(), bc_type=ends)
        return lambda positions: torch.from_numpy(spline(positions.numpy()))


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """A path through a latent space.

    Attributes:
        gan: of the latents.
        path: of z [K, Z] or w [K, L, D].
        labels: path of label vectors [K, num_classes]; None where no labels are needed.
        truncation: psi for w mapped from z on the path; key points in w are truncated already.
        truncation_center: of that psi.
        noise: of the images.
    """

    gan: Sampler
    path: Path
    labels: Path | None = None
    truncation: float | None = None
    truncation_center: str = "mean"
    noise: str = "const"

    def sample(self, positions: Tensor) -> Latents:
        """Return the latents at positions [T] of the path."""
        labels = None if self.labels is None else self.labels.sample(positions)
        latents = Latents.of(self.path.sample(positions), labels)
        if latents.z is None or not self.gan.has_styles:
            return latents
        return self.gan.as_latents(
            latents, truncation=self.truncation, truncation_center=self.truncation_center
        )

    def images(self, positions: Tensor, *, batch_size: int = BATCH_SIZE) -> Tensor:
        """Make images [T, C, H, W] at positions [T] of the path, on the generator's device."""
        return self.gan.synthesize(self.sample(positions), noise=self.noise, batch_size=batch_size)


def interpolation(
    gan: Sampler,
    source: LatentSource,
    *,
    labels: Labels | None = None,
    space: str | None = None,
    method: str | None = None,
    loop: bool = False,
    truncation: float | None = None,
    truncation_center: str = "mean",
    noise: str = "const",
) -> Interpolation:
    """Make a path through key points.

    Args:
        gan: the generator.
        source: key points: seeds, z [K, Z], w [K, L, D], or latents of a file.
        labels: of the key points: one, one for each, or several for one point, which then only changes its class.
        space: "z" or "w"; None for w where there are styles.
        method: "linear", "spherical" or "spline"; None for a spline in a loop, else spherical in normal z and linear
            in uniform z and in w.
        loop: whether to go back to the first point; the images can then be repeated without a seam.
        truncation: as in `Sampler.latents`; likewise `truncation_center`.
        noise: "const" or "none"; "random" would flicker and is an error.

    Raises:
        InputError: for a single point, or options that the generator lacks.
    """
    gan.check(noise=noise)
    if noise == "random":
        raise InputError("noise=random would flicker from image to image; choose const or none")
    keys = gan.as_latents(
        source,
        labels=labels,
        truncation=truncation,
        truncation_center=truncation_center,
        space=space,
    )
    if method is None:
        flat = keys.z is None or gan.generator.z_distribution == "uniform"
        straight = "linear" if flat else "spherical"
        method = "spline" if loop else straight
    path = Path(keys.values, method, loop, lengths=keys.z is not None)
    vectors = None
    if keys.z is not None and keys.labels is not None:
        straight = "linear" if method == "spherical" else method
        vectors = Path(label_vectors(keys.labels, gan.num_classes, keys.values), straight, loop)
    return Interpolation(
        gan=gan,
        path=path,
        labels=vectors,
        truncation=truncation,
        truncation_center=truncation_center,
        noise=noise,
    )


# Style mixing: some layers take the style of one image, the others that of another. Karras et al. 2019, section 3.1
# and figure 3.


Layers = str | int | range | Sequence[str | int]


def pick_layers(gan: Sampler, layers: Layers) -> list[int]:
    """Return the indices of styles, in order.

    Args:
        gan: a generator with styles.
        layers: "coarse", "middle", "fine", "all", an index, a range such as "0-3" (with its last), several of these in
            a list or with commas between them, or a `range`. An empty list means none.

    Raises:
        InputError: for unknown layers, and a level without layers at this image size.
    """
    if isinstance(layers, str):
        parts: Sequence[str | int] = layers.replace(" ", "").split(",")
    else:
        parts = [layers] if isinstance(layers, int) else list(layers)
    found = [_indices(gan, part) for part in parts]
    empty = [str(part) for part, indices in zip(parts, found, strict=True) if not indices]
    chosen = sorted({index for indices in found for index in indices})
    if empty and not chosen:
        raise InputError(
            f"layers={','.join(empty)}: images of this size have no such layers; {layer_names(gan)}"
        )
    return chosen


def _indices(gan: Sampler, part: str | int) -> Sequence[int]:
    levels = gan.style_generator.levels() | {"all": range(gan.num_ws)}
    if isinstance(part, str) and part in levels:
        return levels[part]
    first, dash, last = str(part).partition("-")
    numbers = [first, last] if dash else [first]
    if isinstance(part, bool) or not all(number.isdecimal() for number in numbers):
        raise InputError(f"layers={part}: {layer_names(gan)}")
    start, stop = int(first), int(numbers[-1])
    if start > stop or stop >= gan.num_ws:
        raise InputError(f"layers={part} is out of range: {layer_names(gan)}")
    return range(start, stop + 1)


def layer_names(gan: Sampler) -> str:
    """List the layers for messages."""
    levels = ", ".join(
        f"{name} ({span.start}-{span.stop - 1})"
        for name, span in gan.style_generator.levels().items()
        if len(span)
    )
    return f"choose from {levels}, all, or numbers from 0 to {gan.num_ws - 1}, such as 0-3"


@dataclass(frozen=True)
class Mixture:
    """Images of rows and columns, and their mixtures.

    Attributes:
        rows: [R, C, H, W].
        columns: [K, C, H, W].
        mixed: [R * K, C, H, W], row by row.
    """

    rows: Tensor
    columns: Tensor
    mixed: Tensor

    def sheet(self) -> Tensor:
        """Return [(R + 1) (K + 1), C, H, W]: the columns' images above, the rows' at the left, an empty corner."""
        empty = torch.ones_like(self.rows[:1])
        parts = [empty, self.columns]
        for row, mixed in zip(self.rows, self.mixed.split(len(self.columns)), strict=True):
            parts += [row[None], mixed]
        return torch.cat(parts)


def mixture(
    gan: Sampler,
    rows: LatentSource,
    columns: LatentSource,
    *,
    layers: Layers,
    row_labels: Labels | None = None,
    column_labels: Labels | None = None,
    truncation: float | None = None,
    truncation_center: str = "mean",
    noise: str = "const",
) -> Mixture:
    """Mix styles; arguments as in `Gan.mix`. Images are on the CPU."""
    chosen = pick_layers(gan, layers)
    gan.check(noise=noise)
    of_rows, of_columns = (
        gan.as_latents(
            source, labels=labels, truncation=truncation, truncation_center=truncation_center
        ).values.to(gan.device)
        for source, labels in ((rows, row_labels), (columns, column_labels))
    )
    mixed = mix_w(of_rows, of_columns, chosen)
    w = torch.cat([of_rows, of_columns, mixed])
    # the same random noise for all, so that images only differ in their styles
    images = gan.synthesize(Latents(w=w, seeds=[(0, 0)] * len(w)), noise=noise).cpu()
    return Mixture(*images.split([len(of_rows), len(of_columns), len(mixed)]))


def mix_w(rows: Tensor, columns: Tensor, layers: list[int]) -> Tensor:
    """Return w [R * K, L, D], row by row, of rows [R, L, D] with the `layers` of columns [K, L, D]."""
    mixed = rows[:, None].repeat(1, len(columns), 1, 1)
    mixed[:, :, layers] = columns[None, :, layers]
    return mixed.flatten(0, 1)
