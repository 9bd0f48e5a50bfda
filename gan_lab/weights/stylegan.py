"""Published weights of StyleGAN2(-ADA) and StyleGAN3, NVIDIA's and rosinality's.

Names of arguments are NVIDIA's: https://github.com/NVlabs/stylegan3 and https://github.com/NVlabs/stylegan2-ada-pytorch.
Names of weights are the same here, but filters, which follow from the arguments, are not read. `published_arguments`
and `published_weights` go the other way: as the classes of the stylegan3 repository take them.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.equalized import EqualizedConv2d
from gan_lab.layers.resolutions import fir_filter
from gan_lab.layers.stylegan import Mapping as MappingNetwork
from gan_lab.layers.stylegan import StyledConv
from gan_lab.models import stylegan2, stylegan3
from gan_lab.training.state_dicts import part, renamer
from gan_lab.weights.blueprint import (
    LARGEST,
    MOST_LAYERS,
    Arguments,
    Blueprint,
    Blueprints,
    read_players,
)

# of stylegan2-ada-pytorch, where they are not those of the stylegan3 repository, which stand below
OLDER_DEFAULTS = {"conv_clamp": None, "num_fp16_res": 0}

MOST_TAPS = 64  # filters are computed before weights are compared

# names are the same here; filters are not read
TRANSLATE = renamer([(r"(.+)", r"\1")], ignored=r"(.*\.)?(resample|up|down)_filter")


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G and D (StyleGAN3 has StyleGAN2's D); see `gan_lab.weights.from_published`."""
    source = config["source"]
    defaults = OLDER_DEFAULTS if "stylegan2-ada-pytorch" in source else {}
    generator = stylegan3_generator if source.startswith("stylegan3") else stylegan2_generator
    given = {
        player: {**defaults, **config[player]}
        for player in ("generator", "discriminator")
        if player in config
    }
    return read_players(given, state, generator=generator, discriminator=discriminator)


def stylegan2_generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a generator's published arguments and weights."""
    given = Arguments(arguments, "generator")
    mapping = given.inner("mapping_kwargs")
    # pickles have them at the outer level or in a mapping of their own
    synthesis = given.inner("synthesis_kwargs", beside=True)
    ours = generator_arguments(given, mapping, synthesis, mapping_layers=8) | {
        "architecture": synthesis.take("architecture", str, default="skip")
    }
    expect_layers(mapping, ours["w_dim"])
    synthesis.expect("use_noise", True)
    expect_convolutions(synthesis)
    # implementation details of NVIDIA's code
    synthesis.take("fused_modconv_default", object, default=None)
    for node in (mapping, synthesis, given):
        node.finish()
    return Blueprint(stylegan2.Generator, ours, state, TRANSLATE)


def discriminator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a discriminator's published arguments and weights."""
    given = Arguments(arguments, "discriminator")
    block, mapping, epilogue = (
        given.inner(f"{name}_kwargs") for name in ("block", "mapping", "epilogue")
    )
    group = epilogue.take("mbstd_group_size", int, default=4)
    channels = epilogue.take("mbstd_num_channels", int, default=1)
    ours = {
        "image_size": given.take("img_resolution", int),
        "channels": given.take("img_channels", int),
        "num_classes": given.take("c_dim", int),
        "channel_base": given.take("channel_base", int, default=32768),
        "channel_max": given.take("channel_max", int, default=512),
        "architecture": given.take("architecture", str, default="resnet"),
        "label_dim": (label_dim := given.take("cmap_dim", int, default=None)),
        "label_layers": (layers := mapping.take("num_layers", int, default=8, most=MOST_LAYERS)),
        "mbstd_num_channels": channels,
        "mbstd_group_size": (LARGEST if group is None else group) if channels else 0,
        "clamp": given.take("conv_clamp", float, default=256.0),
        "num_fp16_res": given.take("num_fp16_res", int, default=4),
        "frozen_layers": block.take("freeze_layers", int, default=0),
    }
    if layers:
        mapping.expect("lr_multiplier", 0.01)
    else:
        mapping.take("lr_multiplier", float, default=None)
    expect_layers(mapping, label_dim)
    expect_convolutions(block)
    epilogue.expect("activation", "lrelu")
    for node in (block, mapping, epilogue, given):
        node.finish()
    return Blueprint(stylegan2.Discriminator, ours, state, TRANSLATE)


