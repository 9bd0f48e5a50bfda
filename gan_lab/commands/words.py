"""Words of the command line, as Hydra takes them."""

import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from gan_lab.cli import quoted

FLAGS_WITH_VALUE = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    *("--package", "-p", "--cfg", "-c", "--experimental-rerun"),
)
# the beginnings of lists, dictionaries, what is quoted and functions, which are meant to be read
MEANT = re.compile(r"[\[{'\"]|\w+\(")


def flags_last(words: list[str]) -> list[str]:
    """Put Hydra's flags behind the overrides: it takes no override behind a flag."""
    flags, overrides, rest = [], [], iter(words)
    for word in rest:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in FLAGS_WITH_VALUE:
            flags += [value for value in (next(rest, None),) if value is not None]
    return overrides + flags


def readable(words: list[str]) -> list[str]:
    """Put values in quotes that Hydra's grammar has no place for, such as `data.root=~/Bilder/été (1)`.

    A shell expands no `~` behind `data.root=`, so it is expanded here.

    Args:
        words: overrides, and flags behind them.
    """
    parse = OverridesParser.create().parse_override
    overrides = list(takewhile(lambda word: not word.startswith("-"), words))
    return [*(as_text(word, parse) for word in overrides), *words[len(overrides) :]]


def as_text(word: str, parse: Callable[[str], object]) -> str:
    """Return an override with its value in quotes, if it can be read with them only."""
    try:
        parse(word)
    except HydraException:
        key, equals, value = word.partition("=")
        if not equals or MEANT.match(value):
            return word
        if re.match(r"~(/|$)", value):
            value = str(Path(value).expanduser())
        return f"{key}={quoted(value)}"
    return word
