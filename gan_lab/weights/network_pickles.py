"""The `.pkl` files of NVIDIA's StyleGAN2-ADA and StyleGAN3, of R3GAN and projected-gan: pickled networks, read as data.

Such a file is a dictionary with "G", "D", "G_ema" and more. NVIDIA's networks are pickled as a call of
`torch_utils.persistence._reconstruct_persistent_obj` with class name, Python source and state. Their loader runs the
source; here it is discarded. The state has a torch module's `_parameters`, `_buffers` and `_modules`, and the
constructor's arguments. R3GAN and projected-gan pickle their networks as plain
objects; their arguments follow from the shapes. https://github.com/NVlabs/stylegan3, https://github.com/brownvc/R3GAN,
https://github.com/autonomousvision/projected-gan
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

import gan_lab.weights.fastgan as fastgan
import gan_lab.weights.tensors as tensors
from gan_lab.data.unpickling import DamagedError, Name, Record, RefusedError, unpickle
from gan_lab.errors import InputError
from gan_lab.weights.tensors import View

PLAYERS = ("G", "D", "G_ema")

PROJECTED = "pg_modules."

MOST_MODULES = 20_000

MOST_ARGUMENTS = 10_000

DEEPEST_ARGUMENTS = 10

Networks = dict[str, Record]


def persistent(meta: Any) -> Record:
    """Return one of NVIDIA's persistent objects, without its source."""
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise RefusedError("it has a persistent object that is not of a class")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise RefusedError("it has a persistent object without a class name or a state")
    return Record(Name("persistent", name[:80]), state=state)


NETWORKS = replace(
    tensors.STATE_DICT,
    purpose="a file of networks",
    calls={
        **tensors.CALLS,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent,
        ("dnnlib.util", "EasyDict"): tensors.ordered,
    },
    records=(
        *("torch.nn.modules.", "R3GAN.", "training.networks.", "training.augment."),
        # FastGAN with spectral norm, and the projected discriminator; its feature network is not read
        *(PROJECTED, "timm.", "torch.nn.utils.", "torch.nn.quantized.", "torch.ao.nn.quantized."),
    ),
)


def read_pickle(data: bytes) -> dict[str, Any]:
    """Read a network pickle.

    Raises:
        RefusedError: for contents that such files do not have.
        DamagedError: when it is incomplete or no pickle.
    """
    if b"dnnlib.tflib.network" in data[:10_000]:
        raise RefusedError(
            "it was made with TensorFlow; convert it with legacy.py of NVIDIA's stylegan3 repository first"
        )
    content = unpickle(data, NETWORKS)
    if not isinstance(content, dict) or not isinstance(content.get("G_ema"), Record):
        raise DamagedError("it is not a dictionary with a network G_ema")
    return content