def generator_arguments(
    given: Arguments, mapping: Arguments, synthesis: Arguments, *, mapping_layers: int
) -> dict[str, Any]:
    """Take the arguments that both generators share; `mapping_layers` is the default."""
    mapping.expect("lr_multiplier", 0.01)
    return {
        "image_size": given.take("img_resolution", int),
        "channels": given.take("img_channels", int),
        "num_classes": given.take("c_dim", int),
        "z_dim": given.take("z_dim", int),
        "w_dim": given.take("w_dim", int),
        "mapping_layers": mapping.take("num_layers", int, default=mapping_layers, most=MOST_LAYERS),
        "w_avg_beta": mapping.take("w_avg_beta", float, default=0.998),
        "channel_base": synthesis.take("channel_base", int, default=32768),
        "channel_max": synthesis.take("channel_max", int, default=512),
        "clamp": synthesis.take("conv_clamp", float, default=256.0),
        "num_fp16_res": synthesis.take("num_fp16_res", int, default=4),
    }


def expect_layers(mapping: Arguments, width: int | None) -> None:
    """Check the unsupported options of a mapping network: width and activation."""
    mapping.expect("embed_features", None, width)
    mapping.expect("layer_features", None, width)
    mapping.expect("activation", "lrelu")


def expect_convolutions(given: Arguments) -> None:
    """Check the unsupported options of convolutions."""
    given.expect("activation", "lrelu")
    given.expect("resample_filter", [1, 3, 3, 1])


def stylegan3_generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a generator's published arguments and weights."""
    given = Arguments(arguments, "generator")
    mapping = given.inner("mapping_kwargs")
    synthesis = given.inner("synthesis_kwargs", beside=True)
    ours = generator_arguments(given, mapping, synthesis, mapping_layers=2) | {
        "num_layers": synthesis.take("num_layers", int, default=14, most=MOST_LAYERS),
        "num_critical": synthesis.take("num_critical", int, default=2),
        "kernel": synthesis.take("conv_kernel", int, default=3, most=MOST_TAPS),
        "radial": synthesis.take("use_radial_filters", bool, default=False),
        "first_cutoff": synthesis.take("first_cutoff", float, default=2.0),
        "first_stopband": synthesis.take("first_stopband", float, default=2**2.1),
        "last_stopband": synthesis.take("last_stopband_rel", float, default=2**0.3),
        "margin": synthesis.take("margin_size", int, default=10, most=MOST_TAPS),
        "filter_size": synthesis.take("filter_size", int, default=6, most=MOST_TAPS),
        "output_scale": synthesis.take("output_scale", float, default=0.25),
        "magnitude_decay": synthesis.take("magnitude_ema_beta", float, default=0.999),
    }
    synthesis.expect("lrelu_upsampling", 2)
    for node in (mapping, synthesis, given):
        node.finish()
    return Blueprint(stylegan3.Generator, ours, state, TRANSLATE)


# Export: our networks for NVIDIA's code.

SOURCES: dict[type[nn.Module], str] = {
    stylegan2.Generator: "stylegan2-ada networks (stylegan3 repository)",
    stylegan3.Generator: "stylegan3 networks",
}

CLASSES: dict[type[nn.Module], str] = {
    stylegan2.Generator: "training.networks_stylegan2.Generator",
    stylegan2.Discriminator: "training.networks_stylegan2.Discriminator",
    stylegan3.Generator: "training.networks_stylegan3.Generator",
}

COMMON = {"img_resolution": "image_size", "img_channels": "channels", "c_dim": "num_classes"}
PRECISION = {"conv_clamp": "clamp", "num_fp16_res": "num_fp16_res"}
WIDTHS = {"channel_base": "channel_base", "channel_max": "channel_max"}
LATENTS = {"z_dim": "z_dim", "w_dim": "w_dim"}

# constructor arguments: published name -> ours; nested ones have the name of their mapping first
OURS: dict[type[nn.Module], dict[str, str]] = {
    stylegan2.Generator: {
        **{**COMMON, **LATENTS, **WIDTHS, **PRECISION},
        "architecture": "architecture",
        "mapping_kwargs.num_layers": "mapping_layers",
        "mapping_kwargs.w_avg_beta": "w_avg_beta",
    },
    stylegan2.Discriminator: {
        **{**COMMON, **WIDTHS, **PRECISION},
        "architecture": "architecture",
        "cmap_dim": "label_dim",
        "mapping_kwargs.num_layers": "label_layers",
        "block_kwargs.freeze_layers": "frozen_layers",
        "epilogue_kwargs.mbstd_group_size": "mbstd_group_size",
        "epilogue_kwargs.mbstd_num_channels": "mbstd_num_channels",
    },
    stylegan3.Generator: {
        **{**COMMON, **LATENTS, **WIDTHS, **PRECISION},
        "mapping_kwargs.num_layers": "mapping_layers",
        "mapping_kwargs.w_avg_beta": "w_avg_beta",
        "num_layers": "num_layers",
        "num_critical": "num_critical",
        "conv_kernel": "kernel",
        "use_radial_filters": "radial",
        "first_cutoff": "first_cutoff",
        "first_stopband": "first_stopband",
        "last_stopband_rel": "last_stopband",
        "margin_size": "margin",
        "filter_size": "filter_size",
        "output_scale": "output_scale",
        "magnitude_ema_beta": "magnitude_decay",
    },
}


