"""A run folder belongs to one living process, which is named to the next."""

import json
import multiprocessing
import os
import socket
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from gan_lab.errors import InputError
from gan_lab.run import HOLDER_FILE, living_holder, locked, noted_holder

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
    assert holder is not None and holder.pid == child.pid, "the refused one did not touch the note"
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
def test_a_broken_note_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / HOLDER_FILE).write_text(text)
    assert noted_holder(tmp_path) is None


def test_of_another_machine_nothing_is_known(tmp_path: Path) -> None:
    note = {"pid": os.getpid(), "host": "elsewhere", "since": "2026-01-01 00:00:00 +0000"}
    (tmp_path / HOLDER_FILE).write_text(json.dumps(note))
    assert noted_holder(tmp_path) is not None
    assert living_holder(tmp_path) is None
