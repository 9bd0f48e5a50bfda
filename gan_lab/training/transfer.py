"""Beginning from another run's networks, of another resolution or class count if need be.

Weights are matched by name and shape. Names count modules, so where two networks differ in size a number may mean
another resolution: networks say with `resolution_keys` which of their modules stand where. What is not of the networks
(optimizers, clock, augmentation and regularizer state) begins anew.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gan_lab.config import build
from gan_lab.console import say, warn
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.training.state_dicts import outline

Network = GeneratorNetwork | DiscriminatorNetwork

SHOWN = 8  # groups of new weights that are named


@dataclass(frozen=True)
class Match:
    """What of a network's weights another run's can fill.

    Attributes:
        kept: our name -> their tensor.
        new: the names of ours that stay as they were drawn.
        share: of the network's parameters that are kept, 0 to 1.
    """

    kept: Mapping[str, Tensor]
    new: list[str]
    share: float


@dataclass(frozen=True)
class Origin:
    """Networks to begin from.

    Attributes:
        name: what they were read from.
        file: which describes them.
        states: player -> its weights by name.
        nodes: player -> what describes it in that file; none for a checkpoint on its own.
    """

    name: Path
    file: Path
    states: Mapping[str, Mapping[str, Tensor]]
    nodes: Mapping[str, Any]


def transfer(module: nn.Module, origin: Origin) -> None:
    """Copy the weights that mean the same and fit; say what was kept and what is new.

    Args:
        module: whose networks are filled.
        origin: what to begin from (`gan_lab.weights.loading.open_origin`).

    Raises:
        InputError: when nothing fits, or the source's configuration names code that is not this module's either.
    """
    networks = {
        player: network
        for player, network in module.named_children()
        if isinstance(network, GeneratorNetwork | DiscriminatorNetwork)
    }
    matches = {}
    for player, network in networks.items():
        node = origin.nodes.get(player.removesuffix("_ema"))
        resolution_keys = (
            None if node is None else resolution_keys_of(node, origin.file, like=network)
        )
        matches[player] = match(network, origin.states.get(player, {}), resolution_keys)
    if not any(found.kept for found in matches.values()):
        raise InputError(
            f"init_from={origin.name}: none of its weights fits this model; give a run of the same model"
        )
    say(f"init_from {origin.name}")
    for player, found in matches.items():
        network = networks[player]
        network.load_state_dict({**network.state_dict(), **found.kept})
        say(f"  {player}: {summary(found)}")
        if not found.kept:
            warn(f"none of the {player}'s weights fits: it begins anew")


def resolution_keys_of(node: Any, origin: Path, *, like: Network) -> dict[str, str]:
    """Return where the modules of the network that a node describes stand; nothing of its size is made.

    Args:
        node: of the source's configuration.
        origin: the file that it is from.
        like: our network; what its class's package may run, the source's may, too.
    """
    package = type(like).__module__.split(".")[0]
    base = GeneratorNetwork if isinstance(like, GeneratorNetwork) else DiscriminatorNetwork
    network: Network = outline(partial(build, node, base, origin=origin, trust=[package]))
    return network.resolution_keys()


def match(
    network: Network, theirs: Mapping[str, Tensor], resolution_keys: Mapping[str, str] | None
) -> Match:
    """Find the weights of another network that stand in the same place as ours and have their shape.

    Args:
        network: ours.
        theirs: its name -> tensor.
        resolution_keys: of its modules; None where nobody knows, and names have to do.
    """
    ours = {} if resolution_keys is None else network.resolution_keys()
    resolution_keys = resolution_keys or {}
    standing = {canonical_name(name, resolution_keys): value for name, value in theirs.items()}
    own = network.state_dict()
    kept = {
        name: value
        for name, tensor in own.items()
        if (value := standing.get(canonical_name(name, ours))) is not None
        and value.shape == tensor.shape
    }
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    share = sum(size for name, size in sizes.items() if name in kept) / max(sum(sizes.values()), 1)
    return Match(kept, [name for name in own if name not in kept], share)


def canonical_name(name: str, resolution_keys: Mapping[str, str]) -> str:
    """Return a weight's name with its module's place for the module's name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if module in resolution_keys:
            return ".".join([resolution_keys[module], *parts[end:]])
    return name


def summary(found: Match) -> str:
    """Return how much was kept, and what is new, by module."""
    total = len(found.kept) + len(found.new)
    text = f"kept {len(found.kept)} of {total} tensors, {found.share:.1%} of the parameters; "
    groups = Counter(group(name) for name in found.new)
    named = [f"{name} ({count})" for name, count in list(groups.items())[:SHOWN]]
    more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    return f"{text}{len(found.new)} new{': ' if named else ''}{', '.join(named)}{more}"


def group(name: str) -> str:
    """Return the module that a weight is listed under: up to the first number in its name, else its layer."""
    numbered = re.match(r"(.*?\.\d+)\.", name)
    return numbered[1] if numbered else name.rpartition(".")[0] or name
