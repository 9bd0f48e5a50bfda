"""Metrics as pure functions of features: Frechet and kernel distance, Inception Score, neighborhoods."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import check_features, check_pair

# Frechet distance between Gaussians fitted to two sets of features.
#
#     d^2 = |mu_r - mu_f|^2 + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^(1/2))
#
# Dowson & Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X, equation 4; as a metric of a generator:
# Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.


def frechet_distance(real: Tensor, fake: Tensor, *, allow_singular: bool = False) -> Tensor:
    """Squared Frechet distance between the Gaussians fitted to two sets of features.

    A set of N <= D features has a covariance of rank below D: the distance is then mostly the bias of the small
    sample, so such sets are an error by default. The value is still finite and correct for the fitted Gaussians.

    Args:
        real: features [N, D], N > D.
        fake: features [M, D], M > D.
        allow_singular: allow sets of any size from 2 on.

    Returns:
        The distance, float64, a scalar >= 0 in squared units of the features.

    Raises:
        InputError: for too few features, for NaN or infinity, for unequal widths.
    """
    if not allow_singular:
        for name, features in (("real", real), ("generated", fake)):
            reject_small_sample(name, num=features.shape[0], width=features.shape[-1])
    return frechet_distance_from_statistics(gaussian_statistics(real), gaussian_statistics(fake))


def reject_small_sample(name: str, *, num: int, width: int) -> None:
    """Check that there are more samples than features, so that the covariance is regular.

    Raises:
        InputError: when num <= width.
    """
    if num <= width:
        raise InputError(
            f"{num} {name} images for {width} features: the covariance is singular and the Frechet distance would "
            f"mostly measure the size of the sample; give more than {width} images, or take KID, which has "
            "no such bias: protocol=kid_small (in training metrics=kid_small)"
        )


def gaussian_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of features, in float64.

    Args:
        features: [N, D], N >= 2.

    Returns:
        Mean [D] and covariance [D, D], on the device of the features (the CPU where that has no float64).

    Raises:
        InputError: for another shape, fewer than two features, or non-finite values.
    """
    check_features(features, least=2)
    if features.device.type == "mps":
        features = features.cpu()
    features = features.double()
    mean = features.mean(dim=0)  # [D]
    centered = features - mean  # [N, D]
    return mean, centered.T @ centered / (features.shape[0] - 1)


def frechet_distance_from_statistics(
    real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]
) -> Tensor:
    """Squared Frechet distance between two Gaussians.

    Args:
        real: mean [D] and covariance [D, D]; symmetric positive semi-definite, any rank.
        fake: the same.

    Returns:
        The distance, float64, a scalar >= 0.

    Raises:
        InputError: for unequal widths.
    """
    (mean_real, cov_real), (mean_fake, cov_fake) = real, fake
    if mean_real.shape != mean_fake.shape:
        raise InputError(
            f"features of unequal widths: {len(mean_real)} (real) and {len(mean_fake)} (fake)"
        )
    # with C = L L^T, the eigenvalues of C_r C_f are the squared singular values of L_r^T L_f. Unlike those of
    # the product, these are real, not negative and as exact as the factors, so that nothing can become NaN
    root = torch.linalg.svdvals(_factor(cov_real).T @ _factor(cov_fake)).sum()
    shift = (mean_real - mean_fake).square().sum()
    return (shift + cov_real.trace() + cov_fake.trace() - 2 * root).clamp(min=0)


