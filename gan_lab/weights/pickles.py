"""Published files, read as data: those of torch.save, and the pickled networks of NVIDIA, R3GAN and projected-gan.

A tensor is pickled as a view of a storage: offset, size and strides. In the files of torch.save storages lie beside the
pickle, which refers to them (`storage`, type, key, device, number of elements); elsewhere a storage is a call with the
bytes of a torch.save file. Both formats of torch.save are read: since 1.6 a zip with `data.pkl` and `data/<key>`,
before that a row of pickles (a magic number, the version, the machine, the object, the keys) and then the storages'
elements. https://pytorch.org/docs/stable/notes/serialization.html
"""

import io
import math
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import gan_lab.weights.fastgan as fastgan
from gan_lab.data.unpickling import (
    ARRAY_CALLS,
    ARRAY_NAMES,
    DamagedError,
    Name,
    Record,
    RefusedError,
    Vocabulary,
    unpickle,
    unpickle_stream,
)
from gan_lab.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C

LEGACY_VERSION = 1001

LARGEST = 1 << 40  # offset, side or stride

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

DTYPES = (*STORAGES.values(), torch.complex64, torch.complex128)


@dataclass(eq=False)
class Storage:
    """The elements that tensors are views of; empty until they are read from after the pickle.

    Attributes:
        dtype: of an element.
        length: number of elements.
        elements: [length].
    """

    dtype: torch.dtype
    length: int
    elements: Tensor

    @classmethod
    def unread(cls, dtype: torch.dtype, length: int) -> "Storage":
        """Return a storage whose elements are read later; it takes no memory."""
        return cls(dtype, length, torch.empty(0, dtype=dtype))

    def fill(self, raw: bytes) -> None:
        """Set the elements.

        Raises:
            DamagedError: when their number is not `length`.
        """
        if len(raw) != self.length * self.dtype.itemsize:
            raise DamagedError(
                f"a storage of {self.length} elements has {len(raw)} bytes, not "
                f"{self.length * self.dtype.itemsize}"
            )
        if raw:
            self.elements = torch.frombuffer(bytearray(raw), dtype=self.dtype)


@dataclass(eq=False)
class View:
    """A tensor whose storage may still be empty."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return the tensor, which shares memory with its storage."""
        return self.storage.elements.as_strided(self.size, self.stride, self.offset)


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> View:
    """Return a view of a storage; gradients and hooks are ignored.

    Raises:
        RefusedError: when it reaches beyond its storage, or repeats elements to become larger than it.
    """
    if not isinstance(storage, Storage):
        raise RefusedError("it has a tensor that is not a view of a storage")
    numbers = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not numbers or not all(
        type(n) is int and 0 <= n < LARGEST for n in (offset, *size, *stride)
    ):
        raise RefusedError("it has a tensor whose offset, size and strides are not whole numbers")
    count, last = 1, offset
    for side, step in zip(size, stride, strict=True):
        count *= side
        last += max(side - 1, 0) * step
    if len(size) > 16 or count > storage.length or (count and last >= storage.length):
        raise RefusedError(
            f"it has a tensor of shape {str(size)[:60]} and strides {str(stride)[:60]}, which reaches beyond "
            f"its storage of {storage.length} elements"
        )
    return View(storage, offset, size, stride)


def rebuild_parameter(data: Any, *_: Any) -> View:
    """Return a parameter's tensor."""
    if not isinstance(data, View):
        raise RefusedError("it has a parameter that is not a tensor")
    return data


def load_storage(raw: Any) -> Storage:
    """Return the storage in the bytes of a torch.save file.

    Raises:
        RefusedError: when they hold something else.
    """
    if not isinstance(raw, bytes | bytearray):
        raise RefusedError("it has a storage that is not made of bytes")
    held = read_torch(bytes(raw), STORAGE_ALONE)
    if not isinstance(held, Storage):
        raise RefusedError(f"it has a storage whose bytes hold a {type(held).__name__}")
    return held


def ordered(items: Any = ()) -> dict[Any, Any]:
    """Return a dict in place of an OrderedDict."""
    made: dict[Any, Any] = {}
    for pair in items:
        key, value = pair
        if not isinstance(key, str | int):
            raise RefusedError("it has an ordered dictionary whose keys are not text")
        made[key] = value
    return made


def device(*names: Any) -> str:
    """Return the name of a device, which is ignored."""
    return ":".join(str(word) for word in names if isinstance(word, str | int))


def plain_set(items: Any = ()) -> set[Any]:
    """Return a set of text or numbers."""
    if not all(isinstance(item, str | int) for item in items):
        raise RefusedError("it has a set of something else than text or numbers")
    return set(items)


CALLS = {
    **ARRAY_CALLS,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): load_storage,
    ("torch", "Size"): tuple,
    ("torch", "device"): device,
    ("collections", "OrderedDict"): ordered,
    ("builtins", "set"): plain_set,
    ("__builtin__", "set"): plain_set,
}

VALUES = {("torch", str(dtype).removeprefix("torch.")): dtype for dtype in DTYPES}

NAMES = ARRAY_NAMES | {("torch", name) for name in STORAGES}

STATE_DICT = Vocabulary(
    purpose="a file of weights",
    calls=CALLS,
    values=VALUES,
    names=NAMES,
    records=("torch.nn.modules.", "argparse."),  # arguments of a training command
)

