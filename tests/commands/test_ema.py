"""gan-lab ema: a table over lengths, and results beside those of evaluate."""

import json
from pathlib import Path

import pytest

from gan_lab.commands.launch import launch
from tests.commands.conftest import TINY, Train


def test_a_table_of_lengths(
    train: Train, own_cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = train(
        "callbacks=[default,post_hoc_ema]", "callbacks.post_hoc_ema.every_kimg=0.05", base=TINY
    )
    capsys.readouterr()
    overrides = [f"run={run}", "device=cpu", "checkpoint=last"]
    assert launch("ema", [*overrides, "lengths=[0.05,0.1]"]) == 0
    out = capsys.readouterr().out
    results = json.loads((run / "evaluation.json").read_text())
    assert [one["fake"]["weights"] for one in results] == [
        "ema",
        "ema of length 0.05",
        "ema of length 0.1",
    ]
    values = [one["metrics"][0]["value"] for one in results]
    assert len(set(values)) == 3
    assert f"best fd_digits: {min(values):.4g}" in out
    # the same of evaluate, and images of that average
    assert launch("evaluate", [*overrides, "ema=0.1", f"out={tmp_path}/one.json"]) == 0
    (one,) = json.loads((tmp_path / "one.json").read_text())
    assert one["metrics"][0]["value"] == pytest.approx(values[2], rel=1e-6)
    assert launch("generate", [*overrides, "ema=0.1", "num_images=1", "format=png"]) == 0
    assert any("ema0.1" in str(path) for path in (run / "generated").iterdir())
    assert launch("ema", [*overrides, "lengths=[0.5]"]) == 2
    assert "lengths" in capsys.readouterr().err
