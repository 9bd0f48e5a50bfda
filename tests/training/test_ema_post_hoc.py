"""Post-hoc EMA: profiles against integrals, combined averages against direct ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lab.errors import InputError
from gan_lab.training.ema import coefficients, decay, exponent, products


@given(st.floats(0.01, 0.28))
def test_the_exponent_has_the_deviation_that_is_requested(length: float) -> None:
    gamma = exponent(length)
    # of the density (gamma + 1) s^gamma on [0, 1]
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert (square - mean**2) ** 0.5 == pytest.approx(length, rel=1e-6)


def test_exponents_of_the_paper() -> None:
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.1) == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("length", [0, -0.1, 0.5])
def test_invalid_lengths(length: float) -> None:
    with pytest.raises(InputError, match=f"ema={length}"):
        exponent(length)


def test_products_are_integrals() -> None:
    s = np.linspace(0, 3, 300_001)

    def profile(time: float, gamma: float) -> np.ndarray:
        return np.where(s <= time, (gamma + 1) * s**gamma / time ** (gamma + 1), 0)

    times, gammas = np.array([1.0, 2.0, 3.0]), np.array([4.0, 7.0, 2.0])
    found = products(times, gammas, times, gammas)
    for i in range(3):
        for j in range(3):
            one, other = profile(times[i], gammas[i]), profile(times[j], gammas[j])
            assert found[i, j] == pytest.approx(np.trapezoid(one * other, s), rel=1e-3)


def test_updates_make_the_profile() -> None:
    """An average of weights that are their own number: the mean of the profile."""
    gamma, average = exponent(0.1), 0.0
    for step in range(1, 10_001):
        average += (1 - decay(gamma, images_seen=step, images=1)) * (step - average)
    assert average / 10_000 == pytest.approx((gamma + 1) / (gamma + 2), rel=1e-3)
    assert decay(gamma, images_seen=32, images=32) == 0


@settings(deadline=None, max_examples=20)
@given(st.floats(0.035, 0.2), st.integers(0, 100))
def test_any_length_is_the_direct_average(length: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps, kept = 4_000, (0.05, 0.1)
    walk = torch.randn(steps, 8, generator=generator, dtype=torch.float64).cumsum(0)
    gammas = {each: exponent(each) for each in (*kept, length)}
    averages = {each: torch.zeros(8, dtype=torch.float64) for each in gammas}
    snapshots = []
    for step, weights in enumerate(walk, start=1):
        for each, gamma in gammas.items():
            averages[each].lerp_(weights, 1 - decay(gamma, images_seen=step, images=1))
        if step % (steps // 32) == 0:
            snapshots += [(step, gammas[each], averages[each].clone()) for each in kept]
    found, error = coefficients(
        [s[0] for s in snapshots], [s[1] for s in snapshots], time=steps, gamma=gammas[length]
    )
    made = sum(float(weight) * s[2] for weight, s in zip(found, snapshots, strict=True))
    off = (made - averages[length]).norm() / (walk[-1] - averages[length]).norm()
    assert error < 0.05 and off < 0.02


def test_saved_averages_are_reproduced_exactly() -> None:
    gamma = exponent(0.05)
    found, error = coefficients([1, 2, 2], [gamma, gamma, 3], time=2, gamma=gamma)
    assert found == pytest.approx([0, 1, 0], abs=1e-6) and error < 1e-4
