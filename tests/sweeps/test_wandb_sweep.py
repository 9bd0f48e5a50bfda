"""conf/wandb_sweep.yaml, read and expanded by W&B's own code, is a command that trains."""

import json
from pathlib import Path
from typing import Any

import pytest
from wandb.sdk.launch.sweeps.utils import (
    create_sweep_command,
    create_sweep_command_args,
    load_sweep_config,
)

from gan_lab.cli import main
from gan_lab.config import conf_dir
from gan_lab.metrics.base import direction


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    found = load_sweep_config(str(conf_dir() / "wandb_sweep.yaml"))
    assert found is not None
    return found


def chosen(parameters: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return one value of each, as an agent is output them."""
    return {
        key: {
            "value": p["value"] if "value" in p else p["values"][-1] if "values" in p else p["min"]
        }
        for key, p in parameters.items()
    }


def expanded(config: dict[str, Any]) -> list[str]:
    """Return the command as `wandb agent` makes it (wandb_agent.py, Agent._command_run)."""
    arguments = create_sweep_command_args({"args": chosen(config["parameters"])})
    command: list[str] = []
    for word in create_sweep_command(list(config["command"])):
        command += arguments.get(word[2:-1], []) if word.startswith("${") else [word]
    return command


def test_it_asks_for_what_a_run_reports(config: dict[str, Any]) -> None:
    key = config["metric"]["name"].removeprefix("best/")
    goal = {"min": "minimize", "max": "maximize"}
    assert config["metric"]["goal"] == goal[direction(key) or ""]
    assert config["method"] in ("grid", "random", "bayes") and config["run_cap"] > 1
    for parameter in config["parameters"].values():
        low, high = (parameter.get(end) for end in ("min", "max"))
        assert (low is None) == (high is None) and (low is None or 0 < low < high)


def test_every_parameter_is_one_of_train(
    config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command = expanded(config)
    assert command[:2] == ["gan-lab", "train"]
    with pytest.raises(SystemExit) as caught:
        main([*command[1:], "--cfg", "job", "--resolve"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "name: quickstart_" in out and "sweep: wandb" in out and "lr: 0.0001" in out


@pytest.mark.slow
def test_it_trains(config: dict[str, Any], tmp_path: Path) -> None:
    short = ["total_kimg=0.064", "metrics.num_fake=400", "callbacks.samples.every_kimg=1"]
    with pytest.raises(SystemExit) as caught:
        main([*expanded(config)[1:], *short, f"runs_dir={tmp_path}"])
    assert caught.value.code == 0
    (run,) = (tmp_path / "wandb").iterdir()
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["kimg"] == 0.064 and (run / "wandb").is_dir()
