"""Published weights of projected-gan: FastGAN's generator and the projected discriminator.

https://github.com/autonomousvision/projected-gan
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.models.fastgan import MULTIPLES, Generator
from gan_lab.models.projected import Discriminator
from gan_lab.training.state_dicts import Renames, part, rename
from gan_lab.weights.blueprint import Arguments, Blueprint, Blueprints

SOURCE = "projected-gan FastGAN generator"

SIZES = (128, 256, 512, 1024)  # image sizes of the published network

# index of a block's layers in the published lists; conditional blocks have names
LAYERS = {"1": (0, "conv"), "2": (0, "strength"), "3": (0, "norm.norm")}
LAYERS |= {"5": (1, "conv"), "6": (1, "strength"), "7": (1, "norm.norm")}
LITE_LAYERS = {"1": (0, "conv"), "2": (0, "norm.norm")}

PREFIX = r"(?:synthesis\.)?"


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read the generator that published arguments describe.

    Raises:
        InputError: for arguments that are not supported.
    """
    given = Arguments(config["generator"], "generator")
    synthesis = given.inner("synthesis_kwargs")
    size = given.take("img_resolution", int, default=256)
    if size not in SIZES:
        raise InputError(f"img_resolution={size} must be one of {', '.join(map(str, SIZES))}")
    labels = given.take("c_dim", int, default=0)
    conditional = given.take("cond", int, default=0)
    ours = {
        "image_size": size,
        "channels": given.take("img_channels", int, default=3),
        "num_classes": labels if conditional else 0,
        "z_dim": given.take("z_dim", int, default=256),
        "width": given.take("ngf", int, default=128),
        "lite": synthesis.take("lite", bool, default=False),
    }
    # rows of its class embedding; those beyond the number of classes are unused
    synthesis.take("num_classes", int, default=1000)
    given.take("w_dim", int, default=0)
    given.inner("mapping_kwargs")
    synthesis.finish()
    given.finish()
    return {"G": Blueprint(Generator, ours, part(state, "G"), translate)}


def translate(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to ours; layers for larger images than the network's are dropped."""
    lite = not any(name.endswith("strength") for name in own)
    renamed: dict[str, Tensor] = {}
    for published, value in state.items():
        tensor = torch.as_tensor(value)
        for name in map(with_parametrization, our_names(published, lite=lite)):
            if name.endswith("embedding.weight"):
                tensor = tensor[: len(own[name])]
            if name.endswith("strength"):
                tensor = tensor.reshape(())
            if name in own:
                renamed[name] = tensor
    # published conditional norms have no counter of batches
    for name in own:
        if name.endswith("num_batches_tracked"):
            renamed.setdefault(name, torch.zeros((), dtype=torch.int64))
    return renamed


def our_names(published: str, *, lite: bool) -> list[str]:
    """Return our names of a published weight (before parametrization); several if it is shared.

    Raises:
        InputError: for a weight that is unknown.
    """
    name = re.sub(f"^{PREFIX}", "", published)
    if found := re.fullmatch(r"init\.init\.(\d)\.(.+)", name):
        return [f"start.{found[1]}.{found[2]}"]
    if found := re.fullmatch(r"(to_big|embed)\.(.+)", name):
        return [f"{'to_image' if found[1] == 'to_big' else 'embedding'}.{found[2]}"]
    if found := re.fullmatch(r"se_(\d+)\.main\.([13])\.(.+)", name):
        return [f"excitations.{level(found[1])}.conv{1 if found[2] == '1' else 2}.{found[3]}"]
    if found := re.fullmatch(r"feat_(\d+)\.(\w+)\.(.+)", name):
        block = f"blocks.{level(found[1]) - 1}.layers"
        return [f"{block}.{name}" for name in layer_names(found[2], found[3], lite=lite)]
    raise InputError(f"weight {published[:80]} is unknown in FastGAN's generator")


def layer_names(layer: str, leaf: str, *, lite: bool) -> list[str]:
    """Return the layers of a block that a published weight belongs to."""
    if layer in (known := LITE_LAYERS if lite else LAYERS):
        index, ours = known[layer]
        return [f"{index}.{ours}" if ours == "strength" else f"{index}.{ours}.{leaf}"]
    if layer == "noise":  # both layers share the noise strength
        return [f"{index}.strength" for index in range(2)]
    if found := re.fullmatch(r"conv([12]?)", layer):
        return [f"{int(found[1] or 1) - 1}.conv.{leaf}"]
    if found := re.fullmatch(r"bn([12]?)", layer):
        index = int(found[1] or 1) - 1
        leaf = re.sub(r"^stored_", "norm.running_", re.sub(r"^bias\.", "offset.", leaf))
        return [f"{index}.norm.{leaf}"]
    raise InputError(f"layer {layer[:40]} is unknown in FastGAN's generator")


def level(side: str) -> int:
    """Return the number of upsamplings from 4 pixels to a resolution."""
    return int(side).bit_length() - 3


def with_parametrization(name: str) -> str:
    """Return the name of a spectrally normalized weight or of its singular vectors in our state dict."""
    name = re.sub(r"weight_orig$", "parametrizations.weight.original", name)
    return re.sub(r"weight_([uv])$", r"parametrizations.weight.0.\1", name)


def arguments(sizes: Mapping[str, tuple[int, ...]], labels: int | None = None) -> dict[str, Any]:
    """Find a generator's published arguments from the shapes of its weights.

    Args:
        sizes: published name -> shape.
        labels: number of classes of its data; None for all rows of its class embedding.

    Raises:
        InputError: for weights of another network.
    """
    shapes = {re.sub(f"^{PREFIX}", "", name): size for name, size in sizes.items()}
    first, last = shapes.get("init.init.0.weight_orig"), shapes.get("to_big.weight_orig")
    if first is None or last is None or len(first) != 4 or len(last) != 4:
        raise InputError(
            f"its weights are not those of projected-gan's FastGAN: they begin with {', '.join(list(sizes)[:3])}"
        )
    width = first[1] // (2 * MULTIPLES[0])
    fitting = [size for size in SIZES if int(MULTIPLES[level(str(size))] * width) == last[1]]
    if not fitting:
        raise InputError(f"its image is made of {last[1]} channels, of which no size is known")
    found = {
        "z_dim": first[0],
        "img_channels": last[0],
        "ngf": width,
        "img_resolution": fitting[0],
        "synthesis_kwargs": {"lite": not any(re.search("feat_8.(5|conv2)[.]", n) for n in shapes)},
    }
    table = shapes.get("embed.weight")
    if table is not None:
        found |= {"cond": 1, "c_dim": table[0] if labels is None else labels}
    return found


# Discriminator


TABLE = "D/mini_discs.0.embed.weight"

PUBLISHED_CLASSES = 1000  # rows of the class embedding, independent of the data

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


def read_discriminator(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read the discriminator that published arguments describe, without its frozen network's weights.

    Args:
        config: `discriminator`: arguments by their published names.
        state: `"N/scratch..."`, the random mixing, and `"D/mini_discs..."`; None for random weights.

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
    return {"D": Blueprint(Discriminator, ours, state, translate_discriminator)}


def translate_discriminator(
    state: Mapping[str, Any], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Rename published weights to ours; the frozen network keeps the weights it has."""
    weights = {}
    for published, value in state.items():
        if not published.startswith(("N/", "D/")):
            continue
        name = rename(published, NAMES)
        name = re.sub(r"weight_orig$", "parametrizations.weight.original", name)
        name = re.sub(r"weight_([uv])$", r"parametrizations.weight.0.\1", name)
        weights[name] = torch.as_tensor(value)
    return weights
