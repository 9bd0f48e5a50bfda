import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lab.commands.launch import launch
from gan_lab.data import streaming
from gan_lab.data.builtin import Digits
from gan_lab.data.datamodule import CountingBatchSampler
from gan_lab.data.shards import INDEX, read_index, shard_name
from gan_lab.data.streaming import StreamedSamples, window_order
from gan_lab.errors import InputError
from tests.helpers.checkpoints import assert_same, final
from tests.helpers.object_store import CREDENTIALS, ObjectStore
from tests.helpers.prepared import packed_digits
from tests.helpers.streams import content, shown

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(np.array)


@given(
    counts=COUNTS,
    window=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 99),
    copies=st.integers(1, 2),
)
@settings(max_examples=100, deadline=None)
def test_an_epoch_is_a_permutation_in_windows(
    counts: np.ndarray, window: int, seed: int, epoch: int, copies: int
) -> None:
    order = window_order(counts, window=window, seed=seed, epoch=epoch, copies=copies)
    assert sorted(order) == list(range(copies * counts.sum()))
    again = window_order(counts, window=window, seed=seed, epoch=epoch, copies=copies)
    assert (order == again).all()


@given(shards=st.integers(2, 60), window=st.integers(1, 12), seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_small_cache_suffices(shards: int, window: int, seed: int) -> None:
    order = window_order(np.full(shards, 40), window=window, seed=seed, epoch=0)
    cache: list[int] = []
    fetched = 0
    for shard in (order // 40).tolist():
        fetched += shard not in cache
        cache = [*(one for one in cache if one != shard), shard][-(window + 2) :]
    # those of the first window are wanted once more, as the circle closes
    assert fetched <= shards + 2 * window


def test_orders_differ_and_mix() -> None:
    counts = np.full(50, 100)
    first, second = (window_order(counts, window=8, seed=0, epoch=epoch) for epoch in (0, 1))
    assert (first != second).mean() > 0.99
    for start in range(0, 5000, 500):
        shards = np.bincount(first[start : start + 500] // 100, minlength=50)
        assert 8 <= (shards > 0).sum() <= 8 + 6, "five shards' worth of samples come from about 8"
    whole = window_order(counts, window=50, seed=0, epoch=0)
    assert ((whole[:500] // 100)[:, None] == np.arange(50)).any(0).all(), "a window of all shards"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_digits(tmp_path_factory)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path_factory.mktemp("server") / "log.txt")
    yield store
    store.close()


@pytest.fixture
def store(
    server: ObjectStore, digits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> ObjectStore:
    """A server that holds the shards."""
    for name, value in {**CREDENTIALS, "GAN_LAB_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    server.upload(digits, "digits")
    server.is_open, server.delay_s = True, 0.0
    return server


def opened(store: ObjectStore, **options: Any) -> StreamedSamples:
    arguments: dict[str, Any] = {"split": "train", "patience": 60.0, "window": 3, **options}
    return StreamedSamples(root="s3://lab/digits", options={"endpoint_url": store.url}, **arguments)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_folder_of_shards_holds_what_was_packed(digits: Path, split: str) -> None:
    data, source = StreamedSamples(split=split, root=str(digits)), Digits(split=split)
    assert sorted(content(data)) == sorted(content(source))
    assert content(data) != content(source), "shuffled, so that a shard is a sample of all"
    assert data.spec == source.spec or data.spec.as_dict() == source.spec.as_dict()
    mirrored = StreamedSamples(split=split, root=str(digits), flip=True)
    assert (mirrored[data.num_stored].real == data[0].real.flip(-1)).all()
    assert sorted(mirrored.order(0, 0)) == list(range(2 * data.num_stored))


def test_what_is_in_a_store_is_what_was_packed(store: ObjectStore, digits: Path) -> None:
    local = StreamedSamples(split="train", root=str(digits))
    assert content(opened(store)) == content(local)
    few = StreamedSamples(split="val", root=str(digits))
    assert content(opened(store, split="val", cache_gb=0)) == content(few)
    assert opened(store).fingerprint == local.fingerprint, "statistics are kept wherever it lies"


def test_the_stream_is_the_same_for_any_ranks_and_workers_and_resumed(store: ObjectStore) -> None:
    whole = shown(opened(store), start=0, ranks=1, workers=0, images=1800)
    assert len(whole) == 150
    other = shown(opened(store), start=0, ranks=3, workers=2, images=600)
    assert all(torch.equal(one, two) for one, two in zip(whole[:50], other, strict=True))
    resumed = shown(opened(store), start=1200, ranks=2, workers=1, images=1800)
    assert all(torch.equal(one, two) for one, two in zip(whole[100:], resumed, strict=True))


def cached(folder: Path) -> list[Path]:
    return sorted((folder / "shards").glob("*/*.zip"))


def test_the_cache_is_bounded_and_a_shard_is_fetched_once(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 270_000  # six shards
    data = opened(store, cache_gb=most / 1e9)
    sizes = [shard["bytes"] for shard in data._shards]
    fetched: list[str] = []
    fetch = data._store.fetch

    def counting(name: str, size: int, path: Path) -> None:
        fetched.append(name)
        fetch(name, size, path)
        assert sum(one.stat().st_size for one in [*cached(tmp_path / "cache"), path]) <= most

    monkeypatch.setattr(data._store, "fetch", counting)
    order = data.order(0, 0)
    images = data.__getitems__(order.tolist()).real
    assert len(images) == data.num_stored
    assert len(cached(tmp_path / "cache")) >= 4
    assert len(set(fetched)) == len(sizes) and len(fetched) <= len(sizes) + 5
    fetched.clear()
    for number in np.linspace(0, data.num_stored - 1, 12).astype(int).tolist():
        data.load(number)
    assert not fetched, "a few images are read by themselves"
    with pytest.raises(InputError, match=r"data.cache_gb=0.0001: the 4 shards .* data.window"):
        opened(store, cache_gb=100e-6)


def read_all(data: StreamedSamples, queue: Any) -> None:
    queue.put([data.load(int(i)).numpy().tobytes() for i in data.order(1, 0)])


def test_processes_share_a_cache(store: ObjectStore, digits: Path, tmp_path: Path) -> None:
    data = opened(store, cache_gb=270e-6)
    local = StreamedSamples(split="train", root=str(digits), window=3)
    expected = [local.load(int(i)).numpy().tobytes() for i in local.order(1, 0)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    readers = [context.Process(target=read_all, args=(data, queue)) for _ in range(3)]
    for reader in readers:
        reader.start()
    assert all(queue.get(timeout=100) == expected for _ in readers)
    for reader in readers:
        reader.join()
    assert sum(path.stat().st_size for path in cached(tmp_path / "cache")) <= 270_000
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_killed_process_does_not_block_the_next(store: ObjectStore, tmp_path: Path) -> None:
    data = opened(store)
    assert data._cache is not None
    store.delay_s = 30.0
    child = multiprocessing.get_context("fork").Process(
        target=lambda: data._cache._fetch(shard_name(0), data._shards[0]["bytes"])  # type: ignore[union-attr]
    )
    child.start()
    while not list((tmp_path / "cache").rglob("*.part")):
        time.sleep(0.05)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    store.delay_s = 0.0
    assert not cached(tmp_path / "cache")
    assert data._cache._fetch(shard_name(1), data._shards[1]["bytes"])
    assert [path.name for path in cached(tmp_path / "cache")] == [shard_name(1)]
    assert not list((tmp_path / "cache").rglob("*.part"))


def later(seconds: float, action: Any) -> threading.Thread:
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread


def test_a_store_that_stalls_or_restarts_only_costs_time(
    store: ObjectStore, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_ANSWER_S", 3.0)
    expected = content(StreamedSamples(split="train", root=str(digits)))
    data = opened(store)
    assert content(data)[:10] == expected[:10]
    data = opened(store, cache_gb=0)
    store.delay_s = 0.05
    some = range(0, 1400, 100)
    slow = [data.load(i).numpy().tobytes() for i in some]
    store.delay_s = 0.0
    os.kill(store.process.pid, signal.SIGSTOP)
    waking = later(5, lambda: os.kill(store.process.pid, signal.SIGCONT))
    stalled = [data.load(i).numpy().tobytes() for i in some]
    waking.join()
    store.is_open = False
    store.kill()

    def again() -> None:
        store.start()
        store.upload(digits, "digits")
        store.is_open = True

    starting = later(1, again)
    restarted = [data.load(i).numpy().tobytes() for i in some]
    starting.join()
    assert slow == stalled == restarted == [expected[i][1] for i in some]


def test_a_store_that_is_gone_is_one_line(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = opened(store, cache_gb=0, patience=3.0)
    store.is_open = False
    begin = time.monotonic()
    with pytest.raises(
        InputError, match=r"s3://lab/digits/shard-0000\d\d.zip cannot be read for 3 s"
    ):
        data.load(0)
    assert time.monotonic() - begin < 100
    with pytest.raises(InputError, match=r"s3://lab/digits/index.npz cannot be read for 1 s"):
        opened(store, patience=1.0)


def test_missing_and_damaged_shards_are_named(
    store: ObjectStore, digits: Path, tmp_path: Path
) -> None:
    data = opened(store)
    name = data._shards[0]["name"]
    good = (digits / name).read_bytes()
    start = int(read_index(digits / INDEX).positions[0, 0])
    store.put(f"digits/{name}", good[: start + 40] + b"damage" + good[start + 46 :])
    with pytest.raises(InputError, match=f"{name} is damaged.*sample 0"):
        data.load(0)
    store.put(f"digits/{name}", good[:300])
    with pytest.raises(InputError, match=name):
        data.load(50)
    store.delete(f"digits/{name}")
    with pytest.raises(InputError, match=f"s3://lab/digits/{name} is missing"):
        data.load(0)
    store.put(f"digits/{name}", good)
    for number in range(10):
        data.load(number)
    (copy,) = [path for path in cached(tmp_path / "cache") if path.name == name]
    copy.write_bytes(bytes(len(good)))
    assert data.load(0).shape == (1, 16, 16), "a damaged copy is fetched again"
    store.delete(f"digits/{INDEX}")
    with pytest.raises(InputError, match=r"index.npz is missing"):
        opened(store)


def test_bad_options_are_reported(digits: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"root": None}, "data.root is not set"),
        ({"root": str(tmp_path / "nowhere")}, "is not a folder of shards"),
        ({"root": str(tmp_path)}, "has no index.npz"),
        ({"root": "nosuch://a/b"}, "data.root=nosuch://a/b"),
        ({"root": str(digits), "window": 0}, "data.window=0"),
        ({"root": str(digits), "patience": 9e9}, "data.patience"),
        ({"root": str(digits), "image_size": 8}, "data.image_size=8x8: the shards hold .* 16x16"),
    ):
        with pytest.raises(InputError, match=message):
            StreamedSamples(split="train", **options)  # type: ignore[arg-type]
    assert StreamedSamples(split="train", root=str(digits), image_size=16)


def test_sampler_follows_the_order_of_the_data(digits: Path) -> None:
    data = StreamedSamples(split="train", root=str(digits), window=3)
    batches = CountingBatchSampler(
        num_items=len(data), batch_size=10, total_images=2 * len(data), seed=4, order=data.order
    )
    seen = list(chain.from_iterable(batches))
    expected = [*data.order(4, 0).tolist(), *data.order(4, 1).tolist()]
    assert seen[: len(expected)] == expected


@pytest.mark.slow
def test_a_run_on_a_store_ends_as_one_on_a_folder(
    store: ObjectStore, digits: Path, tmp_path: Path
) -> None:
    common = [
        "experiment=digits/dcgan", "data=streaming", "total_kimg=0.2", f"runs_dir={tmp_path}",
        "metrics=none", "data.window=3", "trainer.accelerator=cpu",
    ]  # fmt: skip
    endpoint = f"data.options={{endpoint_url: '{store.url}'}}"
    remote = ["data.root=s3://lab/digits", endpoint, "num_workers=2", "name=remote"]
    assert launch("train", [*common, f"data.root={digits}", "num_workers=0", "name=local"]) == 0
    assert launch("train", [*common, *remote]) == 0
    ours, theirs = (final(tmp_path / name)["state_dict"] for name in ("remote", "local"))
    assert_same(ours, theirs)
