"""Published state dicts: renamed, checked and copied into a network."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError

Renames = Sequence[tuple[str, str]]


def part(state: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    """Return the entries below `name`/, without it; None for None."""
    if state is None:
        return None
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def load(
    network: nn.Module, state: Mapping[str, Any], renames: Renames, *, ignored: str = ""
) -> None:
    """Copy published weights into a network, all of them and nothing else.

    Args:
        network: to fill.
        state: published name -> array.
        renames: (regular expression of a whole published name, our name); the first that fits counts.
        ignored: regular expression of published names to leave out.

    Raises:
        InputError: for a name that is not known or missing, or a shape that does not fit.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if ignored and re.fullmatch(ignored, name):
            continue
        renamed[rename(name, renames)] = torch.as_tensor(value)
    own = network.state_dict()
    missing = [name for name in own if name not in renamed]
    extra = [name for name in renamed if name not in own]
    if missing or extra:
        raise InputError(
            f"weights do not fit the arguments: {len(missing)} missing {missing[:3]}, {len(extra)} too many {extra[:3]}"
        )
    for name, tensor in own.items():
        if renamed[name].shape != tensor.shape:
            raise InputError(
                f"{name} has shape {tuple(renamed[name].shape)}, the arguments ask for {tuple(tensor.shape)}"
            )
    network.load_state_dict(renamed)


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
