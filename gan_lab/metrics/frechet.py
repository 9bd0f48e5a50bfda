"""The Frechet distance between two sets of features, each taken for a Gaussian.

    d^2 = |mu_r - mu_f|^2 + tr(C_r) + tr(C_f) - 2 tr((C_r C_f)^(1/2))

Dowson & Landau 1982, https://doi.org/10.1016/0047-259X(82)90077-X, equation 4; as a measure of a generator:
Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.
"""

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import check_features


def frechet_distance(real: Tensor, fake: Tensor, *, allow_singular: bool = False) -> Tensor:
    """Squared Frechet distance between the Gaussians fitted to two sets of features.

    A set of N <= D features has a covariance of rank below D: the distance is then mostly the bias of the small
    sample (it falls with N although the distributions stay), so such sets are refused by default. The value
    itself is finite and right for the fitted Gaussians whatever the rank.

    Args:
        real: features [N, D], N > D.
        fake: features [M, D], M > D.
        allow_singular: take sets of any size from 2 on.

    Returns:
        The distance, float64, a scalar >= 0 in squared units of the features.

    Raises:
        InputError: for too few features, for NaN or infinity, for unequal widths.
    """
    if not allow_singular:
        for name, features in (("real", real), ("generated", fake)):
            refuse_small_sample(name, num=features.shape[0], width=features.shape[-1])
    return frechet_distance_from_statistics(gaussian_statistics(real), gaussian_statistics(fake))


def refuse_small_sample(name: str, *, num: int, width: int) -> None:
    """Refuse a number of features that cannot fill a covariance of that width.

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
    centred = features - mean  # [N, D]
    return mean, centred.T @ centred / (features.shape[0] - 1)


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
    values, vectors = torch.linalg.eigh(covariance)  # slower; takes any rank
    return vectors * values.clamp(min=0).sqrt()