def _factor(covariance: Tensor) -> Tensor:
    """Return L [D, D] with L L^T the covariance."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)  # slower; for any rank
    return vectors * values.clamp(min=0).sqrt()


# The kernel distance: squared maximum mean discrepancy with a cubic kernel, without bias at any sample size.
#
#     MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),  k(a, b) = (<a, b> / D + 1)^3
#
# Binkowski et al. 2018, https://arxiv.org/abs/1801.01401, equation 4 and section 4; with Inception's features it is
# KID.


_ROWS = 1024  # of a block of kernel values in memory


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[Tensor, Tensor]:
    """Mean over random subsets of the unbiased squared discrepancy.

    Subsets are drawn as in torch-fidelity (numpy's `RandomState(2020)`, first of the generated features, its `input1`),
    so that both give the same value.

    Args:
        real: features [N, D].
        fake: features [M, D].
        subsets: how many.
        subset_size: features of each set in a subset.
        seed: of the subsets.

    Returns:
        Mean and standard deviation over the subsets, float64 scalars. The mean may be slightly negative. The
        deviation over the root of `subsets` is the standard error only if subsets hardly overlap;
        `gan_lab.metrics.feature_metrics.Kernel` accounts for overlap.

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
    """Return `discrepancy` of many subsets, computing every kernel value once.

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
    """Return s^T K t of each subset; without K's diagonal where `a` is `b` and that is requested."""
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

    Kernels are computed in the features' precision, sums in float64.
    """
    within = [
        (total(values) - total(values.diagonal())) / (len(values) * (len(values) - 1))
        for values in (kernel(x, x), kernel(y, y))
    ]
    between = kernel(x, y)
    return within[0] + within[1] - 2 * total(between) / between.numel()


def total(values: Tensor) -> Tensor:
    """Return the sum, float64; rows are summed in the values' precision."""
    return values.sum(-1).sum(dtype=torch.float64)


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return k of all pairs, [n, m]."""
    root = torch.addmm(a.new_ones(()), a, b.T, alpha=1 / a.shape[1])
    return root.square().mul_(root)


# Inception Score: confidence of a classifier per image, and variety over all.
#
#     IS = exp(E_x KL(p(y|x) || p(y)))
#
# Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4.


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 2020) -> tuple[Tensor, Tensor]:
    """Inception Score over equal parts of a shuffled set.

    The order is drawn as in torch-fidelity (numpy's `RandomState(2020)`), since the mean depends on the parts.

    Args:
        logits: [N, classes] of a classifier, N >= splits.
        splits: number of parts; 10 in the paper.
        seed: of the shuffling.

    Returns:
        Mean and (population) standard deviation over the parts, float64 scalars; 1 <= mean <= classes.

    Raises:
        InputError: for another shape, fewer images than parts, or non-finite values.
    """
    if logits.ndim != 2 or len(logits) < splits:
        raise InputError(
            f"logits have shape {list(logits.shape)}; expected [N, classes] with N >= {splits}"
        )
    if not torch.isfinite(logits).all():
        raise InputError("logits hold NaN or infinity; check the images")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))
    log_p = logits.cpu()[order].double().log_softmax(dim=1)  # [N, classes]
    bounds = [part * len(logits) // splits for part in range(splits + 1)]
    scores = torch.stack([_score(log_p[start:end]) for start, end in pairwise(bounds)])
    return scores.mean(), scores.std(correction=0)


def _score(log_p: Tensor) -> Tensor:
    p = log_p.exp()  # [N, classes]
    log_marginal = p.mean(dim=0).log()  # [classes]
    # as xlogy: a class of probability 0 adds 0, not 0 * -inf
    divergence = torch.where(p > 0, p * (log_p - log_marginal), 0).sum(dim=1)  # [N]
    return divergence.mean().exp()


# Precision, recall, density, coverage: quality and variety, by nearest neighbors.
#
# A set's manifold is the union of balls around its features, with the distance to the k-th neighbor as radius.
#
# - Precision: share of generated images in the real manifold. Recall: share of real images in the generated manifold.
#   Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991, equations 1 and 2, k = 3.
# - Density: how many real balls a generated image lies in, in units of k. Coverage: share of real balls that hold a
#   generated image. Naeem et al. 2020, https://arxiv.org/abs/2002.09797, equations 3 and 4, k = 5.


# rows of a distance matrix in memory: 10,000 against 10,000 are 400 MB
ROWS = 1024


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> tuple[Tensor, Tensor]:
    """Return precision and recall, float64 scalars in [0, 1].

    Args:
        real: features [N, D].
        fake: features [M, D].
        k: neighbors within a ball.

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
    """Return the distances [M] of `fake` [M, D] to their nearest of `real` [N, D], and its indices [M].

    Distances near zero reveal memorized training images.

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
    """Check two sets and center them on the real mean, against cancellation.

    Raises:
        InputError: as `precision_recall`.
    """
    check_pair(real, fake)
    if min(len(real), len(fake)) <= k:
        raise InputError(
            f"{len(real)} real and {len(fake)} generated images for neighborhoods of k={k}; give more than {k} of each"
        )
    center = real.float().mean(0)
    return real.float() - center, fake.float() - center


def squared_radii(features: Tensor, k: int) -> Tensor:
    """Return the squared distance [N] of each feature to its k-th neighbor, itself not counted."""
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
