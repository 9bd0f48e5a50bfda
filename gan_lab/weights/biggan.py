"""Published weights of BigGAN-PyTorch (BigGAN and BigGAN-deep), and of pytorch-pretrained-BigGAN."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from reprlib import repr as shortened
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gan_lab.errors import InputError
from gan_lab.layers.resnet import generator_multiples
from gan_lab.models import biggan, biggan_deep
from gan_lab.training.state_dicts import Renames, Translation, part, rename
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

BLOCK = re.compile(r"^blocks\.(\d+)\.(\d+)\.")

# unused: logged singular values, and counters
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
    translate = translation(generator_layer(depth or 1), "start")
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
        translate = translation(discriminator_layer(1), "logit.affine")
        return Blueprint(biggan.Discriminator, ours, state, translate)
    depth = given.take("D_depth", int, default=2, most=MOST_LAYERS)
    translate = translation(discriminator_layer(depth), "logit.affine")
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


def translation(layer_name: Callable[[int, int], str], linear: str) -> Translation:
    """Return the function that renames published tensors to ours.

    Args:
        layer_name: (index of a published list of layers, index in it) -> name of our layer.
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
            name = BLOCK.sub(
                lambda found: f"{layer_name(int(found[1]), int(found[2]))}.", published
            )
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


def generator_layer(depth: int) -> Callable[[int, int], str]:
    """Return the function from a generator's published layer indices to our names."""
    return lambda block, i: f"attentions.{block // depth}" if i else f"blocks.{block}"


def discriminator_layer(depth: int) -> Callable[[int, int], str]:
    """Return the function from a discriminator's published layer indices to our names."""
    return lambda stage, i: f"attentions.{stage}" if i == depth else f"blocks.{stage * depth + i}"


# pytorch-pretrained-BigGAN: DeepMind's BigGAN-deep generators, converted by Hugging Face. Names of arguments
# (`config.json`) and weights are theirs: https://github.com/huggingface/pytorch-pretrained-BigGAN. The layout differs
# from ours (BigGAN-PyTorch's): z comes before the class in the condition, the first layer's features are channels last,
# the last convolution has as many outputs as inputs, of which the first three are the image, and batch norm has
# statistics for several truncations from 0 to 1.


COARSEST = 4

SMALLEST = 128

SHOWN = 3  # outputs of the last convolution that are the image

# tensors of spectral norm that are recomputed
PRETRAINED_UNUSED = re.compile(r".*\.(weight|weight_v|num_batches_tracked)")

LAYER = re.compile(r"generator\.layers\.(\d+)\.")

NORMALIZED = re.compile(r"(.+)\.weight_orig")


class PretrainedGenerator(biggan_deep.Generator):
    """BigGAN-deep whose last convolution has further outputs, which only matter for its spectral norm.

    Args:
        image_size: side.
        channels: of the image, the first outputs.
        maps: outputs of the last convolution.
        num_classes: number of classes.
        z_dim: length of z.
        shared_dim: length of the class's embedding.
        width: base number of channels.
        depth: blocks at each resolution.
        attention: resolutions with self-attention.
        norm_eps: added to variances.
        spectral_eps: of the power method.
    """

    def __init__(
        self,
        *,
        image_size: int,
        channels: int,
        maps: int,
        num_classes: int,
        z_dim: int = 128,
        shared_dim: int = 128,
        width: int = 128,
        depth: int = 2,
        attention: Sequence[int] = (64,),
        norm_eps: float = 1e-4,
        spectral_eps: float = 1e-4,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=maps,
            num_classes=num_classes,
            z_dim=z_dim,
            shared_dim=shared_dim,
            width=width,
            depth=depth,
            attention=attention,
            norm_eps=norm_eps,
            spectral_eps=spectral_eps,
        )
        self.shown = channels

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] and labels [N] to images [N, C, H, W]."""
        return super().forward(z, labels)[:, : self.shown]


def read_pretrained(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G; no discriminator was published.

    Args:
        config: `generator`: the content of config.json, and perhaps `truncation` (0 to 1, default 1), whose batch norm
            statistics are used.
        state: `"G/<published name>"` -> array or tensor; None for random weights.

    Raises:
        InputError: for arguments that are not supported.
    """
    if "discriminator" in config:
        raise InputError("pytorch-pretrained-BigGAN has no discriminator; leave it out")
    return {"G": pretrained_generator(config["generator"], part(state, "G"))}


