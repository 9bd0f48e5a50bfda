"""StyleGAN2(-ADA) and StyleGAN3 networks as NVIDIA's repositories store them.

Names of arguments are theirs: https://github.com/NVlabs/stylegan3 and https://github.com/NVlabs/stylegan2-ada-pytorch.
Names of weights are the same here, but filters, which follow from the arguments, are not read. `publish` goes the other
way: arguments and weights as the classes of the stylegan3 repository take them.
"""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.equalized import EqualizedConv2d
from gan_lab.layers.resolutions import fir_filter
from gan_lab.layers.stylegan import StyledConv
from gan_lab.models import stylegan2, stylegan3
from gan_lab.training.state_dicts import renamer
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
    ours = {
        "image_size": given.take("img_resolution", int),
        "channels": given.take("img_channels", int),
        "num_classes": given.take("c_dim", int),
        "z_dim": given.take("z_dim", int),
        "w_dim": (w_dim := given.take("w_dim", int)),
        "mapping_layers": mapping.take("num_layers", int, default=8, most=MOST_LAYERS),
        "w_avg_beta": mapping.take("w_avg_beta", float, default=0.998),
        "channel_base": synthesis.take("channel_base", int, default=32768),
        "channel_max": synthesis.take("channel_max", int, default=512),
        "architecture": synthesis.take("architecture", str, default="skip"),
        "clamp": synthesis.take("conv_clamp", float, default=256.0),
        "num_fp16_res": synthesis.take("num_fp16_res", int, default=4),
    }
    mapping.expect("lr_multiplier", 0.01)
    expect_layers(mapping, w_dim)
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
    ours = {
        "image_size": given.take("img_resolution", int),
        "channels": given.take("img_channels", int),
        "num_classes": given.take("c_dim", int),
        "z_dim": given.take("z_dim", int),
        "w_dim": given.take("w_dim", int),
        "mapping_layers": mapping.take("num_layers", int, default=2, most=MOST_LAYERS),
        "w_avg_beta": mapping.take("w_avg_beta", float, default=0.998),
        "channel_base": synthesis.take("channel_base", int, default=32768),
        "channel_max": synthesis.take("channel_max", int, default=512),
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
        "clamp": synthesis.take("conv_clamp", float, default=256.0),
        "num_fp16_res": synthesis.take("num_fp16_res", int, default=4),
    }
    mapping.expect("lr_multiplier", 0.01)
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
