"""metrics.jsonl is the source of truth, and TensorBoard reads the same."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gan_lab.errors import InputError
from gan_lab.training.loggers.files import DAMAGED_FILE, STOPPED, JsonLogger, read_metrics


def test_rewind_removes_later_entries(tmp_path: Path) -> None:
    logger = JsonLogger(run_dir=tmp_path)
    for kimg in (1.0, 2.0, 2.0, 3.0):
        logger.log_metrics({"kimg": kimg, "x": kimg})
    logger.rewind(2.0)
    assert [entry["kimg"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0, 2.0]


def test_a_last_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kimg": 1.0}\n{"kimg": 2.')
    assert read_metrics(path) == [{"kimg": 1.0}]
    JsonLogger(run_dir=tmp_path).rewind(5)
    assert path.read_text() == '{"kimg": 1.0}\n'


@pytest.mark.parametrize(
    "line",
    [
        b'{"kimg": 2.',
        b'{"kimg": 2.0, "x": "\xff"}',
        b"\x00\x00\x00",
        b"",
        b"[1]",
        b"5",
        b'{"x": 1}',
        b'{"kimg": "2"}',
        b'{"kimg": NaN}',
        b'{"kimg": ' + b"9" * 5000 + b"}",
        b'{"kimg": ' + b"9" * 400 + b"}",
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_is_reported_skipped_and_kept_in_another_file(
    tmp_path: Path, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    damaged = b'{"kimg": 1.0}\n' + line + b'\n{"kimg": 3.0}\n'
    path.write_bytes(damaged)
    assert read_metrics(path) == [{"kimg": 1.0}, {"kimg": 3.0}]
    said = capsys.readouterr().out.replace("\n", "")
    assert "metrics.jsonl is damaged in line 2" in said
    JsonLogger(run_dir=tmp_path).rewind(5)
    assert path.read_text() == '{"kimg": 1.0}\n{"kimg": 3.0}\n'
    assert (tmp_path / DAMAGED_FILE).read_bytes() == damaged


def test_the_entry_of_a_stop_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    logger = JsonLogger(run_dir=tmp_path)
    logger.log_metrics({"kimg": 1.0})
    logger.log_metrics({"kimg": 1.5, STOPPED: 15.0})
    logger.rewind(1.5)
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"kimg": 1.0}]


def test_what_an_editor_puts_before_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'\xef\xbb\xbf{"kimg": 1.0}\r\n{"kimg": 2.0}\r\n')
    assert [entry["kimg"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0]


@pytest.mark.parametrize("what", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path.name)])
def test_what_is_not_a_file_is_named(tmp_path: Path, what: Callable[[Path], object]) -> None:
    what(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_only_numbers_of_an_entry_are_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"kimg": 1, "a": 2.5, "b": NaN, "text": "x", "list": [1], "nothing": null, "yes": true, '
        f'"large": {10**400}, "\\ud800": 1, "\\u001b[2J": 1, "deep": {{"a": 1}}}}\n'
        '{"kimg": true}\n{"kimg": "2"}\n{"kimg": null}\n'
    )
    (entry,) = read_metrics(tmp_path / "metrics.jsonl")
    assert entry.pop("b") != 0 and entry == {"kimg": 1, "a": 2.5}
