from collections.abc import Iterable
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lab.data.datamodule import CountingBatchSampler, permutation
from gan_lab.errors import InputError

SEEDS = st.integers(0, 2**32)


def stream(**options: object) -> list[list[int]]:
    defaults: dict = {"num_items": 10, "batch_size": 4, "total_images": 40, "seed": 0}
    return list(CountingBatchSampler(**{**defaults, **options}))


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


@given(n=st.integers(1, 50), batch=st.integers(1, 30), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_each_epoch_shows_every_item_once(n: int, batch: int, seed: int) -> None:
    shown = flat(stream(num_items=n, batch_size=batch, seed=seed, total_images=3 * n))
    for epoch in range(3):
        part = shown[epoch * n : (epoch + 1) * n]
        assert sorted(part) == list(range(n))
        assert part == permutation(n, seed, epoch).tolist()


def test_epochs_and_seeds_have_their_own_orders() -> None:
    orders = {tuple(permutation(100, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_every_item_is_equally_likely_at_every_position() -> None:
    places = np.array([permutation(5, 7, epoch) for epoch in range(5000)])
    for place in range(5):
        counts = np.bincount(places[:, place], minlength=5)
        # chi-squared with 4 degrees of freedom exceeds 23.5 once in 10,000
        assert ((counts - 1000) ** 2 / 1000).sum() < 23.5


@given(
    n=st.integers(1, 40),
    per_rank=st.integers(1, 5),
    ranks=st.integers(1, 4),
    d_steps=st.integers(1, 3),
    seed=SEEDS,
)
@settings(max_examples=60, deadline=None)
def test_ranks_partition_every_global_batch(
    n: int, per_rank: int, ranks: int, d_steps: int, seed: int
) -> None:
    batch = per_rank * ranks
    common = {"num_items": n, "batch_size": batch, "batches": d_steps, "seed": seed}
    common["total_images"] = 5 * batch * d_steps
    one = stream(**common)
    each = [stream(**common, rank=rank, world_size=ranks) for rank in range(ranks)]
    for step, whole in enumerate(one):
        for d_step in range(d_steps):
            mine = slice(d_step * per_rank, (d_step + 1) * per_rank)
            together = flat(shards[step][mine] for shards in each)
            assert together == whole[d_step * batch : (d_step + 1) * batch]


@given(n=st.integers(1, 40), batch=st.integers(1, 9), skip=st.integers(0, 30), seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_starting_at_a_position_equals_skipping_to_it(
    n: int, batch: int, skip: int, seed: int
) -> None:
    common = {"num_items": n, "batch_size": batch, "seed": seed, "total_images": 40 * batch}
    straight = stream(**common)
    assert stream(**common, start=skip * batch) == straight[skip:]


def test_position_need_not_be_a_multiple_of_the_batch() -> None:
    shown = flat(stream(batch_size=1))
    assert flat(stream(start=7, batch_size=4))[:33] == shown[7:]


def test_a_far_position_costs_one_epoch() -> None:
    sampler = CountingBatchSampler(
        num_items=1000, batch_size=10, total_images=10**13, seed=3, start=10**12 + 5
    )
    first = next(iter(sampler))
    assert first == permutation(1000, 3, 10**9)[5:15].tolist()


def test_ends_once_the_total_is_reached() -> None:
    assert len(stream(total_images=40)) == 10
    assert len(stream(total_images=41)) == 11
    assert stream(start=40) == []


def test_can_be_iterated_again() -> None:
    sampler = CountingBatchSampler(num_items=7, batch_size=3, total_images=30, seed=0)
    assert list(islice(sampler, 4)) == list(islice(sampler, 4))


def test_has_no_length() -> None:
    with pytest.raises(TypeError):
        len(CountingBatchSampler(num_items=7, batch_size=3, total_images=30, seed=0))  # type: ignore[arg-type]


def test_refuses_what_ranks_cannot_share() -> None:
    with pytest.raises(InputError, match=r"batch_size=10 .* 4 processes.* set batch_size=8 or 12"):
        stream(batch_size=10, world_size=4)
    with pytest.raises(InputError, match="set batch_size=4,"):
        stream(batch_size=3, world_size=4)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batches": 0}, {"seed": -1}])
def test_refuses_counts_out_of_range(wrong: dict) -> None:
    with pytest.raises(InputError, match=next(iter(wrong)).replace("batches", "d_steps")):
        stream(**wrong)
