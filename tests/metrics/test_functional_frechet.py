import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torchmetrics.image.fid import FrechetInceptionDistance

from gan_lab.errors import InputError
from gan_lab.metrics import frechet_distance, frechet_distance_from_statistics, gaussian_statistics


def features(num: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    shift = torch.randn(width, generator=generator)
    return torch.randn(num, width, generator=generator) @ mixing + shift


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-3, 1e3),
)
def test_of_known_gaussians_with_a_common_basis(width, seed, scale):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    deviations = scale * rng.uniform(0, 2, size=(2, width))
    means = scale * rng.normal(size=(2, width))
    gaussians = [
        (torch.tensor(mean), torch.tensor((basis * deviation**2) @ basis.T))
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    # covariances that commute: the distance is Euclidean in means and standard deviations
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance_from_statistics(*gaussians).item() == pytest.approx(
        expected, rel=1e-6, abs=1e-6 * scale**2
    )


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 16),
    num=st.integers(2, 40),
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-2, 1e2),
)
def test_symmetric_not_negative_and_zero_between_a_set_and_itself(width, num, seed, scale):
    real, fake = scale * features(num, width, seed), scale * features(num, width, seed + 1)
    there = frechet_distance(real, fake, allow_singular=True)
    back = frechet_distance(fake, real, allow_singular=True)
    assert there.dtype == torch.float64 and there > 0
    assert there.item() == pytest.approx(back.item(), rel=1e-9)
    assert frechet_distance(real, real, allow_singular=True).item() <= 1e-9 * scale**2 * width


def test_samples_approach_the_closed_form():
    width, shift, factor = 8, 0.5, 1.5
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200_000, width, generator=generator)
    fake = factor * torch.randn(200_000, width, generator=generator) + shift
    expected = width * (shift**2 + (factor - 1) ** 2)
    assert frechet_distance(real, fake).item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("num_real", "num_fake", "width"), [(300, 200, 16), (500, 700, 128)])
def test_agrees_with_torch_fidelity_scipy_and_torchmetrics(num_real, num_fake, width):
    real, fake = features(num_real, width, 0), features(num_fake, width, 1)
    ours = frechet_distance(real, fake).item()

    statistics = [fid_features_to_statistics(part.double()) for part in (real, fake)]
    fidelity = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]

    (mean_a, cov_a), (mean_b, cov_b) = ((s["mu"], s["sigma"]) for s in statistics)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    by_scipy = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)

    identity = torch.nn.Identity()
    identity.num_features = width
    metric = FrechetInceptionDistance(feature=identity)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)

    assert ours == pytest.approx(fidelity, rel=1e-8)
    assert ours == pytest.approx(by_scipy, rel=1e-8)
    assert ours == pytest.approx(metric.compute().item(), rel=1e-8)


def test_singular_covariances_are_no_trouble():
    real, fake = features(400, 6, 0), features(400, 6, 1)
    expected = frechet_distance(real, fake).item()
    # dead, doubled and constant features leave the distance as it is, or double its part
    padded = [torch.cat([part, torch.zeros(400, 30)], dim=1) for part in (real, fake)]
    assert frechet_distance(*padded).item() == pytest.approx(expected, rel=1e-9)
    doubled = [torch.cat([part, part], dim=1) for part in (real, fake)]
    assert frechet_distance(*doubled).item() == pytest.approx(2 * expected, rel=1e-9)
    collapsed = real[:1].expand(400, -1)
    mean, covariance = gaussian_statistics(real)
    to_a_point = (mean - real[0]).square().sum() + covariance.trace()
    assert frechet_distance(real, collapsed).item() == pytest.approx(to_a_point.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("num_real", "num_fake", "which"), [(64, 65, "real"), (65, 64, "generated")]
)
def test_too_few_images_are_rejected(num_real, num_fake, which):
    real, fake = features(num_real, 64, 0), features(num_fake, 64, 1)
    with pytest.raises(InputError, match=f"64 {which} images for 64 features.*more than 64"):
        frechet_distance(real, fake)
    assert frechet_distance(real, fake, allow_singular=True).isfinite()


def test_bad_features_are_rejected():
    good, bad = features(10, 3, 0), features(10, 3, 1)
    bad[4, 1] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        frechet_distance(good, bad)
    with pytest.raises(InputError, match=r"unequal widths: 3 .* 2 "):
        frechet_distance(good, features(10, 2, 0))
    with pytest.raises(InputError, match=r"\[N, D\]"):
        gaussian_statistics(good[0])


def test_statistics_are_numpys():
    values = features(50, 7, 3)
    mean, covariance = gaussian_statistics(values)
    np.testing.assert_allclose(mean, values.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        covariance, np.cov(values.double().numpy(), rowvar=False), rtol=1e-10
    )
