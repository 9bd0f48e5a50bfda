"""Anything that ends a run early: progress is saved where possible, and one line says what happened."""

import ctypes
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lab.cli import main
from gan_lab.errors import InputError, interrupted
from gan_lab.training.callbacks.checkpointing import Checkpointing
from tests.commands.conftest import ELSE
from tests.helpers.checkpoints import final

FORK = multiprocessing.get_context("fork")
LONG = "total_kimg=1000"


def be_a_run(overrides: list[str], log: Path, prepare: Callable[[], object] | None) -> None:
    """Train as started by a shell, with output to a file."""
    file = log.open("w", buffering=1)
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    sys.stdout = sys.stderr = file
    if prepare is not None:
        prepare()
    main(["train", *overrides])


def start(
    root: Path, *overrides: str, prepare: Callable[[], object] | None = None
) -> multiprocessing.Process:
    given = [*ELSE, LONG, f"runs_dir={root}", "name=run", *overrides]
    child = FORK.Process(target=be_a_run, args=(given, root / "log", prepare))
    child.start()
    wait_for(lambda: "kimg  " in (root / "log").read_text() if (root / "log").exists() else False)
    return child


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def send(child: multiprocessing.Process, number: int) -> None:
    assert child.pid is not None
    os.kill(child.pid, number)


def end(child: multiprocessing.Process, root: Path) -> tuple[int | None, str]:
    """Return the exit status and what was printed since the last progress."""
    child.join(120)
    alive = child.is_alive()
    child.kill()
    assert not alive
    text = (root / "log").read_text()
    assert "Traceback" not in text, text[-5000:]
    assert text.count("gan-lab: error:") <= 1
    return child.exitcode, text.rpartition("min left\n")[2].strip()


def never_done() -> None:
    """Make the step of the first signal never end."""

    def wait(self: Checkpointing, *_: object) -> None:
        while self._signal is not None:
            print("waits", flush=True)
            time.sleep(0.1)

    Checkpointing.on_train_batch_end = wait  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(number: int, tmp_path: Path) -> None:
    child = start(tmp_path, prepare=never_done)
    send(child, signal.SIGINT)
    wait_for(lambda: "waits" in (tmp_path / "log").read_text())
    send(child, number)
    status, _ = end(child, tmp_path)
    assert status == 128 + number


def test_a_terminal_that_closes_saves(tmp_path: Path) -> None:
    # whoever runs the tests may itself be under nohup
    child = start(tmp_path, prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
    send(child, signal.SIGHUP)
    send(child, signal.SIGHUP)
    status, _ = end(child, tmp_path)
    assert status == 128 + signal.SIGHUP
    assert "SIGHUP" in (tmp_path / "log").read_text()
    assert final(tmp_path / "run")["clock"]["images_seen"] > 0  # type: ignore[index]


def test_nohup_is_heeded(tmp_path: Path) -> None:
    child = start(tmp_path, prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    send(child, signal.SIGHUP)
    size = len((tmp_path / "log").read_text())
    wait_for(lambda: len((tmp_path / "log").read_text()) > size)
    send(child, signal.SIGTERM)
    status, _ = end(child, tmp_path)
    assert status == 128 + signal.SIGTERM
    assert "SIGTERM" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("gone", [shutil.rmtree, lambda path: path.rename(f"{path}_moved")])
def test_a_run_folder_that_goes(gone: Callable[[Path], object], tmp_path: Path) -> None:
    child = start(tmp_path, "callbacks.checkpointing.every_kimg=0.5")
    run = tmp_path / "run"
    for _ in range(10):  # it may write while its folder is emptied
        try:
            gone(run)
            break
        except OSError:
            continue
    status, said = end(child, tmp_path)
    assert status == 2 and str(run) in said, said


def photos(root: Path) -> list[str]:
    (root / "photos").mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{i}.png")
    return ["data=image_folder", f"data.root={root}/photos", "data.image_size=8"]


def children(pid: int | None) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found]


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    child = start(tmp_path, *photos(tmp_path), "num_workers=2")
    workers = children(child.pid)
    assert len(workers) >= 2
    os.kill(workers[-1], signal.SIGKILL)
    status, said = end(child, tmp_path)
    assert status == 2 and "num_workers=0" in said and "reads samples" in said, said


def small_shared_memory() -> None:
    """Give this process alone a /dev/shm of 1 MB, as a container may have a small one."""
    system = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, megabyte = 0x20000, 0x4000 | 0x40000, b"size=1m"
    failed = (
        system.unshare(new_namespace)
        or system.mount(b"none", b"/", None, private, None)
        or system.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, megabyte)
    )
    if failed:
        os._exit(CANNOT)


CANNOT = 77


def trained_in_little(root: Path, *overrides: str) -> tuple[int | None, str]:
    """Train 20 steps of images of 64 x 64 in 1 MB of shared memory: a batch of 16 takes 0.2 MB."""
    given = [*ELSE, "total_kimg=0.32", f"runs_dir={root}", "name=run", *photos(root)]
    given += ["data.image_size=64", *overrides]
    child = FORK.Process(target=be_a_run, args=(given, root / "log", small_shared_memory))
    child.start()
    child.join(300)
    alive = child.is_alive()
    child.kill()
    assert not alive, "it waits for ever"
    if child.exitcode == CANNOT:
        pytest.skip("a mount of one's own needs root, or user namespaces")
    said = (root / "log").read_text()
    assert "Traceback" not in said
    return child.exitcode, said


def test_a_small_shared_memory(tmp_path: Path) -> None:
    status, said = trained_in_little(tmp_path, "num_workers=2")
    assert status == 2 and "set num_workers=1, or " in said and "--shm-size=" in said, said


@pytest.mark.parametrize(("overrides", "warns"), [(["num_workers=1"], False), ([], True)])
def test_in_a_small_shared_memory_it_trains_with_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], warns: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    status, said = trained_in_little(tmp_path, *overrides)
    assert status == 0, said
    assert ("1 processes read samples, not 4" in said) is warns


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_rank_that_is_killed(index: int, tmp_path: Path) -> None:
    child = start(tmp_path, "trainer=cpu", "trainer.devices=2", "batch_size=16")
    ranks = [
        pid
        for pid in children(child.pid)
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(ranks) == 2
    os.kill(ranks[index], signal.SIGKILL)
    status, said = end(child, tmp_path)
    assert status == 2 and f"process {index} of 2 was killed by SIGKILL" in said, said


@pytest.mark.parametrize("error", [RuntimeError("initialization failed"), InputError("nonsense")])
def test_what_a_library_makes_of_a_ctrl_c_is_not_reported(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr("gan_lab.commands.keys.check", check)
    try:
        with pytest.raises(SystemExit) as end:
            main(["train", *ELSE])
    finally:
        interrupted.clear()
    assert end.value.code == 130 and not capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ctrl_c_while_a_command_starts(tmp_path: Path) -> None:
    for share in range(12):
        overrides = [*ELSE, LONG, f"runs_dir={tmp_path}/runs", f"name=r{share}"]
        child = subprocess.Popen(
            [sys.executable, "-m", "gan_lab", "train", *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.3 + share * 0.5)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=120)
        assert (child.returncode, err) == (130, ""), share
