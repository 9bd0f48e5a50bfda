"""The kernel distance against torch-fidelity, and its bias."""

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric

from gan_lab.errors import InputError
from gan_lab.metrics.functional import discrepancies, discrepancy, kernel_distance


def features(num: int, *, width: int = 16, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.randn(num, width, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize(("subsets", "size"), [(20, 100), (3, 250)])
def test_the_value_is_that_of_torch_fidelity(subsets: int, size: int) -> None:
    real, fake = features(400), features(300, seed=1, shift=0.2)
    theirs = kid_features_to_metric(
        fake, real, kid_subsets=subsets, kid_subset_size=size, verbose=False
    )
    mean, deviation = kernel_distance(real, fake, subsets=subsets, subset_size=size)
    assert float(mean) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    assert float(deviation) == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-3)


def test_it_is_unbiased_over_100_draws_of_one_distribution() -> None:
    values = torch.stack(
        [
            discrepancy(features(60, seed=2 * i).double(), features(60, seed=2 * i + 1).double())
            for i in range(100)
        ]
    )
    error = float(values.std() / len(values) ** 0.5)
    assert abs(float(values.mean())) < 3 * error
    # the biased estimate, with the diagonal, would be far outside
    assert 10 * error < 17 / 60


def test_two_points_by_hand() -> None:
    """x = {0, 0}, y = {1, 1} in one dimension: k(0, .) = 1, k(1, 1) = 8."""
    x, y = torch.zeros(2, 1).double(), torch.ones(2, 1).double()
    assert float(discrepancy(x, y)) == pytest.approx(1 + 8 - 2)


def test_a_subset_larger_than_a_set() -> None:
    with pytest.raises(InputError, match="subset_size=1000 with 400 real and 300 generated"):
        kernel_distance(features(400), features(300))


def test_many_subsets_at_once_are_each_by_itself() -> None:
    generator = torch.Generator().manual_seed(3)
    real, fake = (torch.randn(num, 5, generator=generator) for num in (1100, 37))
    x, y = (
        torch.stack([torch.randperm(num, generator=generator)[:size] for _ in range(4)])
        for num, size in ((1100, 9), (37, 20))
    )
    together = discrepancies(real, fake, x, y)
    each = [discrepancy(real[i], fake[j]) for i, j in zip(x, y, strict=True)]
    torch.testing.assert_close(together, torch.stack(each), rtol=1e-5, atol=1e-5)