def describe(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return (config, state) for `Published`; the moving average's weights are "G_ema/...".

    Raises:
        InputError: for unknown networks.
    """
    networks = {
        name: network
        for name in PLAYERS
        if isinstance(network := content.get(name), Record) and not is_projected(name, network)
    }
    modules = {name: submodules(network) for name, network in networks.items()}
    states = {name: weights(found) for name, found in modules.items()}
    source = find_source(states["G_ema"])
    config: dict[str, Any] = {"source": source}
    for key, name in (("generator", "G_ema"), ("discriminator", "D")):
        if name in networks:
            config[key] = arguments(source, networks[name], modules[name], states[name])
    state = {
        f"{player}/{name}": view.tensor()
        for player, views in states.items()
        for name, view in views.items()
    }
    return config, state


def is_projected(name: str, network: Record) -> bool:
    """Whether a network is projected-gan's discriminator."""
    return name == "D" and network.name.module.startswith(PROJECTED)


def find_source(state: Mapping[str, Any]) -> str:
    """Identify the publication of a generator by its weights' names.

    Raises:
        InputError: for unknown ones.
    """
    if "synthesis.input.freqs" in state:
        return "stylegan3 networks"
    if "synthesis.b4.const" in state:
        return "stylegan2-ada networks"
    if any(re.match(r"(Model\.)?MainLayers\.0\.", name) for name in state):
        return "R3GAN networks"
    if "synthesis.init.init.0.weight_orig" in state:
        return fastgan.SOURCE
    raise InputError(
        "its generator is not one of StyleGAN2-ADA, StyleGAN3, R3GAN and FastGAN; its weights begin with "
        f"{', '.join(list(state)[:3]) or 'nothing'}"
    )


def submodules(network: Record) -> dict[str, Record]:
    """Return the modules of a network by name; the network itself is "".

    Raises:
        RefusedError: when there are too many.
    """
    found: dict[str, Record] = {}
    waiting = [("", network)]
    while waiting:
        name, module = waiting.pop()
        found[name] = module
        if len(found) + len(waiting) > MOST_MODULES:
            raise RefusedError(f"it has a network of more than {MOST_MODULES:,} modules")
        for child, value in entries(module, "_modules").items():
            if isinstance(value, Record):
                waiting.append((f"{name}.{child}".lstrip("."), value))
    return found


def entries(module: Record, kind: str) -> dict[str, Any]:
    """Return a module's parameters, buffers or modules by name.

    Raises:
        RefusedError: when its state is not a module's.
    """
    state = module.state if isinstance(module.state, dict) else {}
    held = state.get(kind, {})
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
        raise RefusedError(f"it has a {module.name} whose {kind} are not a dictionary")
    return held


def weights(modules: Mapping[str, Record]) -> dict[str, View]:
    """Return parameters and buffers by name, as in a state dict."""
    found: dict[str, View] = {}
    for prefix, module in modules.items():
        state = module.state if isinstance(module.state, dict) else {}
        fleeting = state.get("_non_persistent_buffers_set", ())
        for kind in ("_parameters", "_buffers"):
            for name, value in entries(module, kind).items():
                if isinstance(value, View) and name not in fleeting:
                    found[f"{prefix}.{name}".lstrip(".")] = value
    return found


def arguments(
    source: str, network: Record, modules: Mapping[str, Record], state: Mapping[str, View]
) -> dict[str, Any]:
    """Return a network's constructor arguments by their published names."""
    given = network.state.get("_init_kwargs") if isinstance(network.state, dict) else None
    known = to_plain_data(given) if isinstance(given, dict) else {}
    if source.startswith("R3GAN"):
        return known or r3gan_arguments(state)
    if source == fastgan.SOURCE:
        labels = network.state.get("c_dim") if isinstance(network.state, dict) else None
        sizes = {name: view.size for name, view in state.items()}
        return fastgan.arguments(sizes, labels if type(labels) is int else None)
    if source.startswith("stylegan2") or "img_resolution" in known:
        return with_precision(known, modules)
    return known


def with_precision(known: dict[str, Any], modules: Mapping[str, Record]) -> dict[str, Any]:
    """Add a StyleGAN2 network's clamping and half precision if its arguments leave them to defaults.

    The two repositories have different defaults, so both are read from the layers.
    """
    inner = known.get("synthesis_kwargs", {})
    blocks = [m.state for name, m in modules.items() if re.fullmatch(r"(synthesis\.)?b\d+", name)]
    blocks = [state for state in blocks if isinstance(state, dict)]
    layers = [
        m.state
        for name, m in modules.items()
        if name.endswith(".conv1") and isinstance(m.state, dict)
    ]
    found: dict[str, Any] = {}
    if any("use_fp16" in state for state in blocks):
        found["num_fp16_res"] = sum(state.get("use_fp16") is True for state in blocks)
    if any("conv_clamp" in state for state in layers):
        found["conv_clamp"] = to_plain_data(layers[0].get("conv_clamp"))
    return {name: v for name, v in found.items() if name not in inner} | known


def r3gan_arguments(state: Mapping[str, View]) -> dict[str, Any]:
    """Find R3GAN's arguments from the shapes of its weights; stages are in the order of the file.

    Raises:
        InputError: when weights are missing.
    """
    sizes = {name.removeprefix("Model."): view.size for name, view in state.items()}
    block = r"MainLayers\.(\d+)\.Layers\.(\d+)\.LinearLayer2\.Layer\.weight"
    found = sorted(
        (int(match[1]), int(match[2]), name)
        for name in sizes
        if (match := re.fullmatch(block, name))
    )
    if not found:
        raise InputError("its R3GAN network has no blocks; get the published file again")
    widths: list[int] = []
    groups: list[int] = []
    counts: list[int] = []
    for stage, _, name in found:
        inner = sizes[name][0]
        if stage == len(widths):
            first = name.replace("LinearLayer2", "LinearLayer1")
            widths.append(sizes.get(first, (0, 1))[1])
            groups.append(inner // sizes[name][1])
            counts.append(0)
        counts[-1] += 1
        expansion = inner // widths[-1]
    embedding = sizes.get("EmbeddingLayer.weight", (0, 0))
    ours = {
        "WidthPerStage": widths,
        "CardinalityPerStage": groups,
        "BlocksPerStage": counts,
        "ExpansionFactor": expansion,
        "ConditionDimension": embedding[1] or None,
        "ConditionEmbeddingDimension": embedding[0],
    }
    basis = sizes.get("MainLayers.0.Layers.0.LinearLayer.weight")
    return ours if basis is None else ours | {"NoiseDimension": basis[1] - embedding[0]}


def to_plain_data(value: Any) -> Any:
    """Return arguments as plain data: NumPy's numbers as Python's, tuples as lists.

    Raises:
        RefusedError: for anything else, for NaN and infinity, and for too many.
    """
    return _to_plain_data(value, [MOST_ARGUMENTS], DEEPEST_ARGUMENTS)


def _to_plain_data(value: Any, left: list[int], depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise RefusedError("it has a network with too many arguments")
    if isinstance(value, dict):
        return {str(name)[:80]: _to_plain_data(v, left, depth - 1) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain_data(item, left, depth - 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise RefusedError(f"it has a network with {value} for an argument")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RefusedError(f"it has a network with a {type(value).__name__} for an argument")
