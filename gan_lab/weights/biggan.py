"""Published weights of BigGAN-PyTorch (BigGAN and BigGAN-deep)."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.models import biggan, biggan_deep
from gan_lab.training.state_dicts import Translation
from gan_lab.weights.blueprint import MOST_LAYERS, Arguments, Blueprint, Blueprints, read_players

# published names -> ours, anywhere in a name
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

# unused: logged singular values, and counters
BLOCK = re.compile(r"^blocks\.(\d+)\.(\d+)\.")

UNUSED = re.compile(r".*\.(sv0|accumulation_counter|num_batches_tracked)")

# arguments with only one supported value
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

RELUS = ("relu", "inplace_relu")


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read the networks that published arguments describe; BigGAN-deep where the generator has `G_depth`.

    Args:
        config: `generator` and perhaps `discriminator`: arguments by their published names; those that only concern
            training are ignored.
        state: `"G/<published name>"` and `"D/<published name>"` -> array or tensor; None for random weights.

    Raises:
        InputError: for arguments that are not supported.
    """
    deep = "G_depth" in config.get("generator", {}) or "D_depth" in config.get("discriminator", {})
    return read_players(
        config, state, generator=generator, discriminator=partial(discriminator, deep=deep)
    )


def generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a generator's published arguments and weights.

    Raises:
        InputError: for arguments that are not supported.
    """
    check(arguments)
    given = Arguments(arguments, "generator")
    z_dim = given.take("dim_z", int, default=128)
    hierarchical = given.take("hier", bool, default=False)
    shared = given.take("G_shared", bool, default=True)
    shared_dim = given.take("shared_dim", int, default=0) or z_dim
    ours = common(given, "G") | {
        "z_dim": z_dim,
        "shared_dim": shared_dim if shared else 0,
        "norm_eps": given.take("BN_eps", float, default=1e-5),
    }
    depth = given.take("G_depth", int, default=None, most=MOST_LAYERS)
    translate = translation(generator_place(depth or 1), "start")
    if depth is None:
        return Blueprint(biggan.Generator, {**ours, "hierarchical": hierarchical}, state, translate)
    if not (hierarchical and shared):
        raise InputError("BigGAN-deep needs hier=True and G_shared=True")
    return Blueprint(biggan_deep.Generator, {**ours, "depth": depth}, state, translate)


def discriminator(
    arguments: Mapping[str, Any], state: Mapping[str, Any] | None, *, deep: bool
) -> Blueprint:
    """Read a discriminator's published arguments and weights.

    Raises:
        InputError: for arguments that are not supported.
    """
    check(arguments)
    given = Arguments(arguments, "discriminator")
    ours = common(given, "D")
    if not deep:
        translate = translation(discriminator_place(1), "logit.affine")
        return Blueprint(biggan.Discriminator, ours, state, translate)
    depth = given.take("D_depth", int, default=2, most=MOST_LAYERS)
    translate = translation(discriminator_place(depth), "logit.affine")
    return Blueprint(biggan_deep.Discriminator, {**ours, "depth": depth}, state, translate)


def common(given: Arguments, player: str) -> dict[str, Any]:
    """Take the arguments that both networks share; some names start with the player's."""
    return {
        "image_size": given.take("resolution", int, default=128),
        "channels": 3,
        "num_classes": given.take("n_classes", int, default=1000),
        "width": given.take(f"{player}_ch", int, default=64),
        "attention": attention_sizes(given.take(f"{player}_attn", str, default="64")),
        "spectral_eps": given.take("SN_eps", float, default=1e-12),
    }


def check(arguments: Mapping[str, Any]) -> None:
    """Check that the arguments describe a supported network.

    Raises:
        InputError: naming the argument.
    """
    for name, value in FIXED.items():
        if arguments.get(name, value) != value:
            raise InputError(
                f"{name}={shortened(arguments[name])} is not supported; it must be {value!r}"
            )
    for name in ("G_nl", "D_nl"):
        if arguments.get(name, "relu") not in RELUS:
            raise InputError(
                f"{name}={shortened(arguments[name])} is not supported; it must be 'relu'"
            )


def attention_sizes(given: str) -> list[int]:
    """Parse published attention sizes such as "32_64"; "0" is none.

    Raises:
        InputError: for anything else.
    """
    if not re.fullmatch(r"\d{1,4}(_\d{1,4})*", given):
        raise InputError(f"attention at {given[:40]!r}: expected sizes such as '64' or '32_64'")
    return [int(size) for size in given.split("_") if int(size)]


def translation(place: Callable[[int, int], str], linear: str) -> Translation:
    """Return the function that renames published tensors to ours.

    Args:
        place: (index of a published list of layers, index in it) -> name of our layer.
        linear: name of our linear layer that is not in a list.
    """

    def translate(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # published batch norms have no counter of batches
        renamed = {
            name: torch.zeros((), dtype=torch.int64)
            for name in own
            if name.endswith("num_batches_tracked")
        }
        for published, value in state.items():
            if UNUSED.fullmatch(published):
                continue
            name = BLOCK.sub(lambda found: f"{place(int(found[1]), int(found[2]))}.", published)
            for pattern, ours in (*RENAMES, (r"^linear\.", f"{linear}.")):
                name = re.sub(pattern, ours, name)
            renamed |= with_parametrization(name, torch.as_tensor(value), own)
        return renamed

    return translate


def with_parametrization(name: str, tensor: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a tensor under our name; spectral norm keeps weight and vector in `parametrizations`."""
    layer, _, leaf = name.rpartition(".")
    original = f"{layer}.parametrizations.{leaf}.original"
    if leaf == "u0":
        return {f"{layer}.parametrizations.weight.0.u": tensor.flatten()}
    return {original if original in own else name: tensor}


def generator_place(depth: int) -> Callable[[int, int], str]:
    """Return the function from a generator's published layer indices to our names."""
    return lambda block, i: f"attentions.{block // depth}" if i else f"blocks.{block}"


def discriminator_place(depth: int) -> Callable[[int, int], str]:
    """Return the function from a discriminator's published layer indices to our names."""
    return lambda stage, i: f"attentions.{stage}" if i == depth else f"blocks.{stage * depth + i}"
