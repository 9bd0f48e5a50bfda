"""PyTorch's tensors in pickles, and the files of torch.save, read as data.

A tensor is pickled as a view of a storage: offset, size and strides. In the files of torch.save storages lie beside the
pickle, which refers to them (`storage`, type, key, device, number of elements); elsewhere a storage is a call with the
bytes of a torch.save file. Both formats of torch.save are read: since 1.6 a zip with `data.pkl` and `data/<key>`,
before that a row of pickles (a magic number, the version, the machine, the object, the keys) and then the storages'
elements. https://pytorch.org/docs/stable/notes/serialization.html
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_lab.data.unpickling import (
    ARRAY_CALLS,
    ARRAY_NAMES,
    DamagedError,
    Name,
    RefusedError,
    Vocabulary,
    unpickle_stream,
)

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
    """The elements that tensors are views of; empty until they are read from behind the pickle.

    Attributes:
        dtype: of an element.
        length: number of elements.
        elements: [length].
    """

    dtype: torch.dtype
    length: int
    elements: Tensor

    @classmethod
    def promised(cls, dtype: torch.dtype, length: int) -> "Storage":
        """Return a storage without elements yet; it takes no memory."""
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


def device(*words: Any) -> str:
    """Return the name of a device, which is ignored."""
    return ":".join(str(word) for word in words if isinstance(word, str | int))


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

WORDS = ARRAY_NAMES | {("torch", name) for name in STORAGES}

STATE_DICT = Vocabulary(
    purpose="a file of weights",
    calls=CALLS,
    values=VALUES,
    words=WORDS,
    records=("torch.nn.modules.", "argparse."),  # arguments of a training command
)

STORAGE_ALONE = Vocabulary(purpose="a storage of a tensor", words=WORDS)


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
            storage = storages.setdefault(str(key), Storage.promised(STORAGES[kind], length))
            if (storage.dtype, storage.length) != (STORAGES[kind], length):
                raise RefusedError(f"it describes storage {str(key)[:40]} in two ways")
            return storage
    raise RefusedError("it refers to something else than a storage")


def read_exactly(stream: io.BytesIO, count: int) -> bytes:
    """Read exactly so many bytes.

    Raises:
        DamagedError: when there are fewer.
    """
    raw = stream.read(count) if count >= 0 else b""
    if len(raw) != count:
        raise DamagedError("it is cut short")
    return raw
