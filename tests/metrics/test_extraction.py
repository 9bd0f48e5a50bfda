"""Features are extracted once, survive a kill, and depend on neither batch size nor number of processes."""

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed

from gan_lab.metrics import extraction as extraction_module
from gan_lab.metrics.cache import FolderChunks, MemoryChunks
from gan_lab.metrics.extraction import CHUNK, Extraction, extract_fakes, extract_real, no_progress
from gan_lab.metrics.feature_set import Moments
from gan_lab.metrics.functional import frechet_distance_from_statistics, gaussian_statistics
from tests.helpers.sources import FixedImages, Projection, textures

NUM = 2 * CHUNK + 77


@pytest.fixture(scope="module")
def images():
    return FixedImages(textures(NUM, 0, channels=1, size=8), endless=False)


def extraction(source, extractor, **changes):
    made = Extraction(
        source=source,
        extractor=extractor,
        num=NUM,
        whole=True,
        needs=frozenset({("features", "features"), ("features", "statistics")}),
    )
    return replace(made, **changes)


def test_moments_in_parts_are_those_of_the_whole_however_far_from_zero():
    features = torch.randn(1000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for offset in (0, 1e6):
        moments = Moments(5)
        for part in (features + offset).split(170):
            moments.add(part)
        mean, covariance = gaussian_statistics(features)
        torch.testing.assert_close(moments.mean, mean + offset, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(moments.covariance, covariance, rtol=1e-8, atol=1e-9)


def test_features_are_in_order_and_the_statistics_theirs(images):
    extractor = Projection()
    made = extraction(images, extractor).extract(MemoryChunks())
    expected = extractor(images.images, ["features"])["features"]
    torch.testing.assert_close(made.features["features"], expected)
    mean, covariance = gaussian_statistics(expected)
    torch.testing.assert_close(made.gaussian("features")[0], mean)
    torch.testing.assert_close(made.gaussian("features")[1], covariance)
    assert made.count == NUM and made.rows.tolist() == list(range(NUM))


def test_some_features_are_kept_and_statistics_are_of_all(images):
    extractor = Projection()
    whole = extraction(images, extractor).extract(MemoryChunks())
    some = extraction(images, extractor, max_features=100).extract(MemoryChunks())
    assert some.features["features"].shape == (100, 16)
    assert torch.equal(some.features["features"], whole.features["features"][some.rows])
    assert torch.equal(some.gaussian("features")[1], whole.gaussian("features")[1])
    assert some.rows.unique().tolist() == some.rows.tolist() != list(range(100))


@pytest.mark.parametrize("batch_size", [7, 64, 512])
def test_no_batch_size_changes_a_bit(images, batch_size):
    first = extraction(images, Projection()).extract(MemoryChunks())
    second = extraction(images, Projection(), batch_size=batch_size).extract(MemoryChunks())
    assert torch.equal(first.features["features"], second.features["features"])
    assert torch.equal(first.gaussian("features")[1], second.gaussian("features")[1])


def distance_to(images, extractor, batch_size):
    real = extraction(
        FixedImages(textures(300, 1, channels=1, size=8)), extractor, num=300
    ).extract(MemoryChunks())
    made = extraction(images, extractor, batch_size=batch_size).extract(MemoryChunks())
    return frechet_distance_from_statistics(
        real.gaussian("features"), made.gaussian("features")
    ).item()


def one_of_two(rank, folder, images, batch_size):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    extractor = Projection()
    distance = distance_to(images, extractor, batch_size)
    kept = extract_real(extraction(images, extractor))
    torch.save([distance, extractor.seen, kept.gaussian("features")], folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("batch_size", [8, 64, 100])
def test_two_processes_share_the_work_and_find_the_same(images, tmp_path, empty_cache, batch_size):
    alone = distance_to(images, Projection(), 64)
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=one_of_two, args=(rank, tmp_path, images, batch_size))
        for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for distance, _, (mean, _) in found:
        assert distance == pytest.approx(alone, rel=1e-6)
        expected = extraction(images, Projection()).extract(MemoryChunks()).gaussian("features")[0]
        assert torch.equal(mean, expected)
    seen = [int(seen) for _, seen, _ in found]
    # NUM images twice, of which nothing was looked at by both
    assert sum(seen) == 300 + NUM + NUM and min(seen) > NUM // 2


def test_what_was_extracted_before_a_kill_is_not_extracted_again(images, tmp_path, capsys):
    store = FolderChunks(tmp_path / "chunks")
    whole = extraction(images, Projection()).extract(MemoryChunks())
    killed = Projection()
    killed.stop_after = CHUNK + 100
    with pytest.raises(KeyboardInterrupt):
        extract_fakes(extraction(images, killed), store, no_progress)
    again = Projection()
    made = extract_fakes(extraction(images, again), store, no_progress)
    assert again.seen == NUM - CHUNK
    assert f"features of {CHUNK} of {NUM:,} images were extracted before" in capsys.readouterr().out
    assert torch.equal(made.gaussian("features")[1], whole.gaussian("features")[1])
    assert torch.equal(made.features["features"], whole.features["features"])


def test_what_an_evaluation_left_two_weeks_ago_is_removed(images, tmp_path):
    for name, days in (("fake-old", 15), ("fake-new", 13), ("other-old", 15)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    store = FolderChunks(tmp_path / "fake-mine")
    extract_fakes(extraction(images, Projection()), store, no_progress)
    assert {path.name for path in tmp_path.iterdir()} == {"fake-mine", "fake-new", "other-old"}


def test_a_damaged_chunk_is_extracted_again_with_a_warning(images, tmp_path, capsys):
    store = FolderChunks(tmp_path / "chunks")
    first = extraction(images, Projection()).extract(store)
    path = sorted((tmp_path / "chunks").iterdir())[1]
    path.write_bytes(path.read_bytes()[:-500])
    extractor = Projection()
    second = extraction(images, extractor).extract(store)
    assert extractor.seen == CHUNK
    assert "cannot be used" in " ".join(capsys.readouterr().out.split())
    assert torch.equal(first.features["features"], second.features["features"])


def test_another_output_of_the_same_images_costs_only_itself(images, tmp_path):
    store = FolderChunks(tmp_path / "chunks")
    extraction(images, Projection()).extract(store)
    extractor = Projection()
    both = frozenset({("features", "features"), ("logits", "features")})
    made = extraction(images, extractor, needs=both).extract(store)
    assert extractor.seen == NUM and set(made.features) == {"features", "logits"}
    assert {path.name.split("-")[-1] for path in (tmp_path / "chunks").iterdir()} == {
        "features.pt",
        "logits.pt",
    }


def test_real_images_are_looked_at_once_and_a_killed_look_goes_on(images, empty_cache, capsys):
    killed = Projection()
    killed.stop_after = CHUNK
    with pytest.raises(KeyboardInterrupt):
        extract_real(extraction(images, killed))
    second = Projection()
    first = extract_real(extraction(images, second))
    assert second.seen == NUM - CHUNK
    assert f"({CHUNK} of them are done already)" in " ".join(capsys.readouterr().out.split())
    third = Projection()
    again = extract_real(extraction(images, third))
    assert third.seen == 0
    assert torch.equal(first.features["features"], again.features["features"])
    assert torch.equal(first.gaussian("features")[1], again.gaussian("features")[1])
    assert not list(empty_cache.glob("features/*/chunks-*/*")), "the chunks have done their work"


def test_only_what_is_missing_is_looked_at(images, empty_cache):
    extract_real(extraction(images, Projection(), needs=frozenset({("features", "statistics")})))
    (kept,) = empty_cache.glob("features/*/*.pt")
    assert kept.name == f"statistics-features-{NUM}.pt"
    second = Projection()
    extract_real(extraction(images, second))  # statistics and features
    assert second.seen == NUM
    third = Projection()
    extract_real(extraction(images, third, needs=frozenset({("features", "statistics")})))
    assert third.seen == 0


def test_other_images_another_extractor_or_another_number_is_another_entry(images, empty_cache):
    other = FixedImages(textures(NUM, 5, channels=1, size=8), endless=False)
    wide = Projection()
    wide.transform = "pixels, otherwise"
    for changed in (
        extraction(other, Projection()),
        extraction(images, Projection(), num=300),
        extraction(images, wide),
        extraction(images, Projection()),
    ):
        before = changed.extractor.seen
        extract_real(changed)
        assert changed.extractor.seen - before == changed.num


def test_a_cache_that_cannot_be_written_costs_time_only(
    images, tmp_path: Path, monkeypatch, capsys
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GAN_LAB_CACHE", str(tmp_path / "file" / "cache"))
    made = extract_real(extraction(images, Projection()))
    assert made.count == NUM and "GAN_LAB_CACHE" in capsys.readouterr().out
    store = FolderChunks(tmp_path / "file" / "chunks")
    extraction(images, Projection()).extract(store)
    assert capsys.readouterr().out.count("cannot be stored") == 1


@pytest.fixture
def small_blocks(monkeypatch):
    """Chunks of 16 images, four of them in a block."""
    monkeypatch.setattr(extraction_module, "CHUNK", 16)
    monkeypatch.setattr(extraction_module, "_BLOCKS", 15)
    monkeypatch.setattr(extraction_module, "_LARGEST_BLOCK", 4)


def test_sums_of_blocks_are_those_of_all_features(images, monkeypatch, small_blocks):
    several = extraction(images, Projection(), max_features=100)
    assert [len(block) for block in several._blocks] == [4] * 17 + [1]
    made = several.extract(MemoryChunks())
    monkeypatch.setattr(extraction_module, "_LARGEST_BLOCK", 1)
    plain = extraction(images, Projection(), max_features=100).extract(MemoryChunks())
    assert torch.equal(made.features["features"], plain.features["features"])
    for ours, theirs in zip(made.gaussian("features"), plain.gaussian("features"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_blocks_survive_a_kill_and_keep_no_features(images, empty_cache, capsys, small_blocks):
    whole = extraction(images, Projection(), max_features=100).extract(MemoryChunks())
    killed = Projection()
    killed.stop_after = 150
    with pytest.raises(KeyboardInterrupt):
        extract_real(extraction(images, killed, max_features=100))
    names = sorted(path.name for path in empty_cache.glob("features/*/chunks-*/*"))
    assert [name for name in names if name.endswith("-features.pt")] == [
        "00000128-00000144-features.pt"
    ], "of the finished blocks only sums are left"
    again = Projection()
    made = extract_real(extraction(images, again, max_features=100))
    assert "(144 of them are done already)" in " ".join(capsys.readouterr().out.split())
    assert again.seen == NUM - 144
    for ours, theirs in zip(made.gaussian("features"), whole.gaussian("features"), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(made.features["features"], whole.features["features"])


def test_processes_share_blocks(images, tmp_path, empty_cache, small_blocks):
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=one_of_two, args=(rank, tmp_path, images, 16)) for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    expected = extraction(images, Projection()).extract(MemoryChunks()).gaussian("features")
    for rank in range(2):
        _, seen, found = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
        assert int(seen) > NUM // 2
