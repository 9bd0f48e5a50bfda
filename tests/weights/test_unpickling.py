"""Malicious and damaged pickles are rejected with the name of the offending object, and nothing runs."""

import builtins
import io
import os
import pickle
import pickletools
import struct
import subprocess
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gan_lab.data.unpickling import DamagedError, Record, RefusedError, unpickle
from gan_lab.errors import InputError
from gan_lab.weights.pickles import NETWORKS, STATE_DICT, read_torch, to_plain_data
from gan_lab.weights.published import open_published
from tests.helpers.published import modules, network_pickle, reconstruct


class Call:
    """Pickled as a call of a function, whatever it is, and perhaps a state for what it gives."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.made


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def snapshot(value: Any, protocol: int = 4) -> bytes:
    """A file of networks with a further object."""
    with modules():
        return pickle.dumps({"augment_pipe": value, "G_ema": None}, protocol=protocol)


def rejected(data: bytes, tmp_path: Path) -> str:
    """The message with which a `.pkl` of these bytes is rejected."""
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_published(path)
    message = str(caught.value)
    assert "hostile.pkl" in message
    return message


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    return tmp_path / "it was run"


ATTACKS: dict[str, tuple[Callable[[str], Any], str]] = {
    "os.system": (lambda w: Call(os.system, f"touch '{w}'"), f"{os.name}.system"),
    "eval": (lambda w: Call(eval, f"open({w!r}, 'w')"), "builtins.eval"),
    "exec": (lambda w: Call(exec, f"open({w!r}, 'w')"), "builtins.exec"),
    "import": (lambda w: Call(builtins.__import__, "os"), "builtins.__import__"),
    "getattr": (
        lambda w: Call(getattr, Call(builtins.__import__, "os"), "system"),
        "builtins.getattr",
    ),
    "popen": (lambda w: Call(subprocess.Popen, ["touch", w]), "subprocess.Popen"),
    "open": (lambda w: Call(open, w, "w"), "open"),
    "torch.load": (lambda w: Call(torch.load, w), "torch.serialization.load"),
    "numpy.load": (lambda w: Call(np.load, w), "numpy.load"),
    "bytearray": (lambda w: Call(bytearray, 1 << 40), "builtins.bytearray"),
    "pickle.loads": (
        lambda w: Call(pickle.loads, pickle.dumps(Call(os.system, f"touch '{w}'"))),
        "_pickle.loads",
    ),
    "nested in a state": (
        lambda w: Call(
            reconstruct,
            {
                "type": "class",
                "version": 6,
                "class_name": "Generator",
                "module_src": "",
                "state": {"_modules": {"b4": Call(os.system, f"touch '{w}'")}},
            },
        ),
        f"{os.name}.system",
    ),
    "in a parameter": (
        lambda w: Call(torch._utils._rebuild_parameter, Call(eval, "1"), False, OrderedDict()),
        "builtins.eval",
    ),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ATTACKS)
def test_callables_are_named_and_not_run(
    name: str, protocol: int, tmp_path: Path, witness: Path
) -> None:
    make, named = ATTACKS[name]
    message = rejected(snapshot(make(str(witness)), protocol), tmp_path)
    # protocols before 3 use Python 2's names
    older = {"builtins": "__builtin__", "_pickle": "pickle", "subprocess": "commands"}
    names = (named, *(named.replace(now, then) for now, then in older.items()))
    assert any(f"asks for {n}" in message or f".{n}, which" in message for n in names), message
    assert "is rejected" in message and "Nothing in it was run" in message
    assert not witness.exists()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("INST", b"(S'touch x'\niposix\nsystem\n.", "instruction INST"),
        ("OBJ", b"(cposix\nsystem\nS'x'\no.", "asks for posix.system"),
        ("OBJ of an allowed class", b"(ctorch.nn.modules.linear\nLinear\no.", "instruction OBJ"),
        ("EXT1", b"\x82\x01.", "instruction EXT1"),
        ("EXT4", b"\x84\x01\x00\x00\x00.", "instruction EXT4"),
        ("PERSID", b"Pstorage\n.", "instruction PERSID"),
        ("BINPERSID", b"K\x01Q.", "instruction BINPERSID"),
        ("NEXT_BUFFER", b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        ("NEWOBJ_EX", b"ctorch.nn.modules.linear\nLinear\n)}\x92.", "instruction NEWOBJ_EX"),
        ("a path", b"\x80\x04" + text("numpy") + text("ndarray.__class__") + b"\x93.", "ndarray._"),
        ("no text", b"\x80\x04K\x01K\x02\x93.", "whose name is not text"),
        ("a module's own", b"cgan_lab.data.unpickling\nRecord\n.", "unpickling.Record"),
        ("what begins like it", b"ctorch.nn.modulesx\nLinear\n.", "torch.nn.modulesx.Linear"),
        ("a call of a record's class", b"ctorch.nn.modules.linear\nLinear\n)R.", "may only be"),
        ("a call of a record", b"ctorch.nn.modules.linear\nLinear\n)\x81)R.", "calls a torch.nn"),
        ("a call of data", b"]K\x01\x85R.", "calls a list"),
        ("a call without a tuple", b"ccollections\nOrderedDict\n]R.", "no tuple of arguments"),
        ("a call with others", b"ccollections\nOrderedDict\n(K\x01K\x02K\x03tR.", "does not take"),
        ("a state of a name", b"ccollections\nOrderedDict\n}b.", "state of a collections.Ord"),
        ("a state of a list", b"]}b.", "state of a list"),
        ("two states", b"ctorch.nn.modules.linear\nLinear\n)\x81}b}b.", "twice"),
        ("slots of a dictionary", b"}N}" + text("keys") + b"K\x01s\x86b.", "state of a dict"),
        ("a list as a dictionary", b"]K\x01K\x02s.", "fills a list as if it were a dict"),
        ("a tuple as a key", b"})K\x01s.", "tuple as a key"),
        (
            "a number without end",
            b"\x8b" + struct.pack("<i", 100) + b"\xff" * 99 + b"\x01.",
            "bits",
        ),
    ],
)
def test_each_abuse_of_an_instruction(name: str, code: bytes, message: str, tmp_path: Path) -> None:
    assert message in rejected(code, tmp_path)


def test_a_legal_looking_class_with_a_setstate(tmp_path: Path, witness: Path) -> None:
    """Classes with effects in __setstate__ and __reduce__ hide behind allowed names: they become records."""
    code = (
        b"ctorch.nn.modules.linear\nLinear\n)\x81}"
        + text("__setstate__")
        + text("exec")
        + b"s"
        + text("__class__")
        + text(f"open({str(witness)!r}, 'w')")
        + b"sb."
    )
    record = unpickle(code, NETWORKS)
    assert isinstance(record, Record) and type(record) is Record
    assert record.state["__setstate__"] == "exec" and "__setstate__" not in vars(record)
    assert not witness.exists()


def test_source_code_is_not_run(tmp_path: Path, witness: Path) -> None:
    data = network_pickle("stylegan2_uncond_32", witness)
    assert b"write_text" in data and str(witness).encode() in data, "the source is in the file"
    path = tmp_path / "whole.pkl"
    path.write_bytes(data)
    published = open_published(path)
    published.blueprints()["generator_ema"].build()
    assert not witness.exists()
    held = str(unpickle(data, NETWORKS)["G_ema"].__dict__)
    assert "write_text" not in held


@pytest.mark.parametrize("zipped", [False, True])
def test_nested_pickles_are_checked(zipped: bool, tmp_path: Path, witness: Path) -> None:
    """A tensor's storage is a file of torch.save within the pickle, with a pickle of its own."""
    file = io.BytesIO()
    hostile = Call(os.system, f"touch '{witness}'")
    torch.save(hostile, file, _use_new_zipfile_serialization=zipped)
    message = rejected(snapshot(Call(torch.storage._load_from_bytes, file.getvalue())), tmp_path)
    assert f"asks for {os.name}.system, which a storage of a tensor does not" in message
    assert not witness.exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_malicious_state_dict(zipped: bool, tmp_path: Path, witness: Path) -> None:
    path = tmp_path / "G_ema.pth"
    torch.save(
        {"linear.weight": torch.zeros(1), "x": Call(os.system, f"touch '{witness}'")},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(InputError, match=rf"G_ema.pth is rejected: it asks for {os.name}\.system"):
        open_published(path)
    assert not witness.exists()


def storage() -> bytes:
    """Four numbers, as `pickle` writes a tensor's storage."""
    written = torch.arange(4.0).__reduce_ex__(4)[1][0].__reduce__()[1][0]
    assert isinstance(written, bytes)
    return written


def rebuilt(storage: bytes, offset: Any, size: Any, stride: Any) -> Call:
    held = Call(torch.storage._load_from_bytes, storage)
    return Call(torch._utils._rebuild_tensor_v2, held, offset, size, stride, False, OrderedDict())


@pytest.mark.parametrize(
    ("offset", "size", "stride", "message"),
    [
        (0, (5,), (1,), "reaches beyond its storage of 4 elements"),
        (3, (2,), (1,), "reaches beyond"),
        (0, (2, 2), (3, 1), "reaches beyond"),
        (0, (1 << 40,), (0,), "not whole numbers"),
        (0, (1 << 35,), (0,), "reaches beyond"),
        (-1, (1,), (1,), "not whole numbers"),
        (0, (-1,), (1,), "not whole numbers"),
        (0, (2,), (-1,), "not whole numbers"),
        (0, (2,), (1, 1), "not whole numbers"),
        (0, (2.0,), (1,), "not whole numbers"),
        (0, (0,) * 17, (1,) * 17, "reaches beyond"),
    ],
)
def test_a_tensor_stays_within_its_storage(
    offset: int, size: Any, stride: Any, message: str, tmp_path: Path
) -> None:
    whole = unpickle(snapshot(rebuilt(storage(), 0, (2, 2), (2, 1))), NETWORKS)["augment_pipe"]
    assert torch.equal(whole.tensor(), torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert message in rejected(snapshot(rebuilt(storage(), offset, size, stride)), tmp_path)


def huge_storage() -> bytes:
    """A storage that claims 2^60 elements and has four."""
    raw = storage()
    position = raw.index(b"cpu") + len("cpu")
    changed = raw[position:].replace(b"K\x04", b"\x8a\x08" + struct.pack("<q", 1 << 60), 1)
    return raw[:position] + changed


HASH = 2**61 - 1  # of which Python's hash of a whole number is the remainder


def long(number: int) -> bytes:
    raw = number.to_bytes(15, "little")
    return b"\x8a\x0f" + raw


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a storage of 2^60 elements": (
        lambda: snapshot(Call(torch.storage._load_from_bytes, huge_storage())),
        "storage of 1152921504606846976 elements",
    ),
    "an array of 2^60 elements": (
        lambda: snapshot(
            Call(
                np.empty(0).__reduce__()[0],
                *np.empty(0).__reduce__()[1],
                state=(1, (1 << 60,), np.dtype("f4"), False, b"1234"),
            )
        ),
        "is not that of its 4 bytes",
    ),
    "a text that is 2^60 long": (lambda: b"\x8d" + struct.pack("<Q", 1 << 60) + b"x.", "cut short"),
    "a memo of 2^32 places": (lambda: b"Nr\xff\xff\xff\xff.", "not a dictionary with a network"),
    "too many instructions": (lambda: b"N0" * 1_000_001 + b"N.", "more than 2,000,000 instruc"),
    "the same text encoded again and again": (
        lambda: (
            b"]("
            + text("x" * 200_000)
            + b"q\x000"
            + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R" * 40
            + b"e."
        ),
        "on the same data again and again",
    ),
    "lists within lists": (lambda: b"]" * 50_000 + b"a" * 49_999 + b".", "nests containers"),
    "tuples within tuples": (lambda: b")" + b"\x85" * 50_000 + b".", "nests containers"),
    "keys that have one hash": (
        lambda: b"}(" + b"".join(long(k * HASH) + b"N" for k in range(150_000)) + b"u.",
        "bits as a key",
    ),
    "a set of such": (
        lambda: b"\x8f(" + b"".join(long(k * HASH) for k in range(150_000)) + b"\x90.",
        "bits as a key",
    ),
    "a frozen set of such": (
        lambda: b"(" + b"".join(long(k * HASH) for k in range(150_000)) + b"\x91.",
        "bits as a key",
    ),
    "such places in a memo": (
        lambda: b"N" + b"".join(b"p%d\n" % (k * HASH) for k in range(150_000)) + b".",
        "under numbers above",
    ),
    "negative places in a memo": (
        lambda: b"N" + b"".join(b"p-%d\n" % k for k in range(1, 10)) + b".",
        "under numbers above",
    ),
    "a tuple of them as a key": (lambda: b"})" + b"\x85" * 50_000 + b"Ns.", "tuple as a key"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, tmp_path: Path) -> None:
    make, message = BOMBS[name]
    before = peak()
    assert message in rejected(make(), tmp_path)
    assert peak() - before < 500 << 20


def peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def billion_laughs() -> Any:
    value: Any = ["ha"] * 10
    for _ in range(30):
        value = [value] * 10
    return value


def test_billion_laughs() -> None:
    """Shared containers take no memory, but copies of them count."""
    value = unpickle(pickle.dumps(billion_laughs()), NETWORKS)
    with pytest.raises(RefusedError, match="too many arguments"):
        to_plain_data(value)


def test_endlessly_shared_modules(tmp_path: Path) -> None:
    module: Any = nn.Module()
    for _ in range(40):
        above = nn.Module()
        above._modules = {"a": module, "b": module}
        module = above
    with modules():
        data = pickle.dumps({"G_ema": module})
    assert "asks for torch.nn.modules.module.Module" not in rejected(data, tmp_path)
    assert "more than 20,000 modules" in rejected(data, tmp_path)


def test_a_network_that_contains_itself(tmp_path: Path) -> None:
    module: Any = nn.Module()
    module._modules = {"a": module}
    assert "more than 20,000 modules" in rejected(pickle.dumps({"G_ema": module}), tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"z_dim": 1 << 62}, "z_dim=4611686018427387904 is more than 1048576"),
        ({"z_dim": 1 << 20}, "has shape"),
        ({"mapping_kwargs": {"num_layers": 1 << 19}}, "num_layers=524288 is more than 100"),
        ({"mapping_kwargs": {"num_layers": 100}}, "missing"),
        ({"channel_base": 1 << 20, "channel_max": 1 << 20}, "has shape"),
        ({"img_resolution": 1 << 20}, "arguments are invalid"),
        ({"img_resolution": float("nan")}, "with nan for an argument"),
        ({"mapping_kwargs": {"num_layers": float("inf")}}, "with inf for an argument"),
        ({"epilogue_kwargs": {"a": [0.0, float("-inf")]}}, "with -inf for an argument"),
        ({"img_resolution": 1 << 10, "channel_base": 1 << 12}, "missing"),
    ],
)
def test_arguments_of_huge_networks(
    changed: dict[str, Any], message: str, tmp_path: Path, witness: Path
) -> None:
    """Networks larger than their weights are not allocated: 2^20 inputs to a mapping network would be 128 MiB."""
    path = tmp_path / "giant.pkl"
    path.write_bytes(network_pickle("stylegan2_uncond_32", witness, changed=changed))
    before = peak()
    with pytest.raises(InputError, match=message):
        open_published(path).blueprints()["generator_ema"].build()
    assert peak() - before < 100 << 20


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "G_ema.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(InputError, match="has compressed entries"):
        open_published(path)