def published_arguments(kind: type[nn.Module], node: Mapping[str, Any]) -> dict[str, Any]:
    """Return constructor arguments as NVIDIA's class of the stylegan3 repository takes them.

    Args:
        kind: our class.
        node: which describes the network: our arguments.

    Raises:
        InputError: for another class, and for options that NVIDIA's classes do not have.
    """
    if kind not in OURS:
        raise InputError(
            f"format=nvidia is for StyleGAN2 and StyleGAN3, and this is {kind.__module__}; leave nvidia out of format="
        )
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()
    }
    given = {**defaults, **node}
    size = given["image_size"]
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = max(sides)
    if len(sides) > 1 or (kind is not stylegan3.Generator and side & (side - 1)):
        allowed = "squares" if kind is stylegan3.Generator else "squares of 4, 8, 16 ... pixels"
        raise InputError(
            f"format=nvidia: image_size={size}, and NVIDIA's networks make {allowed}; leave nvidia out of format="
        )
    given["image_size"] = side
    if given.get("fp16_dtype") != "float16":  # NVIDIA's classes support no other half precision
        given["num_fp16_res"] = 0
    if kind is stylegan2.Discriminator and not given["mbstd_group_size"]:
        given["mbstd_group_size"], given["mbstd_num_channels"] = 1, 0
    found: dict[str, Any] = {}
    for published, ours in OURS[kind].items():
        outer, _, inner = published.rpartition(".")
        place = found.setdefault(outer, {}) if outer else found
        place[inner] = given[ours]
    return found


def published_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights by NVIDIA's names, which are ours, with their modules' filters."""
    return {**network.state_dict(), **dict(_filters(network))}


def _filters(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the filters of NVIDIA's modules by name; modules without resampling have one, too."""
    resampling = (
        *(StyledConv, EqualizedConv2d),
        *(stylegan2.SynthesisBlock, stylegan2.DiscriminatorBlock),
    )
    for name, module in network.named_modules():
        if isinstance(module, resampling):
            yield f"{name}.resample_filter", fir_filter()
        if isinstance(module, stylegan3.FilteredLeakyReLU):
            layer = name.rpartition(".")[0]
            # a filter of one tap does nothing, and is none there
            if len(module.up_filter) > 1:
                yield f"{layer}.up_filter", module.up_filter / module.up
            if len(module.down_filter) > 1:
                yield f"{layer}.down_filter", module.down_filter


# rosinality's StyleGAN2, https://github.com/rosinality/stylegan2-pytorch. A `.pt` file holds "g_ema" and perhaps "g",
# "d" and "latent_avg": state dicts without arguments, which follow from the shapes. The networks are the same as
# NVIDIA's; names, some shapes and the order of resolutions in D are not.


ROSINALITY = "rosinality StyleGAN2"

ROSINALITY_PLAYERS = {"g_ema": "G_ema", "g": "G", "d": "D"}

ROSINALITY_AVERAGE = "latent_avg"

AVERAGED_Z = 10_000  # z whose w are averaged where the file has no average

LEAVES = r"(weight|bias)"

Sizes = Mapping[str, tuple[int, ...]]


