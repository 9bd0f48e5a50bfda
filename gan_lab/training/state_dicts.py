"""Weights and the networks that they are of: state dicts taken apart, renamed, checked and loaded."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from gan_lab.config import build
from gan_lab.errors import InputError

# modules and parameters of a network: no published one has a tenth of it
MOST_PARTS = 10_000

Renames = Sequence[tuple[str, str]]

# (published name -> array, our name -> our tensor) -> our name -> published tensor
Translation = Callable[[Mapping[str, Any], Mapping[str, Tensor]], dict[str, Tensor]]


def part(state: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    """Return the entries below `name`/, without it; None for None."""
    if state is None:
        return None
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def renamer(renames: Renames, *, ignored: str = "") -> Translation:
    """Return what gives published weights our names.

    Args:
        renames: (regular expression of a whole published name, our name); the first that fits counts.
        ignored: regular expression of published names to leave out.
    """

    def translate(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            rename(name, renames): torch.as_tensor(value)
            for name, value in state.items()
            if not (ignored and re.fullmatch(ignored, name))
        }

    return translate


def outline(make: Callable[[], Any]) -> Any:
    """Build networks in names, shapes and types only, whatever sizes a file asks for: without memory, and with an end.

    Args:
        make: builds them.

    Raises:
        InputError: for one that consists of more parts than any network, and of `make`.
    """
    parts = 0

    def count(*_: object) -> None:
        nonlocal parts
        parts += 1
        if parts > MOST_PARTS:
            raise InputError(f"its arguments ask for a network of more than {MOST_PARTS:,} parts")

    hooks = (
        register_module_parameter_registration_hook(count),
        register_module_module_registration_hook(count),
    )
    try:
        with torch.device("meta"):
            return make()
    finally:
        for hook in hooks:
            hook.remove()


def network_of(
    node: Any,
    base: type[nn.Module],
    weights: Mapping[str, Tensor],
    *,
    origin: Path,
    trust: Sequence[str] = (),
) -> nn.Module:
    """Build the network that a node of a file describes, and load its weights.

    Nothing of the network's size is made before the weights are known to be as large.

    Args:
        node: of the file; see `gan_lab.config.build`.
        base: what kind of network it has to be.
        weights: by name.
        origin: the file.
        trust: packages besides gan_lab whose classes it may name.

    Raises:
        InputError: for a node that describes none, or weights of another network.
    """
    make = partial(build, node, base, origin=origin, trust=trust)
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise InputError(f"{origin} names no class of a network")
    # a trusted package may do as it likes, and not every constructor can do without numbers
    if target.startswith("gan_lab."):
        check_fit(outline(make).state_dict(), weights)
    network: nn.Module = make()
    check_fit(network.state_dict(), weights)
    network.load_state_dict(weights)
    return network


class MisfitError(InputError):
    """Weights are of another network."""


def check_fit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not all of a network's and nothing else.

    Raises:
        MisfitError: for a name that is missing or too many, or a shape that does not fit.
    """
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    if missing or extra:
        raise MisfitError(
            f"weights do not fit the arguments: {len(missing)} missing {missing[:3]}, {len(extra)} too many {extra[:3]}"
        )
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            raise MisfitError(
                f"{name} has shape {tuple(weights[name].shape)}, the arguments ask for {tuple(tensor.shape)}"
            )


def rename(name: str, renames: Renames) -> str:
    """Return our name of a published weight.

    Raises:
        InputError: when no rule fits.
    """
    for pattern, ours in renames:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(ours)
    raise InputError(f"weight {name} is unknown in these networks")
