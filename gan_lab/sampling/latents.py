"""Latents and labels as functions of seed and index, and forward passes that no image shares its numbers with."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.seeding import derive_seed

# Matrix products of another height add in another order, and the last bits of an image with them: every forward pass
# therefore has exactly this many images, whatever batch size is asked for.
IMAGES_PER_FORWARD = 16

_LABELS = 1  # stream of a seed

# one seed of all images, or a seed for each, of which it is then the first image
Seeds = int | Sequence[int]

Number = tuple[int, int]  # seed and index: what an image is drawn from


def numbers(num_images: int, seed: Seeds = 0, start: int = 0) -> list[Number]:
    """Return (seed, index) of images `start` to `start + num_images`.

    Args:
        num_images: how many.
        seed: of all, with indices from `start` on; or one for each image, from the `start`-th on, with index 0.
        start: the first.

    Raises:
        InputError: for no images, negative seeds, or fewer seeds than images.
    """
    if num_images < 1:
        raise InputError(f"num_images={num_images} must be at least 1")
    if isinstance(seed, int):
        check_not_negative(seed)
        return [(seed, i) for i in range(start, start + num_images)]
    chosen = list(seed[start : start + num_images])
    if len(chosen) < num_images:
        raise InputError(
            f"{len(seed)} seeds are too few for images {start} to {start + num_images}"
        )
    for one in chosen:
        check_not_negative(one)
    return [(int(one), 0) for one in chosen]


def check_not_negative(seed: int) -> None:
    """Refuse a negative seed.

    Raises:
        InputError: naming it.
    """
    if seed < 0:
        raise InputError(f"seed={seed} must be from 0")


def latents_of(drawn: Sequence[Number], dim: int, truncation: float | None = None) -> Tensor:
    """Draw standard normal z [N, dim]; components beyond the threshold `truncation`, if any, are drawn again."""
    rows = []
    for seed, index in drawn:
        generator = torch.Generator().manual_seed(derive_seed(seed, index))
        z = torch.randn(dim, generator=generator)
        if truncation is not None:
            shares = torch.rand(dim, generator=generator, dtype=torch.float64)
            z = redrawn(z, shares, truncation)
        rows.append(z)
    return torch.stack(rows)


def labels_of(drawn: Sequence[Number], weights: Sequence[float]) -> Tensor:
    """Draw labels int64 [N], each class as often as its weight says."""
    shares = torch.tensor(weights, dtype=torch.float64)
    thresholds = shares.cumsum(0) / shares.sum()
    draws = [
        torch.rand(
            (),
            generator=torch.Generator().manual_seed(derive_seed(seed, index, _LABELS)),
            dtype=torch.float64,
        )
        for seed, index in drawn
    ]
    found = torch.searchsorted(thresholds, torch.stack(draws), right=True)
    return found.clamp(max=len(weights) - 1)


def redrawn(z: Tensor, shares: Tensor, threshold: float) -> Tensor:
    """Draw the components of z beyond a threshold again.

    Drawing until a component lies within the threshold gives it the truncated normal distribution. One draw by the
    inverse of that distribution function gives the same one, and takes no longer for small thresholds.

    Args:
        z: standard normal, any shape.
        shares: uniform in [0, 1), float64, of the same shape.
        threshold: positive.
    """
    limit = torch.tensor(threshold, dtype=torch.float64)
    below, above = torch.special.ndtr(-limit), torch.special.ndtr(limit)
    drawn = torch.special.ndtri(below + shares * (above - below)).clamp(-limit, limit)
    return torch.where(z.abs() > threshold, drawn.to(z.dtype), z)


def in_passes(
    function: Callable[..., Tensor], *inputs: Tensor | None, device: torch.device
) -> Tensor:
    """Apply a function of batches to as many rows as there are, `IMAGES_PER_FORWARD` at a time.

    Args:
        function: from `inputs`, of that many rows each and on `device`, to a tensor of as many rows.
        inputs: [N, ...] each, or None, which is handed on.
        device: where to compute.

    Returns:
        [N, ...].
    """
    count = next(len(rows) for rows in inputs if rows is not None)
    made = []
    for start in range(0, count, IMAGES_PER_FORWARD):
        part = slice(start, start + IMAGES_PER_FORWARD)
        given = [None if rows is None else padded(rows[part]).to(device) for rows in inputs]
        made.append(function(*given)[: count - start])
    return torch.cat(made)


def padded(rows: Tensor) -> Tensor:
    """Repeat the last row until there are `IMAGES_PER_FORWARD`."""
    missing = IMAGES_PER_FORWARD - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
