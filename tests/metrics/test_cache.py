import errno
import threading

import pytest
import torch

from gan_lab.metrics import cache
from gan_lab.metrics.cache import cached_tensors, tensors_sha256

ENTRY = {"a": torch.arange(1000.0), "count": torch.tensor(3)}


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return ENTRY


@pytest.fixture
def build():
    return Builder()


def same(tensors) -> bool:
    return tensors_sha256(tensors) == tensors_sha256(ENTRY)


def test_is_built_once_and_leaves_no_temporary_file(empty_cache, build):
    assert same(cached_tensors("entry.pt", build)) and same(cached_tensors("entry.pt", build))
    assert build.calls == 1
    assert {path.name for path in empty_cache.iterdir()} <= {"entry.pt", "entry.pt.lock"}


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_bit(content: bytes) -> bytes:
    middle = content.index(torch.tensor(500.0).numpy().tobytes())  # one of the values
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, empty])
def test_a_damaged_entry_is_rebuilt_with_a_warning(empty_cache, build, damage, capsys):
    cached_tensors("entry.pt", build)
    path = empty_cache / "entry.pt"
    path.write_bytes(damage(path.read_bytes()))
    assert same(cached_tensors("entry.pt", build)) and build.calls == 2
    output = " ".join(capsys.readouterr().out.split())
    assert "cannot be used" in output and "computed again" in output
    assert same(cached_tensors("entry.pt", build)) and build.calls == 2
    assert not capsys.readouterr().out


def test_a_full_disk_costs_time_only(empty_cache, build, capsys, monkeypatch):
    def full(entry, file):
        file.write(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.torch, "save", full)
    assert same(cached_tensors("entry.pt", build))
    output = " ".join(capsys.readouterr().out.split())
    assert "No space left on device" in output and "GAN_LAB_CACHE" in output
    assert not list(empty_cache.glob("*.pt")) and not list(empty_cache.glob("*.part"))


def test_a_cache_that_cannot_be_made_costs_time_only(tmp_path, build, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GAN_LAB_CACHE", str(tmp_path / "file" / "cache"))
    assert same(cached_tensors("entry.pt", build))
    assert "GAN_LAB_CACHE" in capsys.readouterr().out


def test_those_who_come_second_wait_for_the_first(empty_cache):
    started, calls = threading.Event(), []

    def slow():
        started.set()
        calls.append(1)
        threading.Event().wait(0.3)
        return ENTRY

    first = threading.Thread(target=cached_tensors, args=("entry.pt", slow))
    first.start()
    assert started.wait(5)
    assert same(cached_tensors("entry.pt", slow))
    first.join()
    assert len(calls) == 1
