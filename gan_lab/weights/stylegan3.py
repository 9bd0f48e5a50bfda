"""StyleGAN3 networks as the stylegan3 repository stores them; its discriminators are StyleGAN2's.

Names of arguments and weights are theirs: https://github.com/NVlabs/stylegan3.
"""

from collections.abc import Mapping
from typing import Any

from gan_lab.models.stylegan3 import Generator
from gan_lab.training.state_dicts import Renames, part, renamer
from gan_lab.weights.arguments import MOST_LAYERS, Arguments
from gan_lab.weights.blueprint import Blueprint, Blueprints
from gan_lab.weights.stylegan2 import MAPPING, discriminator

GENERATOR: Renames = (
    *MAPPING,
    (r"synthesis\.input\.freqs", "synthesis.input.frequencies"),
    (r"synthesis\.input\.(.+)", r"synthesis.input.\1"),
    (r"synthesis\.L(\d+)_\d+_\d+\.magnitude_ema", r"synthesis.layers.\1.magnitude"),
    (r"synthesis\.L(\d+)_\d+_\d+\.(.+)", r"synthesis.layers.\1.\2"),
)

# designed from the arguments, not read
MOST_TAPS = 64  # filters are made before weights are compared

FILTERS = r"synthesis\.L\d+_\d+_\d+\.(up|down)_filter"


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G and D; see `gan_lab.weights.from_published`."""
    networks: Blueprints = {}
    if "generator" in config:
        networks["G"] = generator(config["generator"], part(state, "G"))
    if "discriminator" in config:
        networks["D"] = discriminator(config["discriminator"], part(state, "D"))
    return networks


def generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
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
    return Blueprint(Generator, ours, state, renamer(GENERATOR, ignored=FILTERS))
