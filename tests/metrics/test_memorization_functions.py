"""Copies, membership and verdict: against brute force, scikit-learn, and generators that are known to copy or not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.memorization import (
    Membership,
    Neighbors,
    copied_share,
    membership,
    relative_distances,
    squared_to_nearest_copy,
    verdict_of,
)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def neighbors(samples: Tensor, training: Tensor, k: int = 51) -> Tensor:
    found = Neighbors(num=len(samples), num_first=len(samples), k=k)
    for part in training.split(100):
        found.add(squared_to_nearest_copy([samples], part))
    return found.squared.sqrt()


def test_neighbors_are_those_of_brute_force() -> None:
    samples, training = normal(20, 5, seed=0), normal(250, 5, seed=1)
    copies = [samples, samples + 1, samples.flip(1)]
    found = Neighbors(num=20, num_first=12, k=7)
    for part in training.split(90):
        found.add(squared_to_nearest_copy(copies, part))
    distances = torch.stack([torch.cdist(copy, training) for copy in copies]).min(0).values
    expected = distances.topk(7, largest=False)
    torch.testing.assert_close(found.squared.sqrt(), expected.values, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.which, expected.indices)
    torch.testing.assert_close(
        found.reached.sqrt(), distances[:12].min(0).values, atol=1e-4, rtol=1e-4
    )


def test_distances_in_units_of_the_next_ones() -> None:
    distances = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
    assert relative_distances(distances).tolist() == pytest.approx([1 / 3, 0, 0, 1])


# 800 training samples, 400 held-out ones and 600 generated ones, in 20 dimensions
TRAINING, HELD_OUT = normal(800, 20, seed=0), normal(400, 20, seed=1)


@pytest.mark.parametrize(
    ("generated", "share", "sure"),
    [
        (TRAINING[:600], 1.0, True),
        (TRAINING[:600] + 0.05 * normal(600, 20, seed=2), 1.0, True),
        (HELD_OUT[:300].repeat(2, 1), 0.0, False),
        (torch.cat([TRAINING[:300], normal(300, 20, seed=3)]), 0.5, True),
        (normal(600, 20, seed=4), 0.0, False),
        (0.5 * normal(600, 20, seed=5), 0.0, False),  # typical samples, close to everything
        (TRAINING[:1].repeat(600, 1), 1.0, True),
    ],
)  # fmt: skip
def test_share_of_copies(generated: Tensor, share: float, sure: bool) -> None:
    found = copied_share(neighbors(generated, TRAINING), neighbors(HELD_OUT, TRAINING))
    assert found.copied == pytest.approx(share, abs=0.02)
    assert found.is_sure == sure
    assert found.copied <= found.closer


def test_typical_samples_are_closer_but_no_copies() -> None:
    generated = 0.5 * normal(600, 20, seed=5)
    found = copied_share(neighbors(generated, TRAINING), neighbors(HELD_OUT, TRAINING))
    assert found.closer > 0.1 and found.copied < 0.02


def test_few_held_out_samples_give_wide_bounds() -> None:
    many, few = (
        copied_share(neighbors(TRAINING[:600], TRAINING), neighbors(some, TRAINING))
        for some in (HELD_OUT, HELD_OUT[:20])
    )
    assert many.by_chance < 0.04 < few.by_chance
    assert many.at_least == pytest.approx(0.01 ** (1 / 600), rel=1e-6)  # Clopper and Pearson


@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(2, 40), st.booleans())
@settings(max_examples=40, deadline=None)
def test_auc_is_scikit_learns(seed: int, m: int, n: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    ours, theirs = random.normal(0.3, 1, m), random.normal(0, 1, n)
    if ties:
        ours, theirs = np.round(ours), np.round(theirs)
    found = membership(torch.from_numpy(ours), torch.from_numpy(theirs))
    labels = np.r_[np.ones(m), np.zeros(n)]
    assert found.auc == pytest.approx(roc_auc_score(labels, np.r_[ours, theirs]), abs=1e-9)
    low, high = found.interval
    assert 0 <= low <= found.auc <= high <= 1


def test_interval_holds_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    truth = 0.638_163  # Phi(0.5 / sqrt(2))
    inside = 0
    for _ in range(300):
        ours, theirs = random.normal(0.5, 1, 120), random.normal(0, 1, 80)
        low, high = membership(torch.from_numpy(ours), torch.from_numpy(theirs)).interval
        inside += low < truth < high
    assert 0.91 < inside / 300 < 0.98


def test_slices_of_a_patient_count_as_one() -> None:
    ours, theirs = normal(50, 1, seed=0)[:, 0], normal(40, 1, seed=1)[:, 0]
    alone = membership(ours, theirs)
    groups = [str(i // 8) for i in range(400)], [str(i // 8) for i in range(320)]
    repeated = ours.repeat_interleave(8), theirs.repeat_interleave(8)
    together, apart = membership(*repeated, groups=groups), membership(*repeated)
    assert together.auc == apart.auc == pytest.approx(alone.auc)
    assert together.error == pytest.approx(alone.error, rel=1e-6)
    assert apart.error < together.error / 2


def test_what_nothing_can_be_said_of() -> None:
    with pytest.raises(InputError, match="two of each"):
        membership(torch.zeros(1), torch.zeros(5))
    with pytest.raises(InputError, match="at least 2"):
        copied_share(torch.zeros(3, 1), torch.zeros(3, 1))


def test_verdict() -> None:
    honest = copied_share(neighbors(HELD_OUT, TRAINING), neighbors(HELD_OUT, TRAINING))
    copying = copied_share(neighbors(TRAINING, TRAINING), neighbors(HELD_OUT, TRAINING))
    nothing, known = Membership(auc=0.52, error=0.02), Membership(auc=0.9, error=0.02)
    no = verdict_of({"pixels": honest}, {"pixels": nothing}, nothing, num_held_out=400)
    assert no.answer == "no" and "400" in no.text and "0.52" in no.text
    assert "give it away" not in no.text
    assert "give it away" in verdict_of({"p": honest}, {}, known, num_held_out=400).text
    for shares, tests in (
        ({"pixels": honest, "features": copying}, {"pixels": nothing}),
        ({"features": honest}, {"features": known}),
    ):
        yes = verdict_of(shares, tests, None, num_held_out=400)
        assert yes.answer == "yes" and "features" in yes.text
