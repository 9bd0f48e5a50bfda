"""Published weights of rosinality's StyleGAN2, https://github.com/rosinality/stylegan2-pytorch.

A `.pt` file holds "g_ema" and perhaps "g", "d" and "latent_avg": state dicts without arguments, which follow from the
shapes. The networks are the same as NVIDIA's; names, some shapes and the order of resolutions in D are not.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.stylegan import Mapping as MappingNetwork
from gan_lab.models.stylegan2 import Discriminator, Generator
from gan_lab.training.state_dicts import part
from gan_lab.weights.blueprint import MOST_LAYERS, Arguments, Blueprint, Blueprints

SOURCE = "rosinality StyleGAN2"

PLAYERS = {"g_ema": "G_ema", "g": "G", "d": "D"}

AVERAGE = "latent_avg"

SAMPLES = 10_000  # z whose w are averaged where the file has no average

PARTS = r"(weight|bias)"

Sizes = Mapping[str, tuple[int, ...]]


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G and D; see `gan_lab.weights.from_published`.

    `size`, `style_dim` and `n_mlp` are arguments there; the widths, a table in that code, are given by NVIDIA's two
    numbers.
    """
    networks: Blueprints = {}
    if "generator" in config:
        given = Arguments(config["generator"], "generator")
        size, style_dim, depth = (
            given.take("size", int),
            given.take("style_dim", int, default=512),
            given.take("n_mlp", int, default=8, most=MOST_LAYERS),
        )
        ours = _common(given, size) | {
            "z_dim": style_dim,
            "w_dim": style_dim,
            "mapping_layers": depth,
        }
        networks["G"] = Blueprint(Generator, ours, part(state, "G"), translate_generator)
    if "discriminator" in config:
        given = Arguments(config["discriminator"], "discriminator")
        size = given.take("size", int)
        ours = _common(given, size) | {"mbstd_group_size": 4}
        networks["D"] = Blueprint(Discriminator, ours, part(state, "D"), translate_discriminator)
    return networks


def _common(given: Arguments, size: int) -> dict[str, Any]:
    ours = {
        "image_size": size,
        "channels": 3,
        "num_classes": 0,
        "channel_base": given.take("channel_base", int, default=32768),
        "channel_max": given.take("channel_max", int, default=512),
    }
    given.finish()
    return ours


def is_file(held: Any) -> bool:
    """Whether what a file holds is a checkpoint of this kind."""
    return isinstance(held, dict) and isinstance(held.get("g_ema"), dict)


def describe(states: Mapping[str, Sizes]) -> dict[str, Any]:
    """Find the configuration from the shapes of weights.

    Args:
        states: "G_ema" and perhaps "D" -> published name -> shape.

    Raises:
        InputError: for weights of other networks, such as a generator of another architecture.
    """
    generator = states["G_ema"]
    layers = [name for name in generator if re.fullmatch(r"style\.\d+\.weight", name)]
    doublings = len([n for n in generator if re.fullmatch(r"to_rgbs\.\d+\.bias", n)])
    const, first = generator.get("input.input"), generator.get("style.1.weight")
    if const is None or first is None or len(const) != 4:
        raise InputError(
            "its g_ema is no StyleGAN2 of rosinality's: it begins with "
            f"{', '.join(list(generator)[:3]) or 'nothing'}"
        )
    size = 4 << min(doublings, 20)
    last = generator.get(f"convs.{2 * doublings - 1}.activate.bias", const[1:2])
    widths = {"channel_base": last[0] * size, "channel_max": const[1]}
    config: dict[str, Any] = {
        "source": SOURCE,
        "generator": {"size": size, "style_dim": first[1], "n_mlp": len(layers), **widths},
    }
    if "D" in states:
        config["discriminator"] = {"size": size, **widths}
    return config


