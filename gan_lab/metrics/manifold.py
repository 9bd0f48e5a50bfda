"""Quality and variety apart: which images lie in the neighbourhoods of the others.

A set's manifold is the union of balls around its features, each reaching to the k-th nearest feature of the same set.

- Precision: share of generated images in the real manifold. Recall: share of real images in the generated manifold.
  Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991, equations 1 and 2, k = 3.
- Density: how many real balls a generated image lies in, in units of k. Coverage: share of real balls that hold a
  generated image. Naeem et al. 2020, https://arxiv.org/abs/2002.09797, equations 3 and 4, k = 5.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import check_pair

# rows of a matrix of distances that exist at a time: 10,000 of them against 10,000 would be 400 MB
ROWS = 1024


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> tuple[Tensor, Tensor]:
    """Return precision and recall, float64 scalars in [0, 1].

    Args:
        real: features [N, D].
        fake: features [M, D].
        k: neighbours within a ball.

    Raises:
        InputError: for no more than k features, for unequal widths or non-finite values.
    """
    real, fake = prepared(real, fake, k)
    around_real, around_fake = squared_radii(real, k), squared_radii(fake, k)
    inside = []
    reached = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, squared in squared_distances(fake, real):
        inside.append((squared <= around_real).any(1))
        reached |= (squared <= around_fake[rows, None]).any(0)
    return torch.cat(inside).double().mean(), reached.double().mean()


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5) -> tuple[Tensor, Tensor]:
    """Return density (>= 0, about 1 for equal distributions) and coverage (in [0, 1]), float64 scalars.

    Arguments and errors are those of `precision_recall`.
    """
    real, fake = prepared(real, fake, k)
    around_real = squared_radii(real, k)
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    count = torch.zeros((), dtype=torch.float64, device=real.device)
    for _, squared in squared_distances(fake, real):
        inside = squared <= around_real
        count += inside.sum()
        covered |= inside.any(0)
    return count / (k * len(fake)), covered.double().mean()


def nearest(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each of `fake` [M, D] the distance [M] to the nearest of `real` [N, D], and which it is [M].

    A generator that draws its training images shows it by distances near zero.

    Raises:
        InputError: as `precision_recall`.
    """
    real, fake = prepared(real, fake, 0)
    found = [squared.min(1) for _, squared in squared_distances(fake, real)]
    return (
        torch.cat([least.values for least in found]).sqrt(),
        torch.cat([least.indices for least in found]),
    )


def diversity(features: Tensor) -> Tensor:
    """Return the mean distance between two different features of a set [N, D], a float64 scalar.

    Raises:
        InputError: as `precision_recall`.
    """
    features, _ = prepared(features, features, 1)
    total = torch.zeros((), dtype=torch.float64, device=features.device)
    for _, squared in squared_distances(features, features):
        total += squared.sqrt().sum(dtype=torch.float64)
    return total / (len(features) * (len(features) - 1))


def prepared(real: Tensor, fake: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Check two sets and centre them on the real mean: squares of large numbers would cancel otherwise.

    Raises:
        InputError: as `precision_recall`.
    """
    check_pair(real, fake)
    if min(len(real), len(fake)) <= k:
        raise InputError(
            f"{len(real)} real and {len(fake)} generated images for neighbourhoods of k={k}; give more than {k} of each"
        )
    centre = real.float().mean(0)
    return real.float() - centre, fake.float() - centre


def squared_radii(features: Tensor, k: int) -> Tensor:
    """Return the squared distance [N] of each feature to its k-th neighbour, itself not counted."""
    parts = [
        squared.kthvalue(k + 1, dim=1).values
        for _, squared in squared_distances(features, features)
    ]
    return torch.cat(parts)


def squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, squared distances [len(rows), m]) of features [n, D] and [m, D], some rows at a time.

    The distance of a feature to itself, where `a` is `b`, is exactly 0.
    """
    b_squares = b.square().sum(1)
    for start in range(0, len(a), ROWS):
        rows = slice(start, min(start + ROWS, len(a)))
        part = a[rows]
        squared = torch.addmm(b_squares, part, b.T, alpha=-2)
        squared += part.square().sum(1, keepdim=True)
        squared.clamp_(min=0)
        if a is b:
            squared[:, rows].fill_diagonal_(0)
        yield rows, squared
