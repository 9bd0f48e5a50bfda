"""StyleGAN2(-ADA) and StyleGAN3 networks as NVIDIA's repositories store them.

Names of arguments are theirs: https://github.com/NVlabs/stylegan3 and https://github.com/NVlabs/stylegan2-ada-pytorch.
Names of weights are the same here, but filters, which follow from the arguments, are not read.
"""

from collections.abc import Mapping
from typing import Any

from gan_lab.models import stylegan2, stylegan3
from gan_lab.training.state_dicts import part, renamer
from gan_lab.weights.blueprint import LARGEST, MOST_LAYERS, Arguments, Blueprint, Blueprints

# of stylegan2-ada-pytorch, where they are not those of the stylegan3 repository, which stand below
OLDER_DEFAULTS = {"conv_clamp": None, "num_fp16_res": 0}

MOST_TAPS = 64  # filters are made before weights are compared

TRANSLATE = renamer([(r"(.+)", r"\1")], ignored=r"(.*\.)?(resample|up|down)_filter")


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G and D, which is StyleGAN2's for StyleGAN3, too; see `gan_lab.weights.from_published`."""
    source = config["source"]
    defaults = OLDER_DEFAULTS if "stylegan2-ada-pytorch" in source else {}
    generator = stylegan3_generator if source.startswith("stylegan3") else stylegan2_generator
    networks: Blueprints = {}
    if "generator" in config:
        networks["G"] = generator({**defaults, **config["generator"]}, part(state, "G"))
    if "discriminator" in config:
        networks["D"] = discriminator({**defaults, **config["discriminator"]}, part(state, "D"))
    return networks


def stylegan2_generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a generator's published arguments and weights."""
    given = Arguments(arguments, "generator")
    mapping = given.inner("mapping_kwargs")
    # those of a pickle stand beside the synthesis network's or in a mapping of their own
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
    # how NVIDIA's code computes the same
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
    """Take what is fixed here of a mapping network: as wide as what it makes, with leaky rectifiers."""
    mapping.expect("embed_features", None, width)
    mapping.expect("layer_features", None, width)
    mapping.expect("activation", "lrelu")


def expect_convolutions(given: Arguments) -> None:
    """Take what is fixed here of convolutions."""
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
