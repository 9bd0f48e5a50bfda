"""The kernel distance: squared maximum mean discrepancy with a cubic kernel, without bias at any sample size.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),  k(a, b) = (<a, b> / D + 1)^3

Binkowski et al. 2018, https://arxiv.org/abs/1801.01401, equation 4 and section 4; with Inception's features it is KID.
"""

import numpy as np
import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import check_pair

_ROWS = 1024  # of a matrix of kernel values that exist at a time


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[Tensor, Tensor]:
    """Mean over random subsets of the unbiased squared discrepancy.

    The subsets are drawn as torch-fidelity draws them (numpy's `RandomState(2020)`, of the generated features first,
    which are its `input1`), so that both give the same value for the same features in the same order.

    Args:
        real: features [N, D].
        fake: features [M, D].
        subsets: how many.
        subset_size: features of each set in a subset.
        seed: of the drawing.

    Returns:
        Mean and standard deviation over the subsets, float64 scalars. The mean may be slightly negative. Divided by
        the root of `subsets` the deviation is the standard error of the mean only as long as subsets hardly overlap;
        `gan_lab.metrics.feature_metrics.Kernel` takes the overlap into account.

    Raises:
        InputError: for sets smaller than a subset, of unequal widths, or with non-finite values.
    """
    check_pair(real, fake)
    if subsets < 1 or not 2 <= subset_size <= min(len(real), len(fake)):
        raise InputError(
            f"subsets={subsets}, subset_size={subset_size} with {len(real)} real and {len(fake)} generated images: "
            "subset_size must lie between 2 and the smaller of these numbers"
        )
    random = np.random.RandomState(seed)
    drawn = [
        [random.choice(len(features), subset_size, replace=False) for features in (fake, real)]
        for _ in range(subsets)
    ]
    y, x = (torch.from_numpy(np.stack(rows)).to(real.device) for rows in zip(*drawn, strict=True))
    if len(real) * len(fake) < subsets * subset_size**2:
        values = discrepancies(real, fake, x, y)
    else:
        values = torch.stack([discrepancy(real[i], fake[j]) for i, j in zip(x, y, strict=True)])
    return values.mean(), values.std(correction=0)


def discrepancies(real: Tensor, fake: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return `discrepancy` of many subsets at once, from every kernel value once.

    The sum over a subset is s^T K s with s = 1 for its features and 0 for others.

    Args:
        real: features [N, D].
        fake: features [M, D].
        x: which real features each subset has, int64 [subsets, n].
        y: the same of the fake ones, [subsets, m].
    """
    members = [
        torch.zeros(len(features), len(rows), dtype=torch.float64, device=rows.device).scatter_(
            0, rows.T, 1
        )
        for features, rows in ((real, x), (fake, y))
    ]
    within = []
    for features, s in zip((real, fake), members, strict=True):
        n = s.sum(0)
        within.append((_sums(features, features, s, s, skip_self=True)) / (n * (n - 1)))
    between = _sums(real, fake, *members, skip_self=False)
    return within[0] + within[1] - 2 * between / (members[0].sum(0) * members[1].sum(0))


def _sums(a: Tensor, b: Tensor, s: Tensor, t: Tensor, *, skip_self: bool) -> Tensor:
    """Return s^T K t of each subset; without K's diagonal where `a` is `b` and that is asked for."""
    found = torch.zeros(s.shape[1], dtype=torch.float64, device=s.device)
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        values = kernel(a[rows], b)
        if skip_self:
            values[:, rows].fill_diagonal_(0)
        found += (s[rows] * (values.double() @ t)).sum(0)
    return found


def discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased estimate of MMD^2 from features [n, D] and [m, D], float64.

    Kernels are of the features' precision and sums of double: rounding is lost in a million terms.
    """
    within = [
        (total(values) - total(values.diagonal())) / (len(values) * (len(values) - 1))
        for values in (kernel(x, x), kernel(y, y))
    ]
    between = kernel(x, y)
    return within[0] + within[1] - 2 * total(between) / between.numel()


def total(values: Tensor) -> Tensor:
    """Return the sum, float64; rows, which are short, in the values' own precision."""
    return values.sum(-1).sum(dtype=torch.float64)


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return k of all pairs, [n, m]."""
    root = torch.addmm(a.new_ones(()), a, b.T, alpha=1 / a.shape[1])
    return root.square().mul_(root)
