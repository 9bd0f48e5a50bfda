"""Directions in latent space: eigenvectors of a layer's weights (SeFa), or principal components of w (GANSpace).

SeFa: Shen and Zhou 2021, https://arxiv.org/abs/2007.06600, equation 4: unit vectors n with the largest |A n|^2, which
are eigenvectors of A^T A, where A is the first layer that acts on the latents. GANSpace: Härkönen et al. 2020,
https://arxiv.org/abs/2004.02546, section 2: principal components of w.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from PIL import Image
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.nn.utils.parametrize import is_parametrized

from gan_lab.data.images import to_uint8
from gan_lab.data.media import labeled_sheet, on_white
from gan_lab.errors import InputError
from gan_lab.layers.equalized import EqualizedLinear
from gan_lab.run import write
from gan_lab.sampling.interpolation import Layers, pick_layers
from gan_lab.sampling.latents import (
    SUFFIX,
    Latents,
    check_labels,
    finite_floats,
    is_finite_number,
)
from gan_lab.sampling.sampler import Sampler
from gan_lab.sampling.search import check_count
from gan_lab.sampling.spaces import full_precision_copy
from gan_lab.seeding import Stream, check_seed, derive_seed

METHODS = ("auto", "sefa", "ganspace")

KIND = "directions"

# number of w for principal components and scales
SAMPLES = 10_000


# the largest generators have some 20 styles
_LAYERS = TypeAdapter(list[Annotated[int, Field(ge=0, le=1000)]] | None)


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions in w or z.

        found = gan.directions("ganspace", layers="coarse")
        found.save("directions.safetensors")
        gan.synthesize(found.apply(w, [2.0, -1.0]))  # 2 deviations along the first, 1 back along the second

    Attributes:
        vectors: [K, D], of length 1, the largest component of each positive.
        scales: [K], the deviation of latents along each: the unit of amounts.
        shares: [K], of the whole variance (GANSpace) or of the whole of A^T A (SeFa).
        space: "w" or "z".
        layers: styles to move, in w; None in z.
        method: "sefa" or "ganspace".
        metadata: text by name.

    Raises:
        InputError: for shapes that do not match.
    """

    vectors: Tensor
    scales: Tensor
    shares: Tensor
    space: str
    layers: Sequence[int] | None = None
    method: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or not len(self.vectors):
            raise InputError(f"directions of shape {list(self.vectors.shape)}; they are [K, D]")
        if any(part.shape != self.vectors.shape[:1] for part in (self.scales, self.shares)):
            raise InputError("directions have one scale and one share each")
        if self.space not in ("w", "z"):
            raise InputError(f"directions in {self.space!r}; they are in w or z")

    def __len__(self) -> int:
        return len(self.vectors)

    def apply(
        self,
        values: Tensor,
        amounts: Sequence[float] | Tensor,
        *,
        layers: Sequence[int] | None = None,
    ) -> Tensor:
        """Move latents along directions.

        Args:
            values: w [N, L, D], or z [N, Z].
            amounts: along the first k directions, in deviations: [k] for all latents, or [N, k].
            layers: styles to move instead of the directions' own.

        Returns:
            A moved copy.

        Raises:
            InputError: for latents or amounts that do not fit.
        """
        given = torch.as_tensor(amounts, dtype=values.dtype, device=values.device)
        if given.ndim == 1:
            given = given.expand(len(values), -1)
        if given.ndim != 2 or len(given) != len(values) or given.shape[1] > len(self):
            raise InputError(
                f"amounts of shape {list(given.shape)}; there are {len(self)} directions and {len(values)} latents"
            )
        if not given.isfinite().all():
            raise InputError("amounts must be finite numbers")
        self.check_shape(values)
        count = given.shape[1]
        along = self.vectors[:count].to(values) * self.scales[:count, None].to(values)
        steps = given @ along  # [N, D]
        if self.space == "z":
            return values + steps
        moved = values.clone()
        chosen = (
            list(self.layers if layers is None else layers)
            if self.layers is not None
            else slice(None)
        )
        moved[:, chosen] += steps[:, None]
        return moved

    def check_shape(self, values: Tensor) -> None:
        """Check that latents match the directions.

        Raises:
            InputError: with both shapes.
        """
        dims = 3 if self.space == "w" else 2
        last = -1 if not self.layers else max(self.layers)
        fits = values.ndim == dims and values.shape[-1] == self.vectors.shape[1]
        if not fits or (dims == 3 and last >= values.shape[1]):
            raise InputError(
                f"latents of shape {list(values.shape)}: these are directions of "
                f"{self.space} [N, {'L, ' * (dims == 3)}{self.vectors.shape[1]}]"
                + (f", layers up to {last}" if last >= 0 else "")
            )

    def check(self, gan: Sampler) -> None:
        """Check that a generator fits the directions.

        Raises:
            InputError: with both shapes.
        """
        if self.space == "z":
            self.check_shape(torch.empty(1, gan.z_dim))
        else:
            self.check_shape(torch.empty(1, gan.num_ws, gan.w_dim))

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; the folder is created if needed. Returns the path."""
        path = Path(path).expanduser()
        if path.suffix != SUFFIX:
            raise InputError(f"{path}: directions are kept in a file that ends in {SUFFIX}")
        tensors = {"directions": self.vectors, "scales": self.scales, "shares": self.shares}
        metadata = {
            **{name: str(text) for name, text in self.metadata.items()},
            "kind": KIND,
            "space": self.space,
            "layers": json.dumps(None if self.layers is None else list(self.layers)),
            "method": self.method,
        }
        write(path, save({n: t.cpu().contiguous() for n, t in tensors.items()}, metadata=metadata))
        return path

    @classmethod
    def read(cls, path: str | Path, *, gan: Sampler | None = None) -> "Directions":
        """Read a file that `save` wrote.

        Args:
            path: of the file.
            gan: whose latents they must fit; None checks nothing.

        Raises:
            InputError: for a missing file or one with other content, and for another generator's directions.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise InputError(f"{path} does not exist; gan-lab directions writes such files")
        try:
            with safe_open(path, framework="pt") as opened:
                known = dict(opened.metadata() or {})
                if known.get("kind") != KIND:
                    raise InputError(f"{path} holds no directions; gan-lab directions writes them")
                parts = [
                    finite_floats(name, opened.get_tensor(name))
                    for name in ("directions", "scales", "shares")
                ]
                layers = _LAYERS.validate_json(known["layers"], strict=True)
                space, method = known["space"], known["method"]
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is not a complete file of directions ({error})") from error
        other = {n: t for n, t in known.items() if n not in ("kind", "layers", "space", "method")}
        vectors, scales, shares = parts
        found = cls(vectors, scales, shares, space, layers, method, other)
        if gan is not None:
            try:
                found.check(gan)
            except InputError as error:
                raise InputError(f"{path} is of another generator: {error}") from error
        return found