@pytest.mark.parametrize("part", [0, 1, 100, 5_000, -1])
def test_truncated_files(part: int, tmp_path: Path, witness: Path) -> None:
    data = network_pickle("stylegan3_t_32", witness)
    message = rejected(data[:part], tmp_path)
    assert "is damaged or of another kind" in message and "copy it again" in message


@pytest.mark.parametrize("zipped", [False, True])
def test_truncated_state_dicts(zipped: bool) -> None:
    file = io.BytesIO()
    torch.save({"a": torch.randn(100)}, file, _use_new_zipfile_serialization=zipped)
    whole = file.getvalue()
    for part in (0, 10, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DamagedError):
            read_torch(whole[:part])


@pytest.mark.parametrize("zipped", [False, True])
def test_state_dicts_are_read_exactly(zipped: bool) -> None:
    base = torch.arange(10.0)
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    state |= {
        "transposed": torch.randn(3, 4, dtype=torch.float64).t(),
        "half": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
        "view": base[2:5],
        "every second": base[::2],
        "flags": torch.tensor([True, False]),
    }
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    read = read_torch(file.getvalue())
    assert list(read) == list(state)
    for name, value in state.items():
        assert torch.equal(read[name].tensor(), value) and read[name].tensor().dtype == value.dtype


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_equal_pythons(protocol: int) -> None:
    value = {
        "numbers": [0, -1, 255, 65536, -(2**40), 2**100, 0.5, float("inf"), True, None],
        "text": ["", "ä", "x" * 300, b"", b"\x00\xff" * 200],
        "nested": {1: (1,), 2: (1, 2), 3: (1, 2, 3), 4: (1, 2, 3, 4), 5: ((), [], {})},
        "set": {1, 2},
    }
    assert unpickle(pickle.dumps(value, protocol=protocol), STATE_DICT) == value
    scalars = [np.float64(2.5), np.int32(-3), np.float16(0.5), np.bool_(True)]
    read = unpickle(pickle.dumps(scalars, protocol=protocol), STATE_DICT)
    assert read == [2.5, -3, 0.5, True] and type(read[0]) is float
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)),
                  np.arange(3, dtype=">i4")):  # fmt: skip
        read = unpickle(pickle.dumps(array, protocol=protocol), STATE_DICT)
        np.testing.assert_array_equal(read.values, array)


def test_random_damage_is_an_error(tmp_path: Path, witness: Path) -> None:
    """Instructions changed, cut and copied at random: nothing but an InputError, or a file that reads still."""
    random = Random(0)
    whole = network_pickle("stylegan3_t_32", witness)
    places = [place for _, _, place in pickletools.genops(whole)]
    opcodes = [ord(opcode.code) for opcode in pickletools.opcodes]
    path = tmp_path / "damaged.pkl"
    outcomes = Counter[str]()
    for _ in range(150):
        data = bytearray(whole)
        for place in random.choices(places, k=random.choice([1, 1, 2, 5])):
            end = place + random.randrange(1, 20)
            if random.random() < 0.6:
                data[min(place, len(data) - 1)] = random.choice(opcodes)
            elif random.random() < 0.5:
                del data[place:end]
            else:
                data[place:place] = whole[end : end + 20]
        path.write_bytes(data)
        try:
            open_published(path).blueprints()["generator_ema"].weights()
            outcomes["read"] += 1
        except InputError:
            outcomes["rejected"] += 1
    assert outcomes["rejected"] > 100 and not witness.exists()
