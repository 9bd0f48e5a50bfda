"""State dicts: renaming, checking and loading weights, and `init_from`."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from gan_lab.console import say, warn
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork

# limit of modules and parameters; published networks have less than a tenth
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
    """Return a function that translates published weights to our names.

    Args:
        renames: (regular expression of a whole published name, our name); the first match counts.
        ignored: regular expression of published names to drop.
    """

    def translate(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            rename(name, renames): torch.as_tensor(value)
            for name, value in state.items()
            if not (ignored and re.fullmatch(ignored, name))
        }

    return translate


def outline(make: Callable[[], Any]) -> Any:
    """Build networks on the meta device, with a limit on their number of parts.

    Args:
        make: builds them.

    Raises:
        InputError: for too many parts, and as `make`.
    """
    parts = 0

    def count(*_: object) -> None:
        nonlocal parts
        parts += 1
        if parts > MOST_PARTS:
            raise InputError(f"its arguments give a network of more than {MOST_PARTS:,} parts")

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
    """Build the network of a config node and load its weights.

    Memory is only allocated after the weights' sizes have been checked.

    Args:
        node: of the file; see `gan_lab.config.build`.
        base: required base class.
        weights: by name.
        origin: the file.
        trust: packages besides gan_lab whose classes it may name.

    Raises:
        InputError: for an invalid node, or weights of another network.
    """
    make = partial(build, node, base, origin=origin, trust=trust)
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise InputError(f"{origin} names no class of a network")
    # constructors of trusted packages may need real tensors
    if target.startswith("gan_lab."):
        check_fit(outline(make).state_dict(), weights)
    network: nn.Module = make()
    check_fit(network.state_dict(), weights)
    network.load_state_dict(weights)
    return network


class MisfitError(InputError):
    """Weights do not match the network."""


def check_fit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Check that weights have exactly a network's names and shapes.

    Raises:
        MisfitError: for missing or additional names, and different shapes.
    """
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    if missing or extra:
        raise MisfitError(
            f"weights do not match the arguments: {len(missing)} missing {missing[:3]}, "
            f"{len(extra)} too many {extra[:3]}"
        )
    for name, tensor in own.items():
        if weights[name].shape != tensor.shape:
            raise MisfitError(
                f"{name} has shape {tuple(weights[name].shape)}, the arguments ask for {tuple(tensor.shape)}"
            )


def rename(name: str, renames: Renames) -> str:
    """Return our name of a published weight.

    Raises:
        InputError: when no rule matches.
    """
    for pattern, ours in renames:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(ours)
    raise InputError(f"weight {name} is unknown in these networks")


# init_from: start from another run's networks, also of another resolution or number of classes.
#
# Weights are matched by name and shape. Since module numbers may mean another resolution in a network of another
# size, `resolution_keys` of networks maps modules to resolutions. All other state (optimizers, clock,
# augmentations, regularizers) is new.


Network = GeneratorNetwork | DiscriminatorNetwork

SHOWN = 8  # groups of new weights


@dataclass(frozen=True)
class Match:
    """The weights that `init_from` transfers.

    Attributes:
        kept: our name -> their tensor.
        new: our names without a match, which keep their initial values.
        share: share of the network's parameters in `kept`, 0 to 1.
    """

    kept: Mapping[str, Tensor]
    new: list[str]
    share: float


@dataclass(frozen=True)
class Origin:
    """Networks to start from.

    Attributes:
        name: of their source.
        file: the file that describes them.
        states: player -> its weights by name.
        nodes: player -> its config node in that file; none for a checkpoint without a run folder.
    """

    name: Path
    file: Path
    states: Mapping[str, Mapping[str, Tensor]]
    nodes: Mapping[str, Any]


def transfer(module: nn.Module, origin: Origin) -> None:
    """Copy matching weights, and report what was kept and what is new.

    Args:
        module: whose networks are filled.
        origin: the networks to start from (`gan_lab.weights.loading.open_origin`).

    Raises:
        InputError: when nothing matches, or the source's config names code of neither gan_lab nor this module.
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
            f"init_from={origin.name}: none of its weights match this model; give a run of the same model"
        )
    say(f"init_from {origin.name}")
    for player, found in matches.items():
        network = networks[player]
        network.load_state_dict({**network.state_dict(), **found.kept})
        say(f"  {player}: {summary(found)}")
        if not found.kept:
            warn(f"none of the {player}'s weights fits: it starts untrained")


def resolution_keys_of(node: Any, origin: Path, *, like: Network) -> dict[str, str]:
    """Return the resolution keys of the network of a node, without allocating it.

    Args:
        node: of the source's configuration.
        origin: the file that it is from.
        like: our network; classes of its package are trusted.
    """
    package = type(like).__module__.split(".")[0]
    base = GeneratorNetwork if isinstance(like, GeneratorNetwork) else DiscriminatorNetwork
    network: Network = outline(partial(build, node, base, origin=origin, trust=[package]))
    return network.resolution_keys()


def match(
    network: Network, theirs: Mapping[str, Tensor], resolution_keys: Mapping[str, str] | None
) -> Match:
    """Find the weights of another network with our resolution, name and shape.

    Args:
        network: ours.
        theirs: its name -> tensor.
        resolution_keys: of its modules; None if unknown, to match by name.
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
    """Return a weight's name with its module's resolution key for the module's name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if module in resolution_keys:
            return ".".join([resolution_keys[module], *parts[end:]])
    return name


def summary(found: Match) -> str:
    """Summarize by module what was kept and what is new."""
    total = len(found.kept) + len(found.new)
    text = f"kept {len(found.kept)} of {total} tensors, {found.share:.1%} of the parameters; "
    groups = Counter(group(name) for name in found.new)
    shown = [f"{name} ({count})" for name, count in list(groups.items())[:SHOWN]]
    more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    return f"{text}{len(found.new)} new{': ' if shown else ''}{', '.join(shown)}{more}"


def group(name: str) -> str:
    """Return the group of a weight in the summary: its name up to the first number, else its layer."""
    numbered = re.match(r"(.*?\.\d+)\.", name)
    return numbered[1] if numbered else name.rpartition(".")[0] or name
