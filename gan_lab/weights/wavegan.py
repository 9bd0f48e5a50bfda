"""Published weights of WaveGAN: TensorFlow variables, channels last.

Names of arguments and weights are theirs: https://github.com/chrisdonahue/wavegan.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan_lab.models.wavegan import Discriminator, Generator
from gan_lab.training.state_dicts import Renames, rename
from gan_lab.weights.blueprint import Arguments, Blueprint, Blueprints, read_players

Z_DIM = 100

RENAMES: Renames = (
    (r"z_project/dense/kernel", r"start.weight"),
    (r"z_project/dense/bias", r"start.bias"),
    (r"(?:up|down)conv_(\d+)/conv(?:1d|2d_transpose)/kernel", r"layers.\1.weight"),
    (r"(?:up|down)conv_(\d+)/conv(?:1d|2d_transpose)/bias", r"layers.\1.bias"),
    (r"pp_filt/conv1d/kernel", r"filter.weight"),
    (r"output/dense/kernel", r"logit.affine.weight"),
    (r"output/dense/bias", r"logit.affine.bias"),
)


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G and D; see `gan_lab.weights.from_published`."""
    return read_players(config, state, generator=generator, discriminator=discriminator)


def generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a generator's published arguments and weights; lengths of z and filter follow from the weights."""
    given = Arguments(arguments, "generator")
    ours = shared(given)
    upsample = given.take("upsample", str, default="zeros")
    ours["upsample"] = "nearest" if upsample == "nn" else upsample
    given.finish()
    weights = state or {}
    if "pp_filt/conv1d/kernel" in weights:
        ours["filter_length"] = len(weights["pp_filt/conv1d/kernel"])
    projection = weights.get("z_project/dense/kernel")
    ours["z_dim"] = Z_DIM if projection is None else len(projection)
    return Blueprint(Generator, ours, state, translate)


def discriminator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a discriminator's published arguments and weights."""
    given = Arguments(arguments, "discriminator")
    ours = shared(given)
    ours["phase_shuffle"] = given.take("phaseshuffle_rad", int, default=0)
    given.finish()
    return Blueprint(Discriminator, ours, state, translate)


def shared(given: Arguments) -> dict[str, Any]:
    """Take the arguments that both networks share."""
    given.expect("use_batchnorm", False)
    length = given.take("slice_len", int, default=16384, most=1 << 24)
    return {
        "sample_shape": [given.take("nch", int, default=1), length],
        "width": given.take("dim", int, default=64),
        "kernel": given.take("kernel_len", int, default=25),
    }


def translate(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to ours and transpose them."""
    return {
        rename(name, RENAMES): torch.from_numpy(ordered(value)) for name, value in state.items()
    }


def ordered(value: Any) -> np.ndarray:
    """Reverse the axes of a variable: biases, [in, out], and [1, ] K, in, out."""
    array = np.asarray(value)
    return np.ascontiguousarray((array[0] if array.ndim == 4 else array).T)
