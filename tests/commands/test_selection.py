from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from gan_lab.commands.options import parse_classes, parse_labels
from gan_lab.errors import InputError


def gan(names: list[str]) -> Any:
    return SimpleNamespace(
        class_names=names,
        num_classes=len(names),
        attributes=(),
        spec=SimpleNamespace(attributes=()),
    )


@pytest.mark.parametrize(
    ("given", "names", "classes"),
    [
        (1, ["cat", "dog"], [1]),
        ("dog", ["cat", "dog"], [1]),
        ("1", ["1", "2", "10"], [0]),
        (1, ["1", "2", "10"], [0]),
        ([10, 0, 2], ["1", "2", "10"], [2, 0, 1]),
        (2, ["0", "7", "2000"], [2]),
        ("all", ["a", "b"], [0, 1]),
    ],
)
def test_a_name_wins_over_a_number(given: object, names: list[str], classes: list[int]) -> None:
    assert parse_classes(given, gan(names)) == classes


def test_the_log_says_when_both_are_possible(capsys: pytest.CaptureFixture[str]) -> None:
    parse_classes([10, "2"], gan(["1", "2", "10"]))
    assert capsys.readouterr().out == "", "10 is not a number of a class, and '2' is not a number"
    parse_classes(2, gan(["1", "2", "10"]))
    assert "the class named 2, which is number 1, and not number 2" in capsys.readouterr().out


@pytest.mark.parametrize("given", [5, -1, "cow", True])
def test_what_is_neither_is_rejected(given: object) -> None:
    with pytest.raises(InputError, match=r"classes.*there are 3, 0 to 2"):
        parse_classes(given, gan(["1", "2", "10"]))


def faces() -> Any:
    return SimpleNamespace(num_classes=2, attributes=("smile", "age"))


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("null", None),
        ("{smile: 1}", [{"smile": 1}]),
        ("[1,0.3]", [{"smile": 1, "age": 0.3}]),
        ("[{smile: 0},{smile: 1,age: 0.5}]", [{"smile": 0}, {"smile": 1, "age": 0.5}]),
        ("[[0,1],{age: 2}]", [{"smile": 0, "age": 1}, {"age": 2}]),
    ],
)
def test_labels_by_name_or_in_order(typed: str, expected: Any) -> None:
    assert parse_labels(OmegaConf.create(f"labels: {typed}").labels, faces()) == expected


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("{smil: 1}", "smil is not an attribute; .*smile, age"),
        ("[1,2,3]", "must be 2 numbers, of smile, age"),
        ("0.5", "must be 2 numbers"),
        ("{age: .inf}", "age must be a finite number"),
    ],
)
def test_labels_unknown(typed: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_labels(OmegaConf.create(f"labels: {typed}").labels, faces())


def test_attributes_and_classes_are_not_confused() -> None:
    with pytest.raises(InputError, match="leave classes= out"):
        parse_classes(1, SimpleNamespace(spec=faces(), **vars(faces())))
    with pytest.raises(InputError, match="set classes="):
        parse_labels(0.5, gan(["cat", "dog"]))
    with pytest.raises(InputError, match="no labels"):
        parse_labels(0.5, gan([]))
