"""n-grams of lines against what counting by hand gives, and chains that keep the frequencies they are made of."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lab.metrics.text_metrics import (
    NgramModel,
    bigram_chain,
    distinct_share,
    jensen_shannon,
    unigram_chain,
)


def frequencies(lines, n):
    grams = Counter(
        tuple(line[i : i + n]) for line in lines.tolist() for i in range(len(line) - n + 1)
    )
    total = sum(grams.values())
    return {gram: count / total for gram, count in grams.items()}


def by_hand(ours, theirs, n):
    p, q = frequencies(ours, n), frequencies(theirs, n)
    total = 0.0
    for gram in p.keys() | q.keys():
        a, b = p.get(gram, 0.0), q.get(gram, 0.0)
        m = (a + b) / 2
        total += sum(x * np.log2(x / m) / 2 for x in (a, b) if x)
    return total


def text(seed, count=20, length=8, characters=3):
    return np.random.default_rng(seed).integers(0, characters, (count, length))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 6), st.sampled_from([2, 3, 30_000]))
def test_divergence_is_that_of_the_definition(seed, n, characters):
    ours, theirs = text(seed), text(seed + 1, 7, characters=characters)
    assert jensen_shannon(NgramModel(ours, n), theirs) == pytest.approx(
        by_hand(ours, theirs, n), abs=1e-12
    )


def test_equal_sets_have_zero_and_disjoint_ones_one_bit():
    lines = text(0)
    for n in range(1, 7):
        assert jensen_shannon(NgramModel(lines, n), lines) == pytest.approx(0, abs=1e-12)
        assert jensen_shannon(NgramModel(lines, n), lines + 3) == pytest.approx(1)


def test_more_lines_of_the_same_are_nearer():
    model = NgramModel(text(0, 5000), 4)
    found = [jensen_shannon(model, text(1, count)) for count in (10, 100, 1000)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.01


def test_distinct_share():
    assert distinct_share(np.zeros((5, 8), np.int64), 4) == 1 / 25
    assert distinct_share(np.arange(16).reshape(2, 8), 4) == 1


def test_chains_have_the_frequencies_they_are_made_of():
    # after 0 comes 1, after 1 as often 0 as 2, after 2 always 2; lines begin with 0
    lines = np.array([[0, 1, 0, 1, 2, 2], [0, 1, 2, 2, 2, 2]])
    drawn = bigram_chain(lines, 500)
    assert drawn.shape == (500, 6) and (drawn[:, 0] == 0).all()
    pairs = {tuple(pair) for line in drawn.tolist() for pair in itertools.pairwise(line)}
    assert pairs == {(0, 1), (1, 0), (1, 2), (2, 2)}
    behind = drawn[:, 1:][drawn[:, :-1] == 1]
    assert abs((behind == 2).mean() - 2 / 3) < 0.08
    single = unigram_chain(lines, 500)
    np.testing.assert_allclose(
        np.bincount(single.flatten()) / 3000, [3 / 12, 3 / 12, 6 / 12], atol=0.05
    )
    assert np.array_equal(drawn, bigram_chain(lines, 500))
    # nothing follows 1: a line begins again
    ends = np.array([[0, 0, 1]])
    assert set(bigram_chain(ends, 99)[:, 1:].flatten()) == {0, 1}


def test_chains_reach_the_divergence_of_their_order():
    lines = text(3, 2000, 12, 5)
    lines[:, 1::2] = (
        lines[:, ::2] * 2 + 1
    ) % 5  # every second character follows from the one before
    for n, chain in ((1, unigram_chain), (2, bigram_chain)):
        drawn = chain(lines, 2000)
        found = [jensen_shannon(NgramModel(lines, k), drawn) for k in (n, n + 1)]
        assert found[0] < 0.01 < found[1]
