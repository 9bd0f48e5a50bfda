"""Sweeps: many runs by one command line, each in its own process; sweepers and launchers as Hydra finds them."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import takewhile
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.utils import get_class

from gan_lab.config import run_name
from gan_lab.distributed import slurm
from gan_lab.errors import InputError

# names in conf/hydra -> classes, imported lazily: every command registers them
PLUGINS = {
    "hydra_plugins.gan_lab.Grid": "gan_lab.sweeps.sweep.GridSweep",
    "hydra_plugins.gan_lab.Optuna": "gan_lab.sweeps.trials.OptunaSweep",
    "hydra_plugins.gan_lab.Slurm": "gan_lab.sweeps.cluster.ClusterSweep",
}
# overrides -> the package that each needs
PACKAGES = {
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "hydra/sweeper=optuna": "optuna",
}


def register() -> None:
    """Register the plugins with Hydra, which only looks for them in a package named hydra_plugins."""
    known: dict[str, Any] = Plugins.instance().class_name_to_class
    known |= {name: partial(_plugin, target) for name, target in PLUGINS.items()}


def _plugin(target: str, /, **options: Any) -> Any:
    return get_class(target)(**options)


def is_sweep(command: str, args: Sequence[str]) -> bool:
    """Whether a command line is a sweep.

    Raises:
        InputError: for a launcher or sweeper without -m.
    """
    several = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(args)
    for arg in args:
        if arg.startswith(("hydra/launcher=", "hydra/sweeper=")) and not several:
            raise InputError(f"{arg} is for sweeps: add -m, which a single run takes as well")
    return command == "train" and several


def sweep_overrides(args: Sequence[str]) -> list[str]:
    """Add the sweep's folder and swept keys to a command line.

    The sweep is named by its overrides, swept keys included, so that the same command finds it again.

    Args:
        args: overrides, followed by flags.

    Raises:
        InputError: for a launcher whose package is not installed.
    """
    check_installed(args)
    overrides = list(takewhile(lambda arg: not arg.startswith("-"), args))
    parsed = OverridesParser.create().parse_overrides(overrides)
    given = {override.key_or_group for override in parsed}
    swept = [o for o in parsed if o.is_sweep_override() and not o.is_hydra_override()]
    keys = [override.get_key_element().lstrip("+") for override in swept]
    added = [swept_override(keys)]
    if "runs_dir" not in given:
        added.append("runs_dir=multirun")
    if "sweep" not in given:
        added.append(f"sweep={as_override(sweep_name(overrides, keys))}")
    return [*overrides, *added, *args[len(overrides) :]]


def check_installed(args: Sequence[str]) -> None:
    """Check that the packages of a sweeper or launcher are installed, and that SLURM is there.

    Raises:
        InputError: with what to install.
    """
    for override, package in PACKAGES.items():
        if override in args and find_spec(package) is None:
            raise InputError(f"{override} needs {package}; pip install 'gan-laboratory[sweeps]'")
    if "hydra/launcher=slurm" in args:
        slurm.check_cluster()


def swept_override(keys: Sequence[str]) -> str:
    """Return the override with the swept keys."""
    return f"swept_keys=[{','.join(as_override(key) for key in keys)}]"


def sweep_name(overrides: Sequence[str], keys: Sequence[str]) -> str:
    """Name a sweep by the overrides that name a run, and by other swept keys."""
    swept = [o for o in overrides if o.lstrip("+~").partition("=")[0] in keys]
    rest = [o for o in overrides if o not in swept]
    names = [run_name(some, names) for some, names in ((rest, ()), (swept, keys)) if some]
    return "_".join(name for name in names if name != "default") or "default"


def as_override(value: Any) -> str:
    """Format a value for an override."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(v)}" for key, v in value.items()) + "}"
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.single).with_quotes()
    if isinstance(value, Sequence):
        return "[" + ",".join(as_override(v) for v in value) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)
