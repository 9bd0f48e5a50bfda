"""Precision, recall, density, coverage and neighbors against torch-fidelity, closed forms and what they mean."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import calculate_precision_recall_full

from gan_lab.errors import InputError
from gan_lab.metrics import functional
from gan_lab.metrics.functional import density_coverage, diversity, nearest, precision_recall


def gaussian(num: int, *, width: int = 16, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(num, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_precision_and_recall_are_those_of_torch_fidelity(k: int, offset: float) -> None:
    real, fake = gaussian(700) + offset, gaussian(500, seed=1, scale=0.8) + offset + 0.3
    expected = calculate_precision_recall_full(fake.double(), real.double(), neighborhood=k)
    found = tuple(float(value) for value in precision_recall(real, fake, k=k))
    assert found == pytest.approx(expected, rel=1e-3)
    assert 0.05 < found[0] < 0.999 or 0.05 < found[1] < 0.999


def by_definition(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """Density and coverage as the paper writes them, with loops."""
    radii = [sorted(float((x - y).norm()) for y in real)[k] for x in real]
    inside = [[float((y - x).norm()) <= r for x, r in zip(real, radii, strict=True)] for y in fake]
    density = sum(sum(row) for row in inside) / (k * len(fake))
    coverage = sum(any(row[i] for row in inside) for i in range(len(real))) / len(real)
    return density, coverage


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_by_definition(k: int) -> None:
    real, fake = gaussian(40, width=3), gaussian(30, width=3, seed=1) + 0.5
    found = tuple(float(value) for value in density_coverage(real, fake, k=k))
    assert found == pytest.approx(by_definition(real.double(), fake.double(), k), abs=1e-9)


def test_a_set_against_itself() -> None:
    features = gaussian(300)
    assert [float(v) for v in precision_recall(features, features.clone())] == [1.0, 1.0]
    density, coverage = density_coverage(features, features.clone())
    assert float(coverage) == 1.0
    # every image lies in its own ball and in those of the images that count it among their k nearest
    # (a neighbor at the radius itself is in or out by rounding)
    assert float(density) == pytest.approx((5 + 1) / 5, rel=5e-3)


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    real = gaussian(1000, width=8)
    collapsed = 0.02 * gaussian(1000, width=8, seed=1)
    precision, recall = precision_recall(real, collapsed)
    assert precision > 0.9 and recall < 0.05
    _, coverage = density_coverage(real, collapsed)
    assert coverage < 0.1


def test_coverage_falls_with_dropped_modes() -> None:
    centers = 50 * torch.eye(10)
    real = torch.cat([c + gaussian(100, width=10, seed=i) for i, c in enumerate(centers)])
    coverages = []
    for kept in (10, 7, 4):
        fake = torch.cat(
            [c + gaussian(100, width=10, seed=50 + i) for i, c in enumerate(centers[:kept])]
        )
        coverages.append(float(density_coverage(real, fake)[1]))
    assert coverages[0] > 0.9
    assert coverages == pytest.approx(
        [coverages[0], 0.7 * coverages[0], 0.4 * coverages[0]], abs=0.05
    )


def test_rows_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = gaussian(150), gaussian(120, seed=1)
    whole = (*precision_recall(real, fake), *density_coverage(real, fake), diversity(fake))
    monkeypatch.setattr(functional, "ROWS", 37)
    parts = (*precision_recall(real, fake), *density_coverage(real, fake), diversity(fake))
    torch.testing.assert_close(whole, parts)


def test_nearest_finds_copies() -> None:
    real = gaussian(200) + 30
    copies = torch.tensor([5, 17, 3])
    far = real[copies] + torch.tensor([0.0, 0.0, 2.0])[:, None] / 4
    distance, index = nearest(far, real)
    assert index.tolist() == copies.tolist()
    torch.testing.assert_close(distance, torch.tensor([0.0, 0.0, 2.0]), atol=5e-3, rtol=1e-3)


def test_diversity_is_the_mean_distance() -> None:
    features = gaussian(50)
    expected = torch.pdist(features.double()).mean()
    torch.testing.assert_close(diversity(features), expected, rtol=1e-5, atol=1e-6)
    assert float(diversity(torch.ones(5, 3))) == 0


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(9, 2), "give more than 3"),
        (torch.zeros(9, 2), torch.zeros(9, 3), "unequal widths"),
        (torch.zeros(9, 2), torch.full((9, 2), torch.nan), "NaN"),
        (torch.zeros(9), torch.zeros(9), r"expected \[N, D\]"),
    ],
)
def test_bad_features(real: Tensor, fake: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        precision_recall(real, fake)


@pytest.mark.slow
def test_ten_thousand_images_of_inceptions_fit_into_two_gigabytes() -> None:
    program = (
        "import torch\n"
        "from gan_lab.metrics import density_coverage, precision_recall\n"
        "real, fake = torch.randn(2, 10_000, 2048, generator=torch.Generator().manual_seed(0))\n"
        "precision_recall(real, fake), density_coverage(real, fake)\n"
        "from gan_lab.distributed.processes import resident_peak\n"
        "print(resident_peak())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2e9, "the whole process, torch included"
