"""Weights of the BigGAN-PyTorch networks (BigGAN and BigGAN-deep) under their published names and arguments."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.models import biggan, biggan_deep

# published name of a part -> ours
PARTS = {
    "linear": "start",
    "conv_sc": "shortcut",
    "bn": "norm",
    "bias": "offset",
    "input_conv": "from_image",
    "output_layer.0": "norm",
    "output_layer.2": "to_image",
    "shared": "embedding",
    "embed": "logit.embedding",
}

# arguments that change the networks and have one value here
FIXED: Mapping[str, Any] = {
    "bottom_width": 4,
    "G_param": "SN",
    "D_param": "SN",
    "norm_style": "bn",
    "G_kernel_size": 3,
    "D_kernel_size": 3,
    "num_G_SVs": 1,
    "num_D_SVs": 1,
    "num_G_SV_itrs": 1,
    "num_D_SV_itrs": 1,
    "D_wide": True,
    "output_dim": 1,
}
RECTIFIERS = ("relu", "inplace_relu")


def from_published(
    config: Mapping[str, Any], state: Mapping[str, Any] | None
) -> dict[str, nn.Module]:
    """Build the networks that published arguments describe; BigGAN-deep where the generator has `G_depth`.

    Args:
        config: `generator` and perhaps `discriminator`: arguments by their published names; those that only concern
            training are left alone.
        state: `"G/<published name>"` and `"D/<published name>"` -> array or tensor; None for fresh weights.

    Returns:
        {"G": generator, "D": discriminator} in evaluation mode.

    Raises:
        InputError: for arguments that are not supported, or weights that do not fit.
    """
    deep = "G_depth" in config.get("generator", {}) or "D_depth" in config.get("discriminator", {})
    networks: dict[str, nn.Module] = {}
    if "generator" in config:
        networks["G"] = build_generator(config["generator"])
    if "discriminator" in config:
        networks["D"] = build_discriminator(config["discriminator"], deep=deep)
    if state is not None:
        for player, network in networks.items():
            load(network, translated(network, chosen(state, player)))
    return {player: network.eval() for player, network in networks.items()}


def build_generator(arguments: Mapping[str, Any]) -> nn.Module:
    """Build the generator that published arguments describe.

    Raises:
        InputError: for arguments that are not supported.
    """
    check(arguments)
    latent_dim = arguments.get("dim_z", 128)
    hierarchical = bool(arguments.get("hier", False))
    shared = arguments.get("G_shared", True)
    common = {
        "image_size": arguments.get("resolution", 128),
        "channels": 3,
        "num_classes": arguments.get("n_classes", 1000),
        "latent_dim": latent_dim,
        "shared_dim": (arguments.get("shared_dim") or latent_dim) if shared else 0,
        "width": arguments.get("G_ch", 64),
        "attention": attention_sizes(arguments.get("G_attn", "64")),
        "norm_eps": arguments.get("BN_eps", 1e-5),
        "spectral_eps": arguments.get("SN_eps", 1e-12),
    }
    if "G_depth" not in arguments:
        return biggan.Generator(**common, hierarchical=hierarchical)
    if not (hierarchical and shared):
        raise InputError("BigGAN-deep needs hier=True and G_shared=True")
    return biggan_deep.Generator(**common, depth=arguments["G_depth"])


def build_discriminator(arguments: Mapping[str, Any], *, deep: bool) -> nn.Module:
    """Build the discriminator that published arguments describe.

    Raises:
        InputError: for arguments that are not supported.
    """
    check(arguments)
    common = {
        "image_size": arguments.get("resolution", 128),
        "channels": 3,
        "num_classes": arguments.get("n_classes", 1000),
        "width": arguments.get("D_ch", 64),
        "attention": attention_sizes(arguments.get("D_attn", "64")),
        "spectral_eps": arguments.get("SN_eps", 1e-12),
    }
    if deep:
        return biggan_deep.Discriminator(**common, depth=arguments.get("D_depth", 2))
    return biggan.Discriminator(**common)


def check(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that ask for another network than those here.

    Raises:
        InputError: naming the argument.
    """
    for name, value in FIXED.items():
        if arguments.get(name, value) != value:
            raise InputError(f"{name}={arguments[name]!r} is not supported; it must be {value!r}")
    for name in ("G_nl", "D_nl"):
        if arguments.get(name, "relu") not in RECTIFIERS:
            raise InputError(f"{name}={arguments[name]!r} is not supported; it must be 'relu'")


def attention_sizes(given: str) -> list[int]:
    """Read sizes as they are published: "32_64", or "0" for none."""
    return [int(size) for size in given.split("_") if int(size)]


def translated(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return published tensors under the names of our network's state dict."""
    depth = getattr(network, "depth", 1)
    own = network.state_dict()
    renamed: dict[str, Tensor] = {}
    for published, tensor in state.items():
        module, _, leaf = our_name(published, depth).rpartition(".")
        if leaf in ("sv0", "accumulation_counter"):  # logged, not used
            continue
        if leaf == "u0":
            renamed[f"{module}.parametrizations.weight.0.u"] = tensor.flatten()
        elif f"{module}.parametrizations.{leaf}.original" in own:
            renamed[f"{module}.parametrizations.{leaf}.original"] = tensor
        else:
            renamed[f"{module}.{leaf}"] = tensor
    # the published batch norms do not count batches
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    return {**counters, **renamed}


def our_name(published: str, depth: int) -> str:
    """Return where a published tensor stands here, before spectral norm gives it another name."""
    name = re.sub(r"\bstored_(mean|var)$", r"running_\1", published)
    if match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", name):
        return in_block(int(match[1]), int(match[2]), match[3], depth)
    head = {"linear": "start", "shared": "embedding", "input_conv": "from_image"}
    ...
