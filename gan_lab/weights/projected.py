"""The discriminator of projected-gan under its names and arguments, https://github.com/autonomousvision/projected-gan."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.models.projected import Discriminator
from gan_lab.training.state_dicts import Renames, rename
from gan_lab.weights.blueprint import Arguments, Blueprint, Blueprints

TABLE = "D/mini_discs.0.embed.weight"

PUBLISHED_CLASSES = 1000  # rows of the table, whatever the data

NAMES: Renames = (
    (r"N/scratch\.layer(\d)_ccm\.(.+)", r"mixing.by_channel.\1.\2"),
    (r"N/scratch\.layer(\d)_csm\.out_conv\.(.+)", r"mixing.by_scale.\1.\2"),
    (
        r"D/mini_discs\.(\d)\.main\.(\d)\.main\.0\.depthwise\.(.+)",
        r"discriminators.\1.blocks.\2.0.0.\3",
    ),
    (
        r"D/mini_discs\.(\d)\.main\.(\d)\.main\.0\.pointwise\.(.+)",
        r"discriminators.\1.blocks.\2.0.1.\3",
    ),
    (r"D/mini_discs\.(\d)\.main\.(\d)\.main\.(\d)\.(.+)", r"discriminators.\1.blocks.\2.\3.\4"),
    (r"D/mini_discs\.(\d)\.(?:main\.\d|cls)\.(weight_.+)", r"discriminators.\1.logits.conv.\2"),
    (r"D/mini_discs\.(\d)\.embed\.weight", r"discriminators.\1.logits.embedding.weight"),
    (r"D/mini_discs\.(\d)\.embed_proj\.0\.(.+)", r"discriminators.\1.logits.projection.\2"),
)


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read the discriminator that published arguments describe; the frozen network is not among its weights.

    Args:
        config: `discriminator`: arguments by their published names.
        state: `"N/scratch..."`, the random mixing, and `"D/mini_discs..."`; None for fresh weights.

    Raises:
        InputError: for arguments that are not supported.
    """
    given = Arguments(config["discriminator"], "discriminator")
    kind = given.take("proj_type", int, default=2)
    if kind not in (1, 2):
        raise InputError(f"proj_type={kind} is not supported; it must be 1 or 2")
    conditional = given.take("cond", int, default=0)
    classes = given.take("c_dim", int, default=0) or PUBLISHED_CLASSES
    if state is not None and TABLE in state:
        classes = len(state[TABLE])
    ours = {
        "channels": 3,
        "num_classes": classes if conditional else 0,
        "width": given.take("cout", int, default=64),
        "expand": given.take("expand", bool, default=True),
        "scales": kind == 2,
        "num_discriminators": given.take("num_discs", int, default=1),
        "separable": given.take("separable", bool, default=False),
    }
    given.expect("patch", False)
    for name in ("im_res", "interp224", "diffaug"):
        given.take(name, object, default=None)
    given.finish()
    return {"D": Blueprint(Discriminator, ours, state, translate)}


def translate(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give published weights our names; the frozen network's are those that it begins with."""
    weights = {}
    for published, value in state.items():
        if not published.startswith(("N/", "D/")):
            continue
        name = rename(published, NAMES)
        name = re.sub(r"weight_orig$", "parametrizations.weight.original", name)
        name = re.sub(r"weight_([uv])$", r"parametrizations.weight.0.\1", name)
        weights[name] = torch.as_tensor(value)
    return weights
