"""The command line of a sweep, and its name."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import takewhile

from hydra.core.override_parser.overrides_parser import OverridesParser

from gan_lab.config import run_name
from gan_lab.errors import InputError
from gan_lab.sweeps.text import as_override


def asked_for(command: str, words: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep.

    Raises:
        InputError: for one that only says how a sweep's runs are started.
    """
    several = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(words)
    for word in words:
        if word.startswith(("hydra/launcher=", "hydra/sweeper=")) and not several:
            raise InputError(f"{word} is for sweeps: add -m, which a single run takes as well")
    return command == "train" and several


def named(words: Sequence[str]) -> list[str]:
    """Return the words of a sweep with overrides that say where it is and what tells its runs apart.

    The sweep is named by what was asked for, swept keys included, so that the same command finds it again.

    Args:
        words: overrides, and flags behind them.

    Raises:
        InputError: for a launcher whose package is not installed.
    """
    check_installed(words)
    overrides = list(takewhile(lambda word: not word.startswith("-"), words))
    parsed = OverridesParser.create().parse_overrides(overrides)
    given = {override.key_or_group for override in parsed}
    swept = [o for o in parsed if o.is_sweep_override() and not o.is_hydra_override()]
    keys = [override.get_key_element().lstrip("+") for override in swept]
    added = [swept_override(keys)]
    if "runs_dir" not in given:
        added.append("runs_dir=multirun")
    if "sweep" not in given:
        added.append(f"sweep={as_override(sweep_name(overrides, keys))}")
    return [*overrides, *added, *words[len(overrides) :]]


def check_installed(words: Sequence[str]) -> None:
    """Refuse a launcher that a package brings, where that is not installed: Hydra would know of no such launcher.

    Raises:
        InputError: saying how to install it.
    """
    if (
        "hydra/launcher=joblib" in words
        and find_spec("hydra_plugins.hydra_joblib_launcher") is None
    ):
        raise InputError(
            "hydra/launcher=joblib needs hydra-joblib-launcher; pip install 'gan_lab[sweeps]'"
        )


def swept_override(keys: Sequence[str]) -> str:
    """Return the override that says what tells the runs of a sweep apart."""
    return f"swept=[{','.join(as_override(key) for key in keys)}]"


def sweep_name(overrides: Sequence[str], keys: Sequence[str]) -> str:
    """Name a sweep by what is named of a run, and by the swept keys that are not."""
    apart = [word for word in overrides if word.lstrip("+~").partition("=")[0] in keys]
    rest = [word for word in overrides if word not in apart]
    names = [run_name(words, swept) for words, swept in ((rest, ()), (apart, keys)) if words]
    return "_".join(name for name in names if name != "default") or "default"
