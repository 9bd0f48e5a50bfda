"""Weights of the BigGAN-PyTorch networks (BigGAN and BigGAN-deep) under their published names and arguments."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.interop.weights import Renames, load, part
from gan_lab.models import biggan, biggan_deep

# what is called otherwise in the published networks, wherever it stands
RENAMES = (
    (r"\.conv_sc\.", r".shortcut."),
    (r"\.bn(\d)\.gain\.", r".norm\1.gain."),
    (r"\.bn(\d)\.bias\.", r".norm\1.offset."),
    (r"\.bn(\d)\.(?:bn\.)?(?:stored|running)_", r".norm\1.norm.running_"),
    (r"^output_layer\.0\.(?:bn\.)?(?:stored|running)_", r"norm.running_"),
    (r"^output_layer\.0\.gain$", r"norm.weight"),
    (r"^output_layer\.0\.", r"norm."),
    (r"^output_layer\.2\.", r"to_image."),
    (r"^shared\.", r"embedding."),
    (r"^input_conv\.", r"from_image."),
    (r"^embed\.", r"logit.embedding."),
)
# singular values are logged and not used, and a counter belongs to standing statistics
BLOCK = re.compile(r"^blocks\.(\d+)\.(\d+)\.")
UNUSED = re.compile(r".*\.(sv0|accumulation_counter|num_batches_tracked)")
SAME: Renames = ((r"(.+)", r"\1"),)

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
    for player, network in networks.items():
        weights = part(state, player)
        if weights is None:
            continue
        if player == "G":
            place, linear = generator_place(config["generator"].get("G_depth", 1)), "start"
        else:
            depth = config["discriminator"].get("D_depth", 2) if deep else 1
            place, linear = discriminator_place(depth), "logit.affine"
        load(network, translated(network, weights, place, linear), SAME)
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


def translated(
    network: nn.Module, state: Mapping[str, Any], place: Callable[[int, int], str], linear: str
) -> dict[str, Tensor]:
    """Return published tensors under the names of our network's state dict.

    Args:
        network: ours.
        state: published name -> array.
        place: (index of a published list of layers, index in it) -> the name of our layer.
        linear: our name of the linear layer that is not in a list.
    """
    own = network.state_dict()
    # the published batch norms do not count batches
    renamed = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    for published, value in state.items():
        if UNUSED.fullmatch(published):
            continue
        name = BLOCK.sub(lambda found: f"{place(int(found[1]), int(found[2]))}.", published)
        for pattern, ours in (*RENAMES, (r"^linear\.", f"{linear}.")):
            name = re.sub(pattern, ours, name)
        tensor = torch.as_tensor(value)
        layer, _, leaf = name.rpartition(".")
        original = f"{layer}.parametrizations.{leaf}.original"
        if leaf == "u0":
            renamed[f"{layer}.parametrizations.weight.0.u"] = tensor.flatten()
        else:
            renamed[original if original in own else name] = tensor
    return renamed


def generator_place(depth: int) -> Callable[[int, int], str]:
    """Return where a generator's layers stand here: published, attention follows a block in its list."""
    return lambda block, i: f"attentions.{block // depth}" if i else f"blocks.{block}"


def discriminator_place(depth: int) -> Callable[[int, int], str]:
    """Return where a discriminator's layers stand here: published, a list has `depth` blocks and perhaps attention."""
    return lambda stage, i: f"attentions.{stage}" if i == depth else f"blocks.{stage * depth + i}"