def directions(
    gan: Sampler,
    method: str = "auto",
    *,
    layers: Layers = "all",
    count: int = 10,
    labels: int | Sequence[int] | None = None,
    within: bool = True,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Directions:
    """Find directions.

    Args:
        gan: a trained generator.
        method: "sefa"; "ganspace", for generators with styles; or "auto": ganspace where there are styles.
        layers: styles to move and, for SeFa, whose affine maps make A; as `gan.mix` takes them. Only with styles.
        count: how many, at most.
        labels: classes that w are drawn of; None draws them as the training data has them.
        within: remove differences between classes for GANSpace and scales.
        samples: number of w drawn.
        seed: of them.

    Raises:
        InputError: for a method that the generator does not support, and for unknown layers or classes.
    """
    check_seed(seed)
    if method not in METHODS:
        raise InputError(f"method={method!r} must be one of {', '.join(METHODS)}")
    check_count("count", count, 1)
    check_count("samples", samples, 2)
    metadata = {"model": gan.kind, "seed": str(seed)}
    if not gan.has_styles:
        return of_latents(gan, method, layers, count, seed, metadata)
    method = "ganspace" if method == "auto" else method
    chosen = pick_layers(gan, layers)
    if not chosen:
        raise InputError("layers=[]: no layers would be moved; leave it out for all")
    w, y = draw_w(gan, samples, labels, seed)
    w = center_classes(w, y) if within and y is not None else w - w.mean(0)
    if method == "ganspace":
        matrix = w.T.double() @ w.double() / max(1, len(w) - 1)
    else:
        weights = style_weights(gan, chosen).double()
        matrix = weights.T @ weights
    vectors, values = eigenvectors(matrix, count)
    metadata |= {"samples": str(samples), "within_classes": str(within and y is not None)}
    return Directions(
        vectors=vectors.float(),
        scales=(w.double() @ vectors.T).square().mean(0).sqrt().float(),
        shares=(values / matrix.trace()).float(),
        space="w",
        layers=chosen,
        method=method,
        metadata=metadata,
    )


def of_latents(
    gan: Sampler, method: str, layers: Layers, count: int, seed: int, metadata: dict[str, str]
) -> Directions:
    """Find directions in z; arguments as in `directions`."""
    if layers not in ("all", None):
        raise InputError(
            f"layers={layers}: {gan.kind} has no styles to choose layers of; leave it out"
        )
    if method == "ganspace":
        raise InputError(
            f"method=ganspace is for generators with styles; of {gan.kind} it would take principal components of the "
            "first layer's outputs back to z, which of a linear layer are SeFa's directions: use method=sefa"
        )
    matrix = first_layer(gan, seed)
    vectors, values = eigenvectors(matrix, count)
    return Directions(
        vectors=vectors.float(),
        scales=torch.ones(len(vectors)),
        shares=(values / matrix.trace()).float(),
        space="z",
        method="sefa",
        metadata=metadata,
    )


# Images along directions


def check_amounts(amounts: Sequence[float]) -> list[float]:
    """Return amounts as floats.

    Raises:
        InputError: when empty, or not all numbers are finite.
    """
    if not amounts or not all(is_finite_number(amount) for amount in amounts):
        raise InputError(f"amounts={list(amounts)} must be numbers, such as [-2,-1,0,1,2]")
    return [float(amount) for amount in amounts]


def along(
    gan: Sampler,
    found: Directions,
    latents: Latents,
    amounts: Sequence[float],
    *,
    noise: str = "const",
) -> Tensor:
    """Move latents along each direction alone.

    Args:
        gan: the generator.
        found: directions of it.
        latents: to move, in the space of the directions.
        amounts: how far, in deviations.
        noise: as in `Sampler.synthesize`, the same for all amounts.

    Returns:
        Images [K, N, A, C, H, W] for K directions, N latents and A amounts, on the CPU.
    """
    found.check(gan)
    steps = torch.tensor(check_amounts(amounts)).repeat(len(latents))
    labels = latents.labels
    repeated = latents.replace(
        latents.values.repeat_interleave(len(amounts), 0),
        labels=None if labels is None else labels.repeat_interleave(len(amounts), 0),
        seeds=[drawn for drawn in latents.seeds for _ in amounts],
    )
    images = []
    for k in range(len(found)):
        each = torch.zeros(len(steps), len(found))
        each[:, k] = steps
        moved = repeated.replace(found.apply(repeated.values, each))
        made = gan.synthesize(moved, noise=noise)
        images.append(made.cpu().unflatten(0, (len(latents), len(amounts))))
    return torch.stack(images)


def direction_sheets(
    images: Tensor, found: Directions, amounts: Sequence[float], names: Sequence[str]
) -> tuple[Image.Image, list[Image.Image]]:
    """Return a sheet of the first latent, a direction a row, and one of each direction, a latent a row.

    Args:
        images: [K, N, A, C, H, W], as `along` makes them.
        found: the directions.
        amounts: A.
        names: of the latents.
    """
    columns = [f"{amount:+g}" if amount else "0" for amount in amounts]
    pixels = on_white(to_uint8(images))
    rows = [f"{k} ({share:.0%})" for k, share in enumerate(found.shares.tolist())]
    whole = labeled_sheet(pixels[:, 0], rows=rows, columns=columns, side=64)
    return whole, [
        labeled_sheet(each, rows=list(names), columns=columns, side=64) for each in pixels
    ]


# number of z at which a nonlinear first layer is linearized
POINTS = 16

# eigenvalues below this share of the largest are 0
_RANK = 1e-9


def draw_w(
    gan: Sampler, count: int, labels: int | Sequence[int] | None, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Draw w [N, D] and their labels [N], cycling through `labels`, or drawn as in the training data; on the CPU."""
    y: Tensor | None = None
    if labels is not None:
        given = [labels] if isinstance(labels, int) else list(labels)
        turns = check_labels(given, len(given), gan.num_classes)
        y = turns[torch.arange(count) % len(turns)]
    drawn = gan.latents(count, labels=y, seed=derive_seed(seed, Stream.DIRECTIONS))
    return drawn.values[:, 0].cpu(), drawn.labels


def center_classes(w: Tensor, labels: Tensor) -> Tensor:
    """Return w [N, D] less the mean of their class, or of those with the same attributes."""
    w = w.clone()
    for label in labels.unique(dim=0):
        rows = (labels == label).reshape(len(labels), -1).all(1)
        w[rows] -= w[rows].mean(0)
    return w


def style_weights(gan: Sampler, layers: Sequence[int]) -> Tensor:
    """Return A [F, D]: the effective weights of all affine maps of the chosen styles."""
    maps: list[list[EqualizedLinear]] = cast(Any, gan.style_generator.synthesis).affines()
    return torch.cat([(a.weight * a.weight_gain).detach() for i in layers for a in maps[i]]).cpu()


class _Reached(Exception):
    """Raised to end a pass after the first layer."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = slopes


@torch.no_grad()
def first_layer(gan: Sampler, seed: int) -> Tensor:
    """Return A^T A [Z, Z], in double precision, of the first layer that acts on z.

    A is the derivative of its output. Where that is not a linear map of z, as where z is scaled to one length, A^T A is
    the mean over 16 normal z.
    """
    generator = full_precision_copy(gan.generator).requires_grad_(False)
    source = torch.Generator().manual_seed(derive_seed(seed, Stream.LINEARIZATION))
    dim = gan.z_dim
    z = torch.randn(POINTS, dim, generator=source).to(gan.device)
    labels = None
    if gan.num_classes:
        first = gan.labels(1) if gan.attributes else torch.zeros(1, dtype=torch.int64)
        assert first is not None
        labels = first.to(gan.device).expand(dim, *first.shape[1:])
    for module in generator.modules():
        if any(True for _ in module.parameters(recurse=False)) or is_parametrized(module):
            module.register_forward_hook(stop)
    total = torch.zeros(dim, dim, dtype=torch.float64)
    for row in z:
        slopes = slopes_at(generator, row, labels).double().cpu()  # [Z, F]
        total += slopes @ slopes.T
    return total / len(z)


def slopes_at(generator: nn.Module, z: Tensor, labels: Tensor | None) -> Tensor:
    """Return the derivatives [Z, F] of the first layer's output by the components of z [Z], in one pass."""
    with warnings.catch_warnings(), dual_level():
        # torch warns at the first use
        warnings.simplefilter("ignore", FutureWarning)
        # row i of a batch of the same z moves along component i
        directions = torch.eye(len(z), dtype=z.dtype, device=z.device)
        try:
            generator(make_dual(z.repeat(len(z), 1), directions), labels)
        except _Reached as reached:
            return reached.slopes
    raise AssertionError("a layer with weights acts on z")


def stop(module: nn.Module, inputs: Any, output: Any) -> None:
    """End a pass at a module whose output depends on z."""
    slopes = unpack_dual(output).tangent if isinstance(output, Tensor) else None
    if slopes is not None:
        raise _Reached(slopes.flatten(1))


def eigenvectors(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors [K, D] of a symmetric matrix and their values [K], the largest first.

    Those with eigenvalue 0 are dropped. The largest component of each, in magnitude, is positive.
    """
    values, vectors = torch.linalg.eigh(matrix.double().cpu())
    order = values.argsort(descending=True)[:count]
    order = order[values[order] > _RANK * values.max().clamp(min=0)]
    rows = vectors.T[order]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign(), values[order]
