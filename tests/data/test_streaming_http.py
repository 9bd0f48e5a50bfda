"""Shards on a web server that is killed and started again."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lab.data.streaming import StreamedSamples
from gan_lab.errors import InputError
from tests.helpers.http_store import HttpStore
from tests.helpers.prepared import packed_digits, prepare
from tests.helpers.streams import content, shown


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits in shards."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(packed_digits(tmp_path_factory), folder / "digits")
    return folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAN_LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(served: Path) -> Iterator[HttpStore]:
    store = HttpStore(served)
    yield store
    store.kill()


def opened(server: HttpStore, folder: str = "digits", **options: Any) -> StreamedSamples:
    arguments: dict[str, Any] = {"split": "train", "patience": 100.0, "window": 3, **options}
    return StreamedSamples(root=f"{server.url}/{folder}", **arguments)


def restart(server: HttpStore, after_s: float) -> threading.Thread:
    """Kill the server, and start it again a second later."""

    def cut() -> None:
        time.sleep(after_s)
        server.kill()
        time.sleep(1)
        server.start()

    thread = threading.Thread(target=cut)
    thread.start()
    return thread


def test_the_stream_is_that_of_the_folder_though_the_server_is_killed(
    server: HttpStore, served: Path
) -> None:
    local = StreamedSamples(split="train", root=str(served / "digits"), window=3)
    expected = shown(local, start=0, ranks=1, workers=0, images=1440)
    data = opened(server)
    assert data.fingerprint == local.fingerprint
    cut = restart(server, 0.0)
    found = shown(data, start=0, ranks=1, workers=2, images=1440)
    cut.join()
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    few = StreamedSamples(split="val", root=str(served / "digits"))
    cut = restart(server, 0.2)
    assert content(opened(server, split="val", cache_gb=0)) == content(few)
    cut.join()


def test_a_server_that_is_not_there_yet_is_waited_for(server: HttpStore, served: Path) -> None:
    server.kill()
    starting = threading.Timer(1.5, server.start)
    starting.start()
    data = opened(server, split="val")
    starting.join()
    assert data.num_stored == 360
    server.kill()
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"index.npz cannot be read for 1 s"):
        opened(server, patience=1.0)
    assert time.monotonic() - begin < 60
    server.start()


def test_what_lasts_is_one_line_at_once(server: HttpStore, served: Path) -> None:
    begin = time.monotonic()
    for folder, message in (
        ("nothing", "nothing/index.npz is missing"),
        ("secret", "secret/index.npz may not be read .*403"),
    ):
        with pytest.raises(InputError, match=message):
            opened(server, folder)
    assert time.monotonic() - begin < 60, "not after the 100 s of patience"
    whole = HttpStore(served, gives_ranges=False)
    with pytest.raises(InputError, match="its store gives no parts of files"):
        opened(whole)
    whole.kill()


def test_shards_that_were_packed_again_are_not_taken_for_the_old_ones(
    server: HttpStore, served: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    for order in (range(10), range(9, -1, -1)):
        for number, other in enumerate(order):
            Image.fromarray(pixels[other]).save(photos / f"{number}.png")
        shutil.rmtree(served / "photos", ignore_errors=True)
        prepare(f"data.root={photos}", f"out={served / 'photos'}")
        local = StreamedSamples(split="train", root=str(served / "photos"))
        assert content(opened(server, "photos")) == content(local)