def pretrained_generator(
    arguments: Mapping[str, Any], state: Mapping[str, Any] | None
) -> Blueprint:
    """Read a generator's published arguments and weights."""
    given = Arguments(arguments, "generator")
    size = given.take("output_dim", int, default=128)
    z_dim = given.take("z_dim", int, default=128)
    given.expect("class_embed_dim", z_dim)
    width = given.take("channel_width", int, default=128)
    depth = check_layers(given.take("layers", object), size)
    position = given.take("attention_layer_position", int, default=8, most=MOST_LAYERS)
    eps = given.take("eps", float, default=1e-4)
    num_stats = given.take("n_stats", int, default=51)
    truncation = given.take("truncation", float, default=1.0)
    ours = {
        "image_size": size,
        "channels": SHOWN,
        "maps": width,
        "num_classes": given.take("num_classes", int, default=1000),
        "z_dim": z_dim,
        "shared_dim": z_dim,
        "width": width,
        "depth": depth,
        "attention": [attention_size(position, depth, size)],
        "norm_eps": eps,
        "spectral_eps": eps,
    }
    given.finish()
    if not 0 < truncation <= 1:
        raise InputError(f"truncation={truncation} must be above 0 and at most 1")
    row = (num_stats - 1) * truncation
    return Blueprint(
        PretrainedGenerator,
        ours,
        state,
        pretrained_translation(position, position // depth - 1, z_dim, row),
    )


def check_layers(layers: Any, size: int) -> int:
    """Return the number of blocks per resolution of published layers [[upsamples, inputs, outputs], ...].

    Raises:
        InputError: when they are not those of BigGAN-deep at this size.
    """
    doublings = size.bit_length() - COARSEST.bit_length()
    if size != COARSEST << max(doublings, 0) or not isinstance(layers, list | tuple):
        raise InputError(f"output_dim={size} must be a power of two, and layers a list")
    if size < SMALLEST:
        raise InputError(f"output_dim={size} is not supported; it must be at least {SMALLEST}")
    depth = len(layers) // doublings
    multiples = generator_multiples(doublings)
    expected = [
        (i == depth - 1, inputs, outputs if i == depth - 1 else inputs)
        for inputs, outputs in pairwise(multiples)
        for i in range(depth)
    ]
    if not depth or [tuple(layer) for layer in layers] != expected:
        raise InputError(
            f"layers are not those of BigGAN-deep with {size} pixels and {depth} blocks at each resolution; other "
            "layouts are not supported"
        )
    return depth


def attention_size(position: int, depth: int, size: int) -> int:
    """Return the resolution of the attention before the layer with this number.

    Raises:
        InputError: when it does not follow an upsampling.
    """
    stage, within = divmod(position, depth)
    if within or not stage or COARSEST << stage > size:
        raise InputError(
            f"attention_layer_position={position} is not supported: it must follow an upsampling layer"
        )
    return COARSEST << stage


def pretrained_names(stage: int) -> Renames:
    """Return published names (numbered as by `renumbered`) -> ours; attention follows the upsampling `stage`."""
    names = [
        (r"embeddings\.weight", "embedding.weight"),
        (r"generator\.gen_z\.(.+)", r"start.\1"),
        (r"attention\.gamma", f"attentions.{stage}.gamma"),
        (r"attention\.snconv1x1_(theta|phi|g|o)(?:_conv)?\.(.+)", rf"attentions.{stage}.\1.\2"),
        (r"generator\.bn\.(.+)", r"norm.\1"),
        (r"generator\.conv_to_rgb\.(.+)", r"to_image.\1"),
    ]
    for i in range(4):
        block, ours = r"block\.(\d+)\.", r"blocks.\1"
        names += [
            (rf"{block}conv_{i}\.(.+)", rf"{ours}.conv{i + 1}.\2"),
            (rf"{block}bn_{i}\.scale\.(.+)", rf"{ours}.norm{i + 1}.gain.\2"),
            (rf"{block}bn_{i}\.offset\.(.+)", rf"{ours}.norm{i + 1}.offset.\2"),
            (rf"{block}bn_{i}\.(running_.+)", rf"{ours}.norm{i + 1}.norm.\2"),
        ]
    return names


def renumbered(name: str, position: int) -> str:
    """Renumber a published name to count blocks only; the published list counts attention, too."""
    found = LAYER.match(name)
    if found is None:
        return name
    number, rest = int(found[1]), name[found.end() :]
    if number == position:
        return f"attention.{rest}"
    return f"block.{number - (number > position)}.{rest}"


def pretrained_translation(position: int, stage: int, z_dim: int, row: float) -> Translation:
    """Return the function that brings published tensors to our names and layout.

    Args:
        position: of attention in the published list of layers.
        stage: the upsampling that it follows.
        z_dim: length of z, and of the class's embedding.
        row: position of the truncation among the statistics.
    """
    renames = pretrained_names(stage)

    def translate(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = {
            name: torch.zeros((), dtype=torch.int64)
            for name in own
            if name.endswith("num_batches_tracked")
        }
        tensors = {name: torch.as_tensor(value) for name, value in state.items()}
        for name, tensor in normalized(tensors).items():
            ours = rename(renumbered(name, position), renames)
            tensor = to_our_layout(ours, tensor, z_dim)
            if ours.endswith(("running_means", "running_vars")):
                ours, tensor = ours.removesuffix("s"), interpolate_rows(tensor, row)
            weights[
                ours.replace(".weight_orig", ".parametrizations.weight.original").replace(
                    ".weight_u", ".parametrizations.weight.0.u"
                )
            ] = tensor
        return weights

    return translate


def normalized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace left singular vectors so that one step of the power method gives the published right ones.

    In evaluation mode, theirs uses u and v as stored, while ours takes a step from u. With a u that leads to the stored
    v, the singular value is the published one, converged or not.
    """
    kept = {
        name: value
        for name, value in tensors.items()
        if name == "embeddings.weight" or not is_unused(name, tensors)
    }
    for name in [name for name in kept if NORMALIZED.fullmatch(name)]:
        layer = name.removesuffix(".weight_orig")
        v = tensors.get(f"{layer}.weight_v")
        if v is not None and f"{layer}.weight_u" in kept:
            kept[f"{layer}.weight_u"] = vector_before(
                kept[name].flatten(1), v, kept[f"{layer}.weight_u"]
            )
    return kept


def is_unused(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is unused: normalized weights, right singular vectors, counters."""
    layer, _, leaf = name.rpartition(".")
    return bool(PRETRAINED_UNUSED.fullmatch(name)) and (
        leaf != "weight" or f"{layer}.weight_orig" in tensors
    )


def vector_before(rows: Tensor, v: Tensor, u: Tensor) -> Tensor:
    """Return the left vector from which a step of the power method gives `v`, or `u` if there is none."""
    if v.shape != rows.shape[1:] or u.shape != rows.shape[:1]:
        return u
    matrix = rows.double()
    before = torch.linalg.lstsq(matrix.T, v.double()[:, None], driver="gelsy").solution[:, 0]
    found = normalize(matrix.T @ before, dim=0)
    if not (found - v.double()).norm() < 1e-3:
        return u
    return normalize(before, dim=0).to(u.dtype)


def to_our_layout(name: str, tensor: Tensor, z_dim: int) -> Tensor:
    """Bring a tensor to the layout of our layer of this name."""
    if name == "embedding.weight":
        return tensor.T
    if name.endswith(".gamma"):
        return tensor.reshape(())
    if name.endswith("weight_orig") and name.startswith(("start.", "blocks.")) and tensor.ndim == 2:
        # our condition starts with the class
        tensor = torch.cat([tensor[:, z_dim:], tensor[:, :z_dim]], dim=1)
    if name.startswith("start."):
        pixels = COARSEST * COARSEST
        tensor = tensor.unflatten(0, (pixels, -1)).transpose(0, 1).flatten(0, 1)
    return tensor


def interpolate_rows(rows: Tensor, row: float) -> Tensor:
    """Interpolate linearly between rows, at a position between 0 and the last row.

    Raises:
        InputError: when there are too few rows.
    """
    below = min(int(row), len(rows) - 1)
    if row > len(rows) - 1 + 1e-6 or rows.ndim != 2:
        raise InputError(f"n_stats is larger than the number of statistics, {len(rows)}")
    above = min(below + 1, len(rows) - 1)
    return torch.lerp(rows[below], rows[above], row - below)
