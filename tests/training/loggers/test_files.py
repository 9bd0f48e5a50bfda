"""metrics.jsonl is the source of truth, and TensorBoard reads the same."""

import json
from pathlib import Path

import pytest

from gan_lab.training.loggers.files import JsonLines, read_metrics


def test_rewind_forgets_what_lies_after(tmp_path: Path) -> None:
    logger = JsonLines(run_dir=tmp_path)
    for kimg in (1.0, 2.0, 2.0, 3.0):
        logger.log_metrics({"kimg": kimg, "x": kimg})
    logger.rewind(2.0)
    assert [entry["kimg"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0, 2.0]


def test_a_last_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kimg": 1.0}\n{"kimg": 2.')
    assert read_metrics(path) == [{"kimg": 1.0}]
    JsonLines(run_dir=tmp_path).rewind(5)
    assert path.read_text() == '{"kimg": 1.0}\n'
    path.write_text('{"kimg": 2.\n{"kimg": 1.0}\n')
    with pytest.raises(json.JSONDecodeError):
        read_metrics(path)
