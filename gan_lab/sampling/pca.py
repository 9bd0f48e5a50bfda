"""What directions are computed from: samples of w, weights of affine maps, a first layer, and eigenvectors."""

import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.nn.utils.parametrize import is_parametrized

from gan_lab.layers.equalized import EqualizedLinear
from gan_lab.sampling.latents import check_labels
from gan_lab.sampling.sampler import Sampler
from gan_lab.sampling.spaces import full_precision
from gan_lab.seeding import derive_seed

_SAMPLES, _POINTS = 14, 15  # streams of a seed

# of z at which a first layer that is not linear is looked at
POINTS = 16

# eigenvalues below this share of the largest are 0
_RANK = 1e-9


def draw_w(
    gan: Sampler, count: int, labels: int | Sequence[int] | None, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Draw w [N, D] and their labels [N]: in turn those of `labels`, or as the training data has them; on the CPU."""
    y: Tensor | None = None
    if labels is not None:
        given = [labels] if isinstance(labels, int) else list(labels)
        turns = check_labels(given, len(given), gan.num_classes)
        y = turns[torch.arange(count) % len(turns)]
    drawn = gan.latents(count, labels=y, seed=derive_seed(seed, _SAMPLES))
    return drawn.values[:, 0].cpu(), drawn.labels


def center_classes(w: Tensor, labels: Tensor) -> Tensor:
    """Return w [N, D] less the mean of their class, or of those with the same attributes."""
    w = w.clone()
    for label in labels.unique(dim=0):
        rows = (labels == label).reshape(len(labels), -1).all(1)
        w[rows] -= w[rows].mean(0)
    return w


def style_weights(gan: Sampler, layers: Sequence[int]) -> Tensor:
    """Return A [F, D]: the weights, as they are used, of all affine maps that read the chosen styles."""
    maps: list[list[EqualizedLinear]] = cast(Any, gan.style_generator.synthesis).affines()
    return torch.cat([(a.weight * a.weight_gain).detach() for i in layers for a in maps[i]]).cpu()


class _Reached(Exception):
    """The first layer has its output."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = slopes


@torch.no_grad()
def first_layer(gan: Sampler, seed: int) -> Tensor:
    """Return A^T A [Z, Z], in double precision, of the first layer that acts on z.

    A is the derivative of its output. Where that is no linear map of z, as where z is scaled to one length, A^T A is
    the mean over 16 normal z.
    """
    generator = full_precision(gan.generator).requires_grad_(False)
    source = torch.Generator().manual_seed(derive_seed(seed, _POINTS))
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
        # of torch about itself, when it is first used
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

    Those of no value are left out. The component of each that is largest by its amount is positive.
    """
    values, vectors = torch.linalg.eigh(matrix.double().cpu())
    order = values.argsort(descending=True)[:count]
    order = order[values[order] > _RANK * values.max().clamp(min=0)]
    rows = vectors.T[order]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign(), values[order]