def read_rosinality(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
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
        ours = _rosinality_sizes(given, size) | {
            "z_dim": style_dim,
            "w_dim": style_dim,
            "mapping_layers": depth,
        }
        networks["G"] = Blueprint(
            stylegan2.Generator, ours, part(state, "G"), rosinality_generator_weights
        )
    if "discriminator" in config:
        given = Arguments(config["discriminator"], "discriminator")
        size = given.take("size", int)
        ours = _rosinality_sizes(given, size) | {"mbstd_group_size": 4}
        networks["D"] = Blueprint(
            stylegan2.Discriminator, ours, part(state, "D"), rosinality_discriminator_weights
        )
    return networks


def _rosinality_sizes(given: Arguments, size: int) -> dict[str, Any]:
    ours = {
        "image_size": size,
        "channels": 3,
        "num_classes": 0,
        "channel_base": given.take("channel_base", int, default=32768),
        "channel_max": given.take("channel_max", int, default=512),
    }
    given.finish()
    return ours


def is_rosinality(held: Any) -> bool:
    """Whether what a file holds is a checkpoint of this kind."""
    return isinstance(held, dict) and isinstance(held.get("g_ema"), dict)


def describe_rosinality(states: Mapping[str, Sizes]) -> dict[str, Any]:
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
        "source": ROSINALITY,
        "generator": {"size": size, "style_dim": first[1], "n_mlp": len(layers), **widths},
    }
    if "D" in states:
        config["discriminator"] = {"size": size, **widths}
    return config


def rosinality_generator_weights(
    state: Mapping[str, Any], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give a generator's published weights our names and shapes."""
    renamed: dict[str, Tensor] = {}
    for published, value in state.items():
        if published.endswith(".kernel"):  # [1, 3, 3, 1] in all of these networks
            continue
        name = _rosinality_generator_name(published)
        tensor = torch.as_tensor(value)
        # without the leading sides of 1 that broadcasting there has
        if name in own and tensor.numel() == own[name].numel():
            tensor = tensor.reshape(own[name].shape)
        renamed[name] = tensor
    if "mapping.w_avg" not in renamed:
        renamed["mapping.w_avg"] = mean_style(renamed)
    return renamed


def _rosinality_generator_name(name: str) -> str:
    if name == ROSINALITY_AVERAGE:
        return "mapping.w_avg"
    if name == "input.input":
        return "synthesis.b4.const"
    if found := re.fullmatch(rf"style\.(\d+)\.{LEAVES}", name):
        return f"mapping.fc{int(found[1]) - 1}.{found[2]}"
    if found := re.fullmatch(r"noises\.noise_(\d+)", name):
        return f"synthesis.{_rosinality_layer(int(found[1]))}.noise_const"
    if found := re.fullmatch(r"(conv1|convs\.(\d+))\.(.+)", name):
        return f"synthesis.{_rosinality_layer(int(found[2]) + 1 if found[2] else 0)}.{_rosinality_leaf(found[3])}"
    if found := re.fullmatch(r"to_rgb(1|s\.(\d+))\.(.+)", name):
        side = 8 << int(found[2]) if found[2] else 4
        return f"synthesis.b{side}.torgb.{_rosinality_leaf(found[3])}"
    raise InputError(f"weight {name[:80]} is unknown in a StyleGAN2 generator of rosinality's")


def _rosinality_layer(index: int) -> str:
    """Return the name of a convolution, counted from the coarsest: one at 4 pixels, then two a resolution."""
    if index == 0:
        return "b4.conv1"
    return f"b{8 << (index - 1) // 2}.conv{(index - 1) % 2}"


def _rosinality_leaf(name: str) -> str:
    """Return our name of a weight in a layer with styles."""
    if found := re.fullmatch(rf"conv\.modulation\.{LEAVES}", name):
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
    z = torch.randn(AVERAGED_Z, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = mapping(z).mean(dim=0)
    return found


def rosinality_discriminator_weights(
    state: Mapping[str, Any], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give a discriminator's published weights our names; blocks are counted from the finest there."""
    sides = sorted({int(found[1]) for name in own if (found := re.match(r"b(\d+)\.", name))})
    return {
        _rosinality_discriminator_name(name, sides[-1]): torch.as_tensor(value)
        for name, value in state.items()
        if not name.endswith(".kernel")
    }


def _rosinality_discriminator_name(name: str, size: int) -> str:
    if found := re.fullmatch(rf"(convs\.0|final_conv)\.\d\.{LEAVES}", name):
        return f"{f'b{size}.fromrgb' if found[1] == 'convs.0' else 'b4.conv'}.{found[2]}"
    if found := re.fullmatch(rf"final_linear\.([01])\.{LEAVES}", name):
        return f"b4.{'fc' if found[1] == '0' else 'out'}.{found[2]}"
    if found := re.fullmatch(rf"convs\.(\d+)\.(conv1|conv2|skip)\.\d\.{LEAVES}", name):
        layer = {"conv1": "conv0", "conv2": "conv1", "skip": "skip"}[found[2]]
        return f"b{size >> (int(found[1]) - 1)}.{layer}.{found[3]}"
    raise InputError(f"weight {name[:80]} is unknown in a StyleGAN2 discriminator of rosinality's")
