"""Command lines over all keys of all commands, drawn at random."""

import random
from collections.abc import Iterator
from functools import cache

from gan_lab.cli import COMMANDS
from gan_lab.commands.launch import known_keys

OF_A_RUN = ("directions", "ema", "explore", "export", "generate", "interpolate", "mix", "project")
NEEDED = {**{name: ["run=x"] for name in OF_A_RUN}, "import-weights": ["path=x", "name=y"]}
VALUES = (
    *("1", "0", "-1", "5", "1.5", "1e400", "nan", "inf", "-inf", "1000000", "20261128", "007", "99999999999999999999"),
    *("true", "false", "null", "abc", "''", "'<b>'", ".", "..", "../../x", "/", "~", "é (1)", "a b", "'\x1b[1m'"),
    *("[]", "[1]", "[1,2]", "[[1],[2]]", "[a,b]", "[null]", "{}", "{a:1}", "{_target_:os.getcwd}", "{a:{b:[1]}}"),
    *("1,2", "[", "{", "a=b", "${x}", "${oc.env:HOME}", "???", "0-3", "auto", "best", "range(3)", "1_000", "0x10"),
)  # fmt: skip


@cache
def keys_of(command: str) -> tuple[str, ...]:
    """Every key of a command, groups and misspelled keys included; not the keys of Hydra itself."""
    known = [key for key in known_keys(command.replace("-", "_")) if "/" not in key]
    return tuple(key for key in known if not key.startswith("hydra"))


def lines(number: int, seed: int) -> Iterator[list[str]]:
    """Yield command lines."""
    draw = random.Random(seed)
    for _ in range(number):
        command = draw.choice([*COMMANDS, "train", "evaluate", "generate"])
        overrides = list(NEEDED.get(command, ()))
        for _ in range(draw.choice((1, 1, 2))):
            key = draw.choice(keys_of(command))
            if draw.random() < 0.1:
                key = f"{key}x"
            overrides.append(f"{key}={draw.choice(VALUES)}")
        yield [command, *overrides]
