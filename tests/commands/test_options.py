"""Every command chooses its device by the same key and the same function."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gan_lab.cli import COMMANDS
from gan_lab.commands import keys
from gan_lab.commands.launch import launch
from gan_lab.commands.options import pick_device
from gan_lab.config import conf_dir
from gan_lab.errors import InputError

# these compute nothing on a device, or on that of a trainer
WITHOUT = {"train", "bench", "dashboard", "import-weights", "prefetch"}


def test_every_command_has_the_key() -> None:
    lines = set()
    for command in COMMANDS:
        file = conf_dir() / f"{command.replace('-', '_')}.yaml"
        has = "device" in yaml.safe_load(file.read_text())
        assert has == (command not in WITHOUT), command
        assert has == ("device" in keys.KEYS[command.replace("-", "_")].model_fields), command
        lines |= {line for line in file.read_text().splitlines() if line.startswith("device:")}
    assert len(lines) == 1, "one sentence says the same everywhere"


def test_no_key_is_called_as_a_group() -> None:
    """Hydra would take its value for an option of the group."""
    groups = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    for command in COMMANDS:
        file = conf_dir() / f"{command.replace('-', '_')}.yaml"
        values = yaml.safe_load(file.read_text())
        chosen = {key for one in values["defaults"] if isinstance(one, dict) for key in one}
        same = {key for key in groups & values.keys() if not isinstance(values[key], dict)}
        assert same <= chosen, command


def test_nothing_else_chooses_a_device() -> None:
    """Commands name no kind of device, except in messages."""
    folder = Path(keys.__file__).parent
    for path in sorted(folder.glob("*.py")):
        if path.name in ("options.py", "bench.py", "dry_run.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("torch.device", "torch.cuda.is_available"), path.name
                assert not called.startswith("torch.accelerator"), path.name


def test_auto_is_the_accelerator_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    there: torch.device | None = torch.device("mps")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: there)
    assert pick_device("auto").type == "mps"
    there = None
    assert pick_device("auto").type == "cpu"
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["quantum", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match=rf"device={name} cannot be used here"):
        pick_device(name)


def test_training_says_where_its_device_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("train", ["device=cuda"]) == 2
    assert "trainer=cpu, gpu or mps" in capsys.readouterr().err


def test_the_trainer_of_apple_machines_composes(compose: Callable[..., Any]) -> None:
    trainer = compose("trainer=mps").trainer
    assert (trainer.accelerator, trainer.devices, trainer.precision) == ("mps", 1, "32-true")
