"""What directions are computed of: samples of w, weights of affine maps, a first layer, and eigenvectors."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from gan_lab.editing.spaces import full_precision
from gan_lab.labels import check_labels
from gan_lab.layers.equalized import EqualizedLinear
from gan_lab.sampling import Gan
from gan_lab.seeding import derive_seed

_SAMPLES, _PLACES = 14, 15  # streams of a seed
_BATCH = 500
# of z at which a first layer that is not linear is looked at
PLACES = 16
# eigenvalues below this share of the largest are 0
_RANK = 1e-9


class StyledSynthesis(Protocol):
    """What a synthesis network with styles tells of itself."""

    def affines(self) -> list[list[EqualizedLinear]]:
        """Return the affine maps that read each of the L styles."""


@torch.no_grad()
def style_samples(
    gan: Gan, count: int, labels: int | Sequence[int] | None, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Draw w [N, D], and the labels [N] that they have; in turn those of `labels`, or as the training data has them."""
    y: Tensor | None = None
    if labels is not None:
        given = [labels] if isinstance(labels, int) else list(labels)
        of = check_labels(given, len(given), gan.num_classes)
        y = of[torch.arange(count) % len(of)]
    elif gan.num_classes:
        weights = torch.tensor(gan.class_counts or [1] * gan.num_classes, dtype=torch.float64)
        source = torch.Generator().manual_seed(derive_seed(seed, _SAMPLES, 1))
        y = torch.multinomial(weights, count, replacement=True, generator=source)
    source = torch.Generator().manual_seed(derive_seed(seed, _SAMPLES))
    rows = []
    for start in range(0, count, _BATCH):
        z = torch.randn(min(_BATCH, count - start), gan.generator.latent_dim, generator=source)
        rows.append(gan.styles(z, None if y is None else y[start : start + len(z)])[:, 0])
    return torch.cat(rows), y


def within_classes(w: Tensor, labels: Tensor) -> Tensor:
    """Return w [N, D] less the mean of their class."""
    w = w.clone()
    for label in labels.unique():
        rows = (labels == label).to(w.device)
        w[rows] -= w[rows].mean(0)
    return w


def style_weights(gan: Gan, layers: Sequence[int]) -> Tensor:
    """Return A [F, D]: the weights, as they are used, of all affine maps that read the chosen styles."""
    synthesis = cast(StyledSynthesis, gan.generator.get_submodule("synthesis"))
    maps = synthesis.affines()
    return torch.cat([(a.weight * a.weight_gain).detach() for i in layers for a in maps[i]]).cpu()


class _Reached(Exception):
    """The first layer has its output."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def first_layer(gan: Gan, seed: int) -> Tensor:
    """Return A^T A [Z, Z], in double precision, of the first layer that acts on z.

    A is the derivative of its output. Where the layer is no linear map of z, as where z is scaled to one length, it is
    the mean over 16 normal z.
    """
    generator = full_precision(gan).requires_grad_(False)
    source = torch.Generator().manual_seed(derive_seed(seed, _PLACES))
    z = torch.randn(PLACES, generator.latent_dim, generator=source).to(gan.device)
    label = torch.zeros(1, dtype=torch.int64, device=gan.device) if gan.num_classes else None
    layer = first_reached(generator, z[:1], label)

    def output(row: Tensor) -> Tensor:
        handle = layer.register_forward_hook(stop)
        try:
            generator(row[None], label)
        except _Reached as reached:
            return reached.output.flatten()
        finally:
            handle.remove()
        raise AssertionError("the layer was reached before")

    total = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64)
    for row in z:
        jacobian = torch.func.jacfwd(output)(row).double().cpu()  # [F, Z]
        total += jacobian.T @ jacobian
    return total / len(z)


def first_reached(generator: nn.Module, z: Tensor, label: Tensor | None) -> nn.Module:
    """Return the first module with weights of its own whose output depends on z."""
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            found.append(module)
            raise _Reached(output)

    handles = [
        module.register_forward_hook(note)
        for module in generator.modules()
        if next(module.parameters(recurse=False), None) is not None
        or nn.utils.parametrize.is_parametrized(module)
    ]
    try:
        generator(z.clone().requires_grad_(), label)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0]


def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
    """End a pass at a module."""
    raise _Reached(output)


def own_vectors(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the eigenvectors [K, D] of a symmetric matrix and their values [K], the largest first.

    Those of no value are left out. The component of each that is largest by its amount is positive.
    """
    values, vectors = torch.linalg.eigh(matrix.double().cpu())
    order = values.argsort(descending=True)[:count]
    order = order[values[order] > _RANK * values.max().clamp(min=0)]
    rows = vectors.T[order]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign(), values[order]
