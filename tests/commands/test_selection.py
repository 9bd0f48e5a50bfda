from types import SimpleNamespace
from typing import Any

import pytest

from gan_lab.commands.options import parse_classes
from gan_lab.errors import InputError


def gan(names: list[str]) -> Any:
    return SimpleNamespace(
        class_names=names, num_classes=len(names), spec=SimpleNamespace(attributes=())
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


def test_the_log_says_when_both_could_be_meant(capsys: pytest.CaptureFixture[str]) -> None:
    parse_classes([10, "2"], gan(["1", "2", "10"]))
    assert capsys.readouterr().out == "", "10 is no number of a class, and '2' is no number"
    parse_classes(2, gan(["1", "2", "10"]))
    assert "the class named 2, which is number 1, and not number 2" in capsys.readouterr().out


@pytest.mark.parametrize("given", [5, -1, "cow", True])
def test_what_is_neither_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"classes.*there are 3, 0 to 2"):
        parse_classes(given, gan(["1", "2", "10"]))
