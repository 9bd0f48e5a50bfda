"""The best checkpoint is that of the whole run, also after stops; the cost of evaluations is logged."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.metrics.base import NoMetrics
from gan_lab.training.callbacks.evaluation import Evaluation
from tests.commands.conftest import TINY


def test_a_resumed_run_with_auto_metrics_remembers_its_best(tmp_path: Path) -> None:
    overrides = [*TINY, "callbacks.evaluation.every_kimg=0.1", f"runs_dir={tmp_path}", "name=run"]
    assert launch("train", [*overrides, "total_kimg=0.2"]) == 0
    folder = tmp_path / "run" / "checkpoints"
    state = torch.load(folder / "last.ckpt", weights_only=True)
    state["callbacks"]["Checkpointing"]["best_value"] = 0.0  # which nothing can better
    torch.save(state, folder / "last.ckpt")
    best = torch.load(folder / "best.ckpt", weights_only=True)["clock"]["images_seen"]
    assert launch("train", [*overrides, "total_kimg=0.4"]) == 0
    assert torch.load(folder / "best.ckpt", weights_only=True)["clock"]["images_seen"] == best
    ended = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]["Checkpointing"]
    assert (ended["best_key"], ended["best_value"]) == ("metrics/fd_digits", 0.0)


def test_the_share_of_time_is_logged(tmp_path: Path) -> None:
    overrides = [*TINY, "callbacks.evaluation.every_kimg=0.1", f"runs_dir={tmp_path}", "name=run"]
    assert launch("train", [*overrides, "total_kimg=0.2"]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if "metrics/fd_digits" in entry]
    assert len(entries) == 2
    for entry in entries:
        assert 0 < entry["time/evaluation_share"] < 1 and entry["time/evaluation_s"] > 0


class Measured:
    """Metrics of a feature network."""

    best = None
    mode = "min"

    def __init__(self, extractor: str) -> None:
        self.provenance = {"extractor": extractor}


def test_fid_is_warned_of_where_d_sees_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for extractor, learned in (
        ("inception-v3-compat", None),
        ("digits classifier", "ImageNet"),
        ("inception-v3-compat", "ImageNet"),
        ("inception-v3-compat", "LVD-142M"),
        ("dinov2-vit-l-14", "LVD-142M"),
    ):
        evaluation = Evaluation(metrics=Measured(extractor), every_kimg=1)  # type: ignore[arg-type]
        assert evaluation._unbiased_metrics(learned, None) is None  # type: ignore[arg-type]
        warned = "".join(capsys.readouterr())
        both = learned == "ImageNet" and extractor.startswith("inception")
        assert ("prefetch features=dinov2" in warned) == both
        itself = learned == "LVD-142M" and extractor.startswith("dinov2")
        assert ("features=inception" in warned) == itself


@pytest.mark.parametrize(
    ("objective", "wrong"),
    [
        (None, False),
        ("metrics/fd", False),
        ("loss/d", False),
        ("metrics/fid", True),
        ("metrics/", True),
        ("metrics/fdd", True),
    ],
)
def test_an_objective_is_among_the_metrics(objective: str | None, wrong: bool) -> None:
    callback = Evaluation(metrics=NoMetrics(), every_kimg=1, objective=objective)
    callback.values = {"metrics/fd": 1.0, "metrics/accuracy": 0.5}
    with pytest.raises(InputError, match="metrics/fd") if wrong else nullcontext():
        callback._check_objective()
