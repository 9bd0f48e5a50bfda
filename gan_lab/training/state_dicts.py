"""Published state dicts: taken apart, renamed and checked."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gan_lab.errors import InputError

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


def check_fit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not all of a network's and nothing else.

    Raises:
        InputError: for a name that is missing or too many, or a shape that does not fit.
    """
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    if missing or extra:
        raise InputError(
            f"weights do not fit the arguments: {len(missing)} missing {missing[:3]}, {len(extra)} too many {extra[:3]}"
        )
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            raise InputError(
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
