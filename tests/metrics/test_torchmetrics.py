"""The torchmetrics classes are the pure functions, over batches, and forget when they are reset."""

import pytest
import torch
from torch import Tensor

from gan_lab import metrics
from gan_lab.metrics import torchmetrics


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(200, 16, generator=generator) + 50 for _ in range(2))
    return real, 1.2 * fake - 10


def fed(metric, sets: tuple[Tensor, Tensor]):
    for features, real in zip(sets, (True, False), strict=True):
        for part in features.split(70):
            metric.update(part, real=real)
    return metric


def test_the_frechet_distance_goes_by_sums(sets: tuple[Tensor, Tensor]) -> None:
    metric = fed(torchmetrics.FrechetDistance(width=16), sets)
    expected = metrics.frechet_distance(*sets).item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-9)
    metric.reset()
    assert fed(metric, sets).compute().item() == pytest.approx(expected, rel=1e-9)


def test_pairs(sets: tuple[Tensor, Tensor]) -> None:
    for metric, expected in (
        (torchmetrics.PrecisionRecall(k=4), metrics.precision_recall(*sets, k=4)),
        (torchmetrics.DensityCoverage(), metrics.density_coverage(*sets)),
        (
            torchmetrics.KernelDistance(subsets=5, subset_size=50),
            metrics.kernel_distance(*sets, subsets=5, subset_size=50),
        ),
    ):
        assert torch.equal(torch.stack(fed(metric, sets).compute()), torch.stack(expected))


def test_the_score(sets: tuple[Tensor, Tensor]) -> None:
    metric = torchmetrics.InceptionScore(splits=4)
    for part in sets[0].split(33):
        metric.update(part)
    assert metric.compute() == metrics.inception_score(sets[0], splits=4)
