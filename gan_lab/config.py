"""From Hydra's configuration to objects: where conf/ is, what a run is called, what may be built, what changed."""

import hashlib
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from gan_lab.errors import InputError

# These say how, where and how long, not what is trained: they do not make another run.
NOT_IN_THE_NAME = (
    "name",
    "runs_dir",
    "total_kimg",
    "logger",
    "trainer",
    "callbacks",
    "metrics",
    "num_workers",
    "hydra",
    "threads",
    "compile",
    "dry_run",
    "new_data",
    "data_fingerprint",
    "sweep",
    "swept",
    "objective",
    "objective_mode",
)
CHOICES = ("experiment", "model", "data", "loss", "regularizer", "augment")
# of a file name there may be 255 bytes
LONGEST_NAME = 120


def conf_dir() -> Path:
    """Return the folder of configurations: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").exists():
            return folder
    raise InputError(f"no conf/ beside or in {package}; reinstall gan_lab")


def cache_dir() -> Path:
    """Return where statistics and small networks are kept between runs: GAN_LAB_CACHE, or the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("GAN_LAB_CACHE") or base / "gan_lab")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_name(overrides: Sequence[str], swept: Sequence[str] = ()) -> str:
    """Name a run by what was asked for, so that the same command finds its folder again and another one does not.

    `["model=dcgan", "loss=hinge", "model.generator.width=64"]` gives `dcgan_hinge_model.generator.width-64`. Of a long
    name the end gives way to a hash of the whole.

    Args:
        overrides: `key=value`, as on the command line.
        swept: keys that tell the runs of a sweep apart; the name is made of these alone then, whatever they are.
    """
    parts = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        unnamed = key.split(".")[0].split("/")[0] in NOT_IN_THE_NAME
        if key not in swept if swept else unnamed:
            continue
        value = re.sub(r"[^\w.,+-]+", "-", value).strip("-")
        parts.append(value if key in CHOICES else f"{key.replace('/', '.')}-{value}")
    name = "_".join(parts) or "default"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def register_resolvers() -> None:
    """Make `${run_name:keys}` and `${path:a,b}` available to configurations."""
    OmegaConf.register_new_resolver(
        "run_name",
        lambda swept=(): run_name(HydraConfig.get().overrides.task, swept),
        replace=True,
    )
    # a part that is null is left out
    OmegaConf.register_new_resolver(
        "path",
        lambda *parts: str(Path(*(str(part) for part in parts if part is not None))),
        replace=True,
    )


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a configuration node.

    Args:
        node: with `_target_`, or a mapping of such nodes.
        extra: further arguments of the target.

    Raises:
        InputError: one of a target as it is, not wrapped by Hydra; else what went wrong, of which key, and where.
    """
    try:
        return instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        chain: list[BaseException] = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        for cause in chain:
            if isinstance(cause, InputError):
                raise cause from None
        raise InputError(not_built(error, chain[-1])) from error


def not_built(error: InstantiationException, cause: BaseException) -> str:
    """Return what to tell of a configuration node that could not be built.

    Args:
        error: of Hydra, which names the target and, in its last line, the key.
        cause: what was behind it; `error` itself where nothing was.
    """
    if cause is error:
        return str(error)
    message, _, key = str(error).partition("\nfull_key: ")
    target = re.search(r"target '([^']*)'", message)
    named = " ".join(part for part in (key and f"{key}:", target and target[1]) if part)
    frames = traceback.extract_tb(cause.__traceback__)
    # what imports and calls is not to blame
    frame = next(
        (f for f in reversed(frames) if not re.search("importlib|hydra", f.filename)), None
    )
    where = f", {frame.filename}:{frame.lineno}" if frame else ""
    why = f"{type(cause).__name__}: {cause}{where}"
    if message.startswith("Error locating"):
        return (
            f"{named} cannot be imported ({why}); a class is named package.module.Class, and PYTHONPATH has to hold "
            "the folder that its package lies in"
        )
    return f"{named} cannot be built with these settings ({why})"


def check_targets(node: Any, *, trust: Sequence[str] = (), origin: Path) -> None:
    """Refuse a configuration from a file that names code outside gan_lab and the trusted packages.

    Building calls whatever `_target_` names, and a run folder may come from somebody else.

    Raises:
        InputError: naming the target.
    """
    allowed = ("gan_lab", *trust)
    for target in targets(node):
        package = target.split(".")[0]
        if package not in allowed:
            raise InputError(
                f"{origin} would run {target}, which is not part of gan_lab; if you trust it, "
                f"load with trust={[package]}"
            )
        # gan_lab.training.checkpoint.torch.load begins with gan_lab, too
        found = get_object(target)
        if not isinstance(found, type) or found.__module__.split(".")[0] not in allowed:
            raise InputError(f"{origin} would run {target}, which is no class of {package}")


def targets(node: Any) -> list[str]:
    """Return every `_target_` below a node."""
    if isinstance(node, DictConfig | ListConfig):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets(value)]
    if isinstance(node, list):
        return [target for value in node for target in targets(value)]
    return []


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return {"a.b.c": value} of nested containers."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def differences(old: DictConfig, new: DictConfig) -> list[str]:
    """Return one line for each key whose value differs, `key: old -> new`."""
    before, after = (flatten(OmegaConf.to_container(c, resolve=True)) for c in (old, new))
    keys = [key for key in [*after, *(k for k in before if k not in after)] if not derived(key)]
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in keys
        if before.get(key, "absent") != after.get(key, "absent")
    ]


def derived(key: str) -> bool:
    """Whether a key only repeats where the run lies and which sweep it belongs to: a renamed folder is no change."""
    if key.startswith("callbacks.pruning."):
        return True
    return key.split(".")[-1] in ("run_dir", "runs_dir", "name", "sweep", "swept")


def suggestion(wrong: str, keys: Sequence[str]) -> str:
    """Return the nearest right keys to a wrong one, as a hint for the end of an error, or nothing."""
    leaf = wrong.split(".")[-1]
    close = get_close_matches(wrong, keys, n=3, cutoff=0.6)
    close += [key for key in keys if key.split(".")[-1] == leaf and key not in close][:3]
    return f"; did you mean {' or '.join(close[:3])}?" if close else ""