STORAGE_ALONE = Vocabulary(purpose="a storage of a tensor", names=NAMES)


def read_torch(data: bytes, vocabulary: Vocabulary = STATE_DICT) -> Any:
    """Read what torch.save wrote, in either format; tensors come as `View`.

    Raises:
        RefusedError: for types that are not in the vocabulary.
        DamagedError: when it is incomplete or no such file.
    """
    if data[:4] == b"PK\x03\x04":
        return read_zip(data, vocabulary)
    return read_legacy(data, vocabulary)


def read_legacy(data: bytes, vocabulary: Vocabulary) -> Any:
    """Read the format before torch 1.6."""
    stream = io.BytesIO(data)
    plain = Vocabulary(purpose="the head of a file of torch.save")
    storages: dict[str, Storage] = {}

    def find(identifier: Any) -> Storage | Name:
        match identifier:
            case ("module", Name() as kind, _, _):
                # a module's class has its source with it, which is ignored
                return kind
        return find_storage(identifier, storages)

    head = [unpickle_stream(stream, plain, size=len(data)) for _ in range(3)]
    if head[:2] != [MAGIC, LEGACY_VERSION] or not isinstance(head[2], dict):
        raise DamagedError("it is not a file of torch.save")
    if head[2].get("little_endian") is not True:
        raise RefusedError("it was written on a machine of the other byte order")
    held = unpickle_stream(stream, vocabulary, size=len(data), persistent=find)
    keys = unpickle_stream(stream, plain, size=len(data))
    if not isinstance(keys, list) or set(map(str, keys)) != set(storages):
        raise DamagedError("its storages do not match its references")
    for key in keys:
        (length,) = struct.unpack("<q", read_exactly(stream, 8))
        storage = storages[str(key)]
        if length != storage.length:
            raise DamagedError(f"a storage of {storage.length} elements has {length}")
        storage.fill(read_exactly(stream, length * storage.dtype.itemsize))
    return held


def read_zip(data: bytes, vocabulary: Vocabulary) -> Any:
    """Read the format since torch 1.6."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if any(e.compress_type != zipfile.ZIP_STORED for e in entries.values()):
                raise RefusedError("it has compressed entries, which torch.save does not write")
            if sum(entry.file_size for entry in entries.values()) > len(data):
                raise RefusedError("it has entries that are larger than the file")
            inside = {
                name.partition("/")[2]: archive.read(entry) for name, entry in entries.items()
            }
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DamagedError(f"it is not a complete zip ({error})") from error
    return read_entries(inside, vocabulary)


def read_entries(inside: Mapping[str, bytes], vocabulary: Vocabulary) -> Any:
    """Read the entries of the zip by name."""
    if "data.pkl" not in inside:
        raise DamagedError("it has no data.pkl, it is not a file of torch.save")
    if inside.get("byteorder", b"little").strip() != b"little":
        raise RefusedError("it was written on a machine of the other byte order")
    storages: dict[str, Storage] = {}

    def find(identifier: Any) -> Storage:
        storage = find_storage(identifier, storages)
        if not storage.elements.numel():
            key = str(identifier[2])
            if f"data/{key}" not in inside:
                raise DamagedError(f"it has no storage {key[:40]}")
            storage.fill(inside[f"data/{key}"])
        return storage

    data = inside["data.pkl"]
    return unpickle_stream(io.BytesIO(data), vocabulary, size=len(data), persistent=find)


def find_storage(identifier: Any, storages: dict[str, Storage]) -> Storage:
    """Return the storage of a reference ("storage", type, key, device, number of elements, ...).

    Raises:
        RefusedError: for an identifier of another form, or a view of a storage.
    """
    match identifier:
        case ("storage", Name("torch", kind), str() | int() as key, str(), int() as length) | (
            "storage",
            Name("torch", kind),
            str() | int() as key,
            str(),
            int() as length,
            None,
        ) if kind in STORAGES and length >= 0:
            storage = storages.setdefault(str(key), Storage.unread(STORAGES[kind], length))
            if (storage.dtype, storage.length) != (STORAGES[kind], length):
                raise RefusedError(f"it describes storage {str(key)[:40]} in two ways")
            return storage
    raise RefusedError("it refers to something else than a storage")


def read_exactly(stream: io.BytesIO, count: int) -> bytes:
    """Read an exact number of bytes.

    Raises:
        DamagedError: when there are fewer.
    """
    raw = stream.read(count) if count >= 0 else b""
    if len(raw) != count:
        raise DamagedError("it is cut short")
    return raw


# The `.pkl` files of StyleGAN2-ADA, StyleGAN3, R3GAN and projected-gan: a dictionary with "G", "D", "G_ema" and more.
# NVIDIA's networks are pickled as a call of `torch_utils.persistence._reconstruct_persistent_obj` with class name,
# Python source and state. Their loader runs the source; here it is discarded. The state has a torch module's
# `_parameters`, `_buffers` and `_modules`, and the constructor's arguments. R3GAN and projected-gan pickle their
# networks as plain objects; their arguments follow from the shapes. https://github.com/NVlabs/stylegan3,
# https://github.com/brownvc/R3GAN, https://github.com/autonomousvision/projected-gan


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
    STATE_DICT,
    purpose="a file of networks",
    calls={
        **CALLS,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): persistent,
        ("dnnlib.util", "EasyDict"): ordered,
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
