"""Command lines over all keys of all commands: each gives the configuration it states, or a one-line error."""

from typing import Any

import pytest
from omegaconf import DictConfig

from gan_lab.cli import COMMANDS
from gan_lab.commands import keys
from gan_lab.commands.launch import known_keys, launch
from gan_lab.config import flatten, to_containers
from gan_lab.errors import InputError
from tests.helpers.command_lines import keys_of, lines


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collects the configurations that would be run."""
    found: list[dict[str, Any]] = []
    check = keys.check

    def only(command: str, config: DictConfig) -> None:
        check(command, config)
        found.append(to_containers(config))
        raise InputError("checked")

    monkeypatch.setattr(keys, "check", only)
    return found


def finite(value: Any) -> bool:
    """Whether no number of a configuration is NaN or infinite."""
    numbers = [one for one in flatten(value).values() if isinstance(one, float)]
    return all(abs(one) < float("inf") for one in numbers)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("number", "seed"), [(40, 0), pytest.param(1000, 1, marks=pytest.mark.slow)]
)
def test_no_command_line_ends_in_a_traceback(
    number: int, seed: int, checked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    for args in lines(number, seed):
        before = len(checked)
        assert launch(args[0], args[1:]) == 2, args
        err = capsys.readouterr().err.strip()
        assert err.startswith("gan-lab: error: ") and "Error executing" not in err, args
        if len(checked) > before:
            assert finite(checked[-1]), args
        else:
            typed = [word.partition("=")[0].split(".")[-1] for word in args[1:]]
            assert any(name in err for name in typed), (args, err)


@pytest.mark.parametrize(
    ("args", "key", "value"),
    [
        (["train", "name=1"], "name", "1"),
        (["train", "name=20261128"], "name", "20261128"),
        (["train", "name=007"], "name", "007"),
        (["train", "name=true"], "name", "true"),
        (["train", "name=CON"], "name", "CON"),
        (["train", "name=f\u0430ces"], "name", "f\u0430ces"),  # Cyrillic
        (["train", "callbacks.samples=null"], "callbacks.samples", None),
        (["generate", "run=5", "out=9"], "run", "5"),
        (["generate", "run=5", "out=1e3"], "out", "1e3"),
        (["train", "data=image_folder", "data.root=2024"], "data.root", "2024"),
        (["evaluate", "fake=5", "real=1_0", "protocol=kid5k"], "real", "1_0"),
        (["train", "model=stylegan2", "model.generator.num_fp16_res=4"], "model.generator.num_fp16_res", 4),
        (["train", "model.ema.half_life_kimg=7"], "model.ema.half_life_kimg", 7),
        (["train", "model.generator_optimizer.weight_decay=0.5"], "model.generator_optimizer.weight_decay", 0.5),
    ],
)  # fmt: skip
def test_text_keys_keep_what_was_typed(
    args: list[str], key: str, value: object, checked: list[dict[str, Any]]
) -> None:
    assert launch(args[0], args[1:]) == 2
    assert flatten(checked[0])[key] == value


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["train", "callbacks.checkpointing.every_kimg=nan"], ["callbacks.checkpointing.every_kimg=nan", "finite"]),
        (["train", "callbacks.samples.every_kimg=inf"], ["every_kimg=inf", "finite"]),
        (["generate", "run=x", "seed=abc"], ["seed='abc'", "from 0 to 4294967295"]),
        (["generate", "run=x", "checkpoint=1"], ["checkpoint=1", "best, last, previous"]),
        (["train", "threads=-1"], ["threads=-1", "from 1 to 1024"]),
        (["generate", "run=x", "trust=1"], ["trust=1", "a list"]),
        (["generate", "run=x", "device=[]"], ["device=[]", "a text"]),
        (["train", "logger=-1"], ["logger/-1", "tensorboard"]),
        (["train", "data=null"], ["data/null", "image_folder"]),
        (["train", "regularizer=[r1]", "regularizer.r1.interval=1.5"], ["regularizer.r1.interval=1.5", "whole"]),
        (["train", "conditional='<b>'"], ["conditional='<b>'", "true or false"]),
        (["train", "data.flip=nan"], ["data.flip=nan", "true or false"]),
        (["export", "run=x", "overwrite=[[1],[2]]"], ["overwrite=[[1], [2]]", "true or false"]),
        (["train", "name=."], ["name='.'", "a folder"]),
        (["train", "name=' '"], ["name=' '", "a folder"]),
        (["train", "name='faces '"], ["name='faces '", "a folder"]),
        (["train", "name=a\u200bb"], ["name='a\\u200bb'", "a folder"]),
        (["train", "name=a\u202eb"], ["name='a\\u202eb'", "a folder"]),
        (["train", "sweep=../../x"], ["sweep='../../x'", "a folder"]),
        (["train", "batch_size=1000000"], ["batch_size=1000000", "to 65536"]),
        (["train", "model.generator.widht=4"], ["model.generator.widht=4", "did you mean width"]),
        (["train", "model.generatr.width=4"], ["model.generatr=", "did you mean generator"]),
        (["train", "callbacks.evalution.every_kimg=4"], ["callbacks.evalution=", "did you mean evaluation"]),
        (["project", "run=x", "tune.stepz=4"], ["tune.stepz=4", "did you mean steps"]),
        (["generate", "run=x", "+sead=4"], ["sead=4", "did you mean seed"]),
        (["generate", "run=x", "format=jpg"], ["format='jpg'", "jpeg"]),
        (["evaluate", "run=x", "data=zip"], ["data=", "data.root="]),
        (["generate"], ["run= is missing"]),
    ],
)  # fmt: skip
def test_invalid_values_are_reported_with_key_value_and_what_is_allowed(
    args: list[str],
    parts: list[str],
    checked: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert launch(args[0], args[1:]) == 2 and not checked
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(part in err for part in parts), err


def test_every_key_of_a_command_is_in_its_schema() -> None:
    for command in COMMANDS:
        module = command.replace("-", "_")
        roots = {key.split(".")[0] for key in keys_of(command)}
        chosen = {*keys.SINGLE, *keys.NAMED, "experiment", "protocol", "conditioning"}
        declared = set(keys.KEYS[module].model_fields)
        assert declared <= roots
        groups = {"hydra", *(key.split("/")[0] for key in known_keys(module) if "/" in key)}
        assert roots - declared <= chosen | groups
