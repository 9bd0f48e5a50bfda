"""StyleGAN2(-ADA) networks as the stylegan2-ada-pytorch and stylegan3 repositories store them.

Names of arguments and weights are theirs: https://github.com/NVlabs/stylegan3 and
https://github.com/NVlabs/stylegan2-ada-pytorch.
"""

from collections.abc import Mapping
from typing import Any

from gan_lab.models.stylegan2 import Discriminator, Generator
from gan_lab.training.state_dicts import Renames, part, renamer
from gan_lab.weights.arguments import LARGEST, MOST_LAYERS, Arguments
from gan_lab.weights.blueprint import Blueprint, Blueprints

MAPPING: Renames = (
    (r"mapping\.w_avg", r"mapping.w_avg"),
    (r"mapping\.embed\.(\w+)", r"mapping.network.embedding.\1"),
    (r"mapping\.fc(\d+)\.(\w+)", r"mapping.network.layers.\1.\2"),
)

# of stylegan2-ada-pytorch, where they are not those of the stylegan3 repository, which stand below
OLDER_DEFAULTS = {"conv_clamp": None, "num_fp16_res": 0}

# a filter that every layer stores and that is always the same is built, not read
FILTER = r"(.*\.)?resample_filter"


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G and D; see `gan_lab.weights.from_published`."""
    defaults = OLDER_DEFAULTS if "stylegan2-ada-pytorch" in config["source"] else {}
    networks: Blueprints = {}
    if "generator" in config:
        networks["G"] = generator({**defaults, **config["generator"]}, part(state, "G"))
    if "discriminator" in config:
        networks["D"] = discriminator({**defaults, **config["discriminator"]}, part(state, "D"))
    return networks


def generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a generator's published arguments and weights."""
    given = Arguments(arguments, "generator")
    size = given.take("img_resolution", int)
    mapping = given.inner("mapping_kwargs")
    # those of a pickle stand beside the synthesis network's or in a mapping of their own
    synthesis = given.inner("synthesis_kwargs", beside=True)
    ours = {
        "image_size": size,
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
    return Blueprint(Generator, ours, state, renamer(generator_renames(size), ignored=FILTER))


def discriminator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a discriminator's published arguments and weights."""
    given = Arguments(arguments, "discriminator")
    size = given.take("img_resolution", int)
    block, mapping, epilogue = (
        given.inner(f"{name}_kwargs") for name in ("block", "mapping", "epilogue")
    )
    group = epilogue.take("mbstd_group_size", int, default=4)
    channels = epilogue.take("mbstd_num_channels", int, default=1)
    ours = {
        "image_size": size,
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
    return Blueprint(
        Discriminator, ours, state, renamer(discriminator_renames(size), ignored=FILTER)
    )


def expect_layers(mapping: Arguments, width: int | None) -> None:
    """Take what is fixed here of a mapping network: as wide as what it makes, with leaky rectifiers."""
    mapping.expect("embed_features", None, width)
    mapping.expect("layer_features", None, width)
    mapping.expect("activation", "lrelu")


def expect_convolutions(given: Arguments) -> None:
    """Take what is fixed here of convolutions."""
    given.expect("activation", "lrelu")
    given.expect("resample_filter", [1, 3, 3, 1])


def generator_renames(size: int) -> Renames:
    """Return published names -> ours; their blocks bear the resolution, ours count from the lowest."""
    blocks = []
    for i, side in enumerate(resolutions(size)):
        theirs, ours = rf"synthesis\.b{side}", rf"synthesis.blocks.{i}"
        blocks += [
            (rf"{theirs}\.(conv\d)\.noise_const", rf"{ours}.\1.noise"),
            (rf"{theirs}\.torgb\.(.+)", rf"{ours}.to_image.\1"),
            (rf"{theirs}\.((?:conv\d|skip)\..+)", rf"{ours}.\1"),
        ]
    return (*MAPPING, (r"synthesis\.b4\.const", "synthesis.constant"), *blocks)


def discriminator_renames(size: int) -> Renames:
    """Return published names -> ours, whose blocks count from the image on."""
    blocks = []
    for i, side in enumerate(reversed(resolutions(size)[1:])):
        theirs, ours = rf"b{side}", f"blocks.{i}"
        blocks += [
            (rf"{theirs}\.fromrgb\.(.+)", rf"{ours}.from_image.\1"),
            (rf"{theirs}\.((?:conv\d|skip)\..+)", rf"{ours}.\1"),
        ]
    return (
        *blocks,
        (r"mapping\.embed\.(\w+)", r"embedding.embedding.\1"),
        (r"mapping\.fc(\d+)\.(\w+)", r"embedding.layers.\1.\2"),
        (r"b4\.fromrgb\.(.+)", r"from_image.\1"),
        (r"b4\.conv\.(.+)", r"conv.\1"),
        (r"b4\.fc\.(.+)", r"dense.\1"),
        (r"b4\.out\.(.+)", r"logit.\1"),
    )


def resolutions(size: int) -> list[int]:
    """Return 4, 8, ... up to the side of the image."""
    return [4 << i for i in range(size.bit_length() - 2)]
