"""Files are whole or not there, and a run folder belongs to one living process, which is named to the next."""

import errno
import json
import multiprocessing
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gan_lab.errors import InputError
from gan_lab.run import (
    HOLDER_FILE,
    LOCK_FILE,
    append_line,
    check_writable,
    link,
    living_holder,
    locked,
    noted_holder,
    read_results,
    remove_leftovers,
    replacing,
    temporary_path,
    write,
    write_json,
)

FORK = multiprocessing.get_context("fork")


def hold(run: Path, held: Event, enough: Event) -> None:
    with locked(run):
        held.set()
        enough.wait(60)


def test_who_holds_it_and_since_when(tmp_path: Path) -> None:
    held, enough = FORK.Event(), FORK.Event()
    child = FORK.Process(target=hold, args=(tmp_path, held, enough))
    child.start()
    assert held.wait(60)
    with (
        pytest.raises(
            InputError, match=rf"process {child.pid} on {socket.gethostname()}, since 20"
        ),
        locked(tmp_path),
    ):
        pass
    holder = living_holder(tmp_path)
    assert holder is not None and holder.pid == child.pid, "the rejected one did not touch the note"
    enough.set()
    child.join()
    assert living_holder(tmp_path) is None and noted_holder(tmp_path) is None


def test_a_kill_frees_the_folder_though_the_note_stays(tmp_path: Path) -> None:
    held, enough = FORK.Event(), FORK.Event()
    child = FORK.Process(target=hold, args=(tmp_path, held, enough))
    child.start()
    assert held.wait(60)
    child.kill()
    child.join()
    assert noted_holder(tmp_path) is not None
    assert living_holder(tmp_path) is None
    with locked(tmp_path):
        noted = noted_holder(tmp_path)
        assert noted is not None and noted.pid == os.getpid()


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 1}', "{"])
def test_a_broken_note_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / HOLDER_FILE).write_text(text)
    assert noted_holder(tmp_path) is None


def test_of_another_machine_nothing_is_known(tmp_path: Path) -> None:
    note = {"pid": os.getpid(), "host": "elsewhere", "since": "2026-01-01 00:00:00 +0000"}
    (tmp_path / HOLDER_FILE).write_text(json.dumps(note))
    assert noted_holder(tmp_path) is not None
    assert living_holder(tmp_path) is None


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "runs" / "x"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "runs" / "x"):
        (tmp_path / "runs" / "x" / "config.yaml").touch()
    assert {p.name for p in (tmp_path / "runs" / "x").iterdir()} == {"config.yaml", LOCK_FILE}


def test_a_file_is_the_old_one_until_it_is_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        assert json.loads(path.read_text()) == {"a": 1}
        raise ZeroDivisionError
    assert json.loads(path.read_text()) == {"a": 1}
    write(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_of_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "a", "ours")
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    assert (tmp_path / "a").read_text() == "ours" and not (tmp_path / "a").is_symlink()


def test_link_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    source.write_text("new")
    target.write_text("old")
    link(source, target)
    assert target.read_text() == "new" and target.samefile(source)

    def no_links(*_: object) -> None:
        raise OSError("not on this file system")

    source.write_text("newer")
    monkeypatch.setattr("os.link", no_links)
    link(source, target)
    assert target.read_text() == "newer" and not target.samefile(source)
    assert {p.name for p in tmp_path.iterdir()} == {"a.ckpt", "b.ckpt"}


@contextmanager
def full_disk(size: int = 20_000) -> Iterator[None]:
    """Have the kernel reject what makes a file larger than `size` bytes, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)


def save_tensors(path: Path) -> None:
    with path.open("wb") as file:
        torch.save(torch.ones(50_000), file)


def save_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, noise=NOISE)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": save_tensors,
    "safetensors": lambda path: save_file({"x": torch.ones(50_000)}, path),
    "Pillow": lambda path: Image.fromarray(NOISE).save(path, format="PNG"),
    "numpy": save_arrays,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_reported_and_the_old_file_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    message = rf"file could not be written: {os.strerror(errno.EFBIG)}"
    with pytest.raises(InputError, match=message), full_disk(), replacing(path) as temporary:
        WRITERS[kind](temporary)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_line_that_does_not_fit_is_not_there_at_all(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    append_line(path, "first")
    with pytest.raises(InputError, match="journal could not be written"), full_disk():
        append_line(path, "x" * 30_000)
    append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_the_reason_is_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(InputError, match=rf"a\.txt could not be written: {os.strerror(number)}"):
        write(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_the_output_folder_is_checked_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "a.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="could not be written"):
        check_writable(tmp_path / "file" / "a.json")


def test_an_error_of_the_code_stays_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no device"), replacing(tmp_path / "a"):
        raise OSError(errno.ENODEV, "no device")
    with pytest.raises(RuntimeError, match="shape"), replacing(tmp_path / "a"):
        raise RuntimeError("shape")


def test_only_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours = temporary_path(tmp_path / "a.png")
    host = ours.name.split(".")[-3]
    names = {
        "own": ours.name,
        "dead": f".a.png.{host}.{dead.pid}.part",
        "living": f".a.png.{host}.{os.getppid()}.part",
        "recent": ".a.png.elsewhere.1.part",
        "old": ".b.png.elsewhere.1.part",
        "else": ".a.part",
    }
    for name in names.values():
        (tmp_path / name).touch()
    (tmp_path / f".export.{host}.{dead.pid}.part").mkdir()
    (tmp_path / f".export.{host}.{dead.pid}.part" / "model.json").touch()
    long_ago = time.time() - 7 * 24 * 3600
    os.utime(tmp_path / names["old"], (long_ago, long_ago))
    remove_leftovers(tmp_path, tmp_path / "not there")
    assert {p.name for p in tmp_path.iterdir()} == {names[n] for n in ("living", "recent", "else")}


@pytest.mark.parametrize(
    "text",
    [
        *("{", "3", "[3]", "[[]]", "[{}]", '[{"metrics": 3}]', '[{"metrics": [{}]}]', "[" * 100_000),
        *('[{"metrics": [{"key": 1, "value": 2}]}]', '[{"metrics": [{"key": "a", "value": "b"}]}]'),
        *('[{"metrics": [], "fake": 3}]', '[{"metrics": [], "protocol": {}}]', "9" * 5000, "\udcff"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_results_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"evaluation\.json.*move it away"):
        read_results(path)


def test_further_keys_of_a_result_are_kept(tmp_path: Path) -> None:
    result = {
        "metrics": [{"key": "a", "value": 1, "detail": {"b": [1]}}],
        "time": "now",
        "fake": {},
    }
    (tmp_path / "a.json").write_text(
        json.dumps([result, {"metrics": [{"key": "b", "value": None}]}])
    )
    assert read_results(tmp_path / "a.json")[0] == result


@pytest.mark.parametrize("target", ["there", "new"])
def test_a_journal_is_no_way_to_another_file(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / target)
    with pytest.raises(InputError, match="log could not be written"):
        append_line(tmp_path / "log", "a line")
    assert (tmp_path / "there").read_text() == "mine" and not (tmp_path / "new").exists()


def test_a_journal_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(InputError, match="log could not be written"):
        append_line(tmp_path / "log", "a line")


def test_leftovers_of_processes_that_cannot_be(tmp_path: Path) -> None:
    path = temporary_path(tmp_path / "a.txt")
    found = path.with_name(path.name.replace(str(os.getpid()), "9" * 30))
    found.touch()
    remove_leftovers(tmp_path)
    assert not found.exists()