def translate_generator(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a generator's published weights our names and shapes."""
    renamed: dict[str, Tensor] = {}
    for published, value in state.items():
        if published.endswith(".kernel"):  # [1, 3, 3, 1] in all of these networks
            continue
        name = _generator_name(published)
        tensor = torch.as_tensor(value)
        # without the leading sides of 1 that broadcasting there has
        if name in own and tensor.numel() == own[name].numel():
            tensor = tensor.reshape(own[name].shape)
        renamed[name] = tensor
    if "mapping.w_avg" not in renamed:
        renamed["mapping.w_avg"] = mean_style(renamed)
    return renamed


def _generator_name(name: str) -> str:
    if name == AVERAGE:
        return "mapping.w_avg"
    if name == "input.input":
        return "synthesis.b4.const"
    if found := re.fullmatch(rf"style\.(\d+)\.{PARTS}", name):
        return f"mapping.fc{int(found[1]) - 1}.{found[2]}"
    if found := re.fullmatch(r"noises\.noise_(\d+)", name):
        return f"synthesis.{_layer(int(found[1]))}.noise_const"
    if found := re.fullmatch(r"(conv1|convs\.(\d+))\.(.+)", name):
        return f"synthesis.{_layer(int(found[2]) + 1 if found[2] else 0)}.{_leaf(found[3])}"
    if found := re.fullmatch(r"to_rgb(1|s\.(\d+))\.(.+)", name):
        side = 8 << int(found[2]) if found[2] else 4
        return f"synthesis.b{side}.torgb.{_leaf(found[3])}"
    raise InputError(f"weight {name[:80]} is unknown in a StyleGAN2 generator of rosinality's")


def _layer(index: int) -> str:
    """Return the place of a convolution, counted from the coarsest: one at 4 pixels, then two a resolution."""
    if index == 0:
        return "b4.conv1"
    return f"b{8 << (index - 1) // 2}.conv{(index - 1) % 2}"


def _leaf(name: str) -> str:
    """Return our name of a weight in a layer with styles."""
    if found := re.fullmatch(rf"conv\.modulation\.{PARTS}", name):
        return f"affine.{found[1]}"
    known = {
        "conv.weight": "weight",
        "bias": "bias",
        "activate.bias": "bias",
        "noise.weight": "noise_strength",
    }
    if name not in known:
        raise InputError(
            f"weight {name[:80]} is unknown in a StyleGAN2 layer of rosinality's; other kinds of networks are not read"
        )
    return known[name]


def mean_style(renamed: Mapping[str, Tensor]) -> Tensor:
    """Return the mean of w [D] over many z, as that repository takes it when images are made."""
    prefix = "mapping."
    layers = {
        name.removeprefix(prefix): value
        for name, value in renamed.items()
        if name.startswith(prefix)
    }
    width = len(layers["fc0.bias"])
    mapping = MappingNetwork(
        z_dim=width, num_classes=0, w_dim=width, num_layers=len(layers) // 2, num_ws=None
    )
    mapping.load_state_dict(layers)
    z = torch.randn(SAMPLES, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = mapping(z).mean(dim=0)
    return found


def translate_discriminator(
    state: Mapping[str, Any], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give a discriminator's published weights our names; blocks are counted from the finest there."""
    sides = sorted({int(found[1]) for name in own if (found := re.match(r"b(\d+)\.", name))})
    return {
        _discriminator_name(name, sides[-1]): torch.as_tensor(value)
        for name, value in state.items()
        if not name.endswith(".kernel")
    }


def _discriminator_name(name: str, size: int) -> str:
    if found := re.fullmatch(rf"(convs\.0|final_conv)\.\d\.{PARTS}", name):
        return f"{f'b{size}.fromrgb' if found[1] == 'convs.0' else 'b4.conv'}.{found[2]}"
    if found := re.fullmatch(rf"final_linear\.([01])\.{PARTS}", name):
        return f"b4.{'fc' if found[1] == '0' else 'out'}.{found[2]}"
    if found := re.fullmatch(rf"convs\.(\d+)\.(conv1|conv2|skip)\.\d\.{PARTS}", name):
        layer = {"conv1": "conv0", "conv2": "conv1", "skip": "skip"}[found[2]]
        return f"b{size >> (int(found[1]) - 1)}.{layer}.{found[3]}"
    raise InputError(f"weight {name[:80]} is unknown in a StyleGAN2 discriminator of rosinality's")
