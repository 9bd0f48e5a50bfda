"""Exported models: a folder with weights and what they are of, read without Lightning, Hydra and foreign code.

`model.json` describes the generator, `model.safetensors` holds its weights, `README.md` is the model card.
`gan-lab export` writes such a folder (`gan_lab.weights`).
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.features.weights import file_sha256
from gan_lab.sampling.gan import Gan
from gan_lab.training.state_dicts import check_fit

FORMAT = 1

DESCRIPTION = "model.json"

CARD = "README.md"

GRID = "grid.png"

WEIGHTS = {"generator": "model.safetensors", "discriminator": "discriminator.safetensors"}

PROGRAMS = {"torch": "generator.pt2", "onnx": "generator.onnx"}

KINDS: dict[str, type[nn.Module]] = {
    "generator": GeneratorNetwork,
    "discriminator": DiscriminatorNetwork,
}

# of `model.json`: what loading needs, and its type
NEEDED: dict[str, type | tuple[type, ...]] = {
    "generator": dict,
    "classes": dict,
    "kimg": (int, float),
    "gan_lab": str,
}


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / DESCRIPTION).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """Read `model.json` of an exported model.

    Raises:
        InputError: when it is missing, damaged, or of a format that this version does not know.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no exported model: it has no {DESCRIPTION}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); export the model again") from error
    made = description.get("format") if isinstance(description, dict) else None
    if not isinstance(made, int) or isinstance(made, bool) or made < 1:
        raise InputError(f"{path} describes no exported model of gan_lab: it has no format number")
    if made > FORMAT:
        raise InputError(
            f"{path} has format {made}, from a newer gan_lab ({description.get('gan_lab', 'unknown')}); this one reads "
            f"formats up to {FORMAT}: upgrade it (pip install --upgrade gan_lab)"
        )
    for key, kind in NEEDED.items():
        if not isinstance(description.get(key), kind):
            raise InputError(f"{path} is damaged: {key} is missing or of a wrong type")
    return description


def load(
    folder: Path,
    *,
    weights: str | None = None,
    device: str | torch.device = "cpu",
    trust: Sequence[str] = (),
) -> Gan:
    """Load an exported generator to draw samples from.

    Args:
        folder: with `model.json` and `model.safetensors`.
        weights: "ema" or "raw", where others than the exported ones shall be refused.
        device: where to compute.
        trust: packages besides gan_lab whose classes `model.json` may name.

    Raises:
        InputError: when a file is missing, damaged, of a newer format, or names other code.
    """
    description = read_description(folder)
    kept = description["generator"].get("weights")
    if weights not in (None, kept):
        raise InputError(
            f"weights={weights}: {folder} holds the {kept} weights alone; leave weights= out"
        )
    generator = network(folder, description, "generator", trust=trust)
    assert isinstance(generator, GeneratorNetwork)
    classes = description["classes"]
    return Gan(
        generator.eval().requires_grad_(False).to(device),
        class_counts=classes.get("counts", []),
        class_names=classes.get("names", []),
        kimg=description["kimg"],
    )


def network(
    folder: Path, description: Mapping[str, Any], player: str, *, trust: Sequence[str] = ()
) -> nn.Module:
    """Build a player's network with its exported weights.

    Nothing of the network's size is made before the file is known to hold as much.

    Raises:
        InputError: as `load`.
    """
    origin = folder / DESCRIPTION
    node = description[player].get("network")
    weights = state(folder, description, player)
    with torch.device("meta"):
        outline = build(node, trust=trust, origin=origin)
    if not isinstance(outline, KINDS[player]):
        raise InputError(f"{origin} names {type(outline).__name__} as its {player}, which is none")
    try:
        check_fit(outline.state_dict(), weights)
    except InputError as error:
        raise InputError(f"{folder / WEIGHTS[player]}: {error}; export the model again") from error
    built: nn.Module = build(node, trust=trust, origin=origin)
    built.load_state_dict(weights)
    return built


def state(folder: Path, description: Mapping[str, Any], player: str) -> dict[str, Tensor]:
    """Read a player's weights, by name.

    Raises:
        InputError: when the file is missing, or is not the one that `model.json` speaks of.
    """
    path = folder / WEIGHTS[player]
    if not path.is_file():
        raise InputError(f"{folder} has no {path.name}; get the whole folder again")
    expected = description[player].get("sha256")
    found = file_sha256(path)
    if found != expected:
        raise InputError(
            f"{path} has the SHA-256 {found}, but {DESCRIPTION} says {expected}: it is damaged, cut short or of "
            "another model; get both files again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); export the model again") from error


def build(node: Any, *, trust: Sequence[str], origin: Path) -> Any:
    """Build what a node of `model.json` describes: `{"_target_": class, argument: value, ...}`, also nested.

    Args:
        node: any JSON value; lists and dictionaries without a target are arguments.
        trust: packages besides gan_lab whose classes may be built.
        origin: the file, for messages.

    Raises:
        InputError: for a target that is no class of these packages, or arguments that make none.
    """
    if isinstance(node, list):
        return [build(value, trust=trust, origin=origin) for value in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: build(value, trust=trust, origin=origin) for key, value in node.items()}
    target = arguments.pop("_target_", None)
    if target is None:
        return arguments
    later = arguments.pop("_partial_", False)
    found = find_class(target, trust=trust, origin=origin)
    if later:
        return partial(found, **arguments)
    try:
        return found(**arguments)
    except InputError:
        raise
    except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
        # a file may give arguments that no constructor has a word for
        raise InputError(
            f"{origin}: its arguments make no {target} ({type(error).__name__}: {error}); it may be of another "
            "version of gan_lab"
        ) from error


def find_class(target: object, *, trust: Sequence[str], origin: Path) -> type:
    """Return a class of gan_lab or of a trusted package by its dotted name.

    Raises:
        InputError: for anything else.
    """
    allowed = ("gan_lab", *trust)
    module, _, name = str(target).rpartition(".")
    package = module.split(".")[0]
    if package not in allowed:
        raise InputError(
            f"{origin} would run {target}, which is not part of gan_lab; if you trust it, load with trust={[package]}"
        )
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{origin} names {target}, which is not here ({error}); it may be of another version of {package}"
        ) from error
    # a module has in it what it imports, such as gan_lab.weights.exported.torch
    if not isinstance(found, type) or found.__module__.split(".")[0] not in allowed:
        raise InputError(f"{origin} would run {target}, which is no class of {package}")
    return found
