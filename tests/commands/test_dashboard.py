"""gan-lab dashboard: the workspace as sent to a mock W&B server."""

import json
from pathlib import Path
from typing import Any

import pytest

from gan_lab.commands.dashboard import workspace
from gan_lab.commands.launch import launch
from tests.helpers.wandb_server import Server, online

__all__ = ["online"]


def panels_of(made: Any) -> dict[str, list[dict[str, Any]]]:
    """The panels of each section as W&B gets them."""
    spec = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_it_shows_curves_grids_and_the_best() -> None:
    made = workspace(
        entity="me", project="p", name="n", metrics=["fid10k", "is10k"], sweep="widths"
    )
    found = panels_of(made)
    assert list(found) == ["Best metrics", "Over kimg", "Over wall time", "Grids", "Health"]
    for section, axis in (("Over kimg", "kimg"), ("Over wall time", "time/total_s")):
        lines = [panel["config"] for panel in found[section]]
        assert {one["xAxis"] for one in lines} == {axis}
        names = [one["metrics"] for one in lines]
        assert names == [["metrics/fid10k"], ["metrics/is10k"], ["loss/d"], ["loss/g"]]
        assert [one["yLogScale"] for one in lines] == [True, False, False, False]
    assert "widths" in made.runset_settings.filters and "Group" in made.runset_settings.filters
    bars = [panel["config"]["metrics"] for panel in found["Best metrics"][:2]]
    assert bars == [["best/fid10k"], ["best/is10k"]]
    assert found["Best metrics"][2]["viewType"] == "Run Comparer"
    (grids,) = found["Grids"]
    assert grids["viewType"] == "Media Browser" and grids["config"]["mediaKeys"] == ["samples"]


@pytest.mark.parametrize(("metric", "ascending"), [("fid10k", True), ("is10k", False)])
def test_the_best_run_comes_first(metric: str, ascending: bool) -> None:
    made = workspace(entity="me", project="p", name="n", metrics=[metric], sweep=None)
    spec = json.loads(made._to_model().spec.model_dump_json(by_alias=True))
    (runs,) = spec["section"]["runSets"]
    (sort,) = runs["sort"]["keys"]
    assert sort["key"] == {"section": "summary", "name": f"best/{metric}"}
    assert sort["ascending"] is ascending
    assert f"summary:best/{metric}_kimg" in made.runset_settings.pinned_columns


def test_it_is_made_for_the_metrics_that_the_runs_have(
    online: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    online.summaries = [
        {"metrics/accuracy_digits": 0.9, "loss/d": 1.0},
        {"metrics/fd_digits": 2.0, "metrics/fd_digits_real": 0.3, "best/fd_digits": 1.0},
    ]
    assert launch("dashboard", ["project=p", "name=Mine"]) == 0
    (view,) = [a["variables"] for a in online.requests if "upsertView" in a["query"]]
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "p", "Mine")
    assert "metrics/fd_digits" in view["spec"] and "metrics/accuracy_digits" in view["spec"]
    assert "fd_digits_real" not in view["spec"]
    assert view["spec"].index("best/fd_digits") < view["spec"].index("best/accuracy_digits")
    assert f"127.0.0.1:{online.server_port}/me/p?nw=" in capsys.readouterr().out.replace("\n", "")


def test_a_project_without_metrics(online: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("dashboard", ["project=p"]) == 2
    assert "the runs of me/p have no metrics yet" in capsys.readouterr().err


def test_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert launch("dashboard", []) == 2
    err = capsys.readouterr().err
    assert "wandb login" in err and "gan-lab compare runs/*" in err


def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gan_lab.commands.dashboard.find_spec", lambda name: None)
    assert launch("dashboard", []) == 2
    assert "pip install 'gan-laboratory[dashboard]'" in capsys.readouterr().err


@pytest.mark.slow  # W&B tries for 20 seconds
def test_where_w_and_b_cannot_be_reached(
    online: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "1")
    online.stop()
    assert launch("dashboard", ["project=p", "entity=me", "metric_keys=[fid10k]"]) == 2
    assert "W&B did not make the workspace me/p" in capsys.readouterr().err
