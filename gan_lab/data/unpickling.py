"""Pickles read as data, by an interpreter that imports nothing and calls only our functions.

Python's unpickler calls whatever a pickle names. Here it can be called only if a `Vocabulary` has our function for it,
and becomes an object only as a `Record`, which stores its arguments and does nothing. Everything else is an error. The
opcodes are those of `pickletools`, up to protocol 5.
"""

import io
import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from gan_lab.errors import InputError


class RefusedError(InputError):
    """A pickle names something that is not allowed."""


class DamagedError(InputError):
    """A pickle is truncated or invalid."""


@dataclass(frozen=True)
class Name:
    """A global of a pickle, by module and name; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Restored(ABC):
    """One of our objects, whose state a pickle may set once."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Keep a state.

        Raises:
            RefusedError: when it is not of the form that this object has.
        """


@dataclass(eq=False)
class Record(Restored):
    """Stands for an object of a class that is not executed: its name, arguments, and state as plain data."""

    name: Name
    arguments: tuple[Any, ...] = ()
    state: Any = field(default=None, repr=False)

    def restore(self, state: Any) -> None:
        """Store the state; code of the class is not run."""
        if self.state is not None:
            raise RefusedError(f"it sets the state of a {self.name} twice")
        self.state = state


@dataclass(frozen=True)
class Vocabulary:
    """The globals that a kind of file may use.

    Attributes:
        calls: our functions that replace those named.
        values: our values that replace those named.
        names: globals that are only arguments of others.
        records: beginnings of module names whose classes become records.
        purpose: what kind of file this is, for errors.
    """

    purpose: str
    calls: Mapping[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)
    values: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    names: frozenset[tuple[str, str]] = frozenset()
    records: tuple[str, ...] = ()

    def is_record(self, name: Name) -> bool:
        """Whether a class becomes a record."""
        return f"{name.module}.".startswith(self.records) if self.records else False

    def find(self, module: Any, name: Any) -> Any:
        """Return the value that is named, or the name where it may be used.

        Raises:
            RefusedError: for any other name.
        """
        key = (module, name)
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("it asks for something whose name is not text")
        if key in self.values:
            return self.values[key]
        found = Name(module, name)
        if key in self.calls or key in self.names or self.is_record(found):
            return found
        shown = f"{module[:80]}.{name[:80]}"
        raise RefusedError(f"it asks for {shown}, which {self.purpose} does not need")


MAX_OPCODES = 2_000_000  # large published files have some ten thousand

MAX_DEPTH = 200  # depth of nested containers

MAX_INTEGER_BITS = 256

# Python's hash of an integer is its remainder by 2^61 - 1: only below that do different keys have different hashes,
# and a dictionary of keys with one hash takes quadratic time
MAX_KEY_BITS = 60

MAX_MEMO = 1 << 32

# total size of function arguments, relative to the pickle's: the same bytes may be used repeatedly
MAX_COPIES = 8

KEYS = (
    str,
    bytes,
    int,
    float,
    bool,
    type(None),
)  # hashing others could take long, or a deep stack


def unpickle(data: bytes, vocabulary: Vocabulary) -> Any:
    """Read a pickle of exactly the bytes `data`.

    Raises:
        RefusedError: for what the vocabulary does not have, and for what would take too much memory or time.
        DamagedError: when it is truncated or invalid.
    """
    return unpickle_stream(io.BytesIO(data), vocabulary, size=len(data))


def unpickle_stream(
    stream: io.BytesIO,
    vocabulary: Vocabulary,
    *,
    size: int,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Read a pickle from a stream's position, and leave the stream after it.

    Args:
        stream: of bytes in memory.
        vocabulary: what the pickle may name.
        size: bytes that there are in all.
        persistent: resolves persistent ids (BINPERSID); None if there must be none.

    Raises:
        RefusedError: for what the vocabulary does not have, and for what would take too much memory or time.
        DamagedError: when it is truncated or invalid.
    """
    machine = Machine(vocabulary, persistent, budget=MAX_COPIES * size + (1 << 20))
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPCODES:
                raise RefusedError(f"it has more than {MAX_OPCODES:,} instructions")
            machine.run(opcode.name, argument)
    except (RefusedError, DamagedError):
        raise
    except (ValueError, IndexError, KeyError, UnicodeError) as error:
        raise DamagedError(f"it is cut short or no pickle ({str(error)[:80]})") from error
    result = machine.result()
    check_depth(result)
    return result


class Machine:
    """The stack, its marks and the memo of one pickle."""

    def __init__(
        self, vocabulary: Vocabulary, persistent: Callable[[Any], Any] | None, *, budget: int
    ) -> None:
        self.vocabulary = vocabulary
        self.persistent = persistent
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        """Take one instruction.

        Raises:
            RefusedError: for one that is not taken here.
        """
        if opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in LITERALS:
            self.stack.append(checked_literal(argument))
        elif opcode in FRESH:
            self.stack.append(FRESH[opcode]())
        elif opcode in STEPS:
            STEPS[opcode](self, argument)
        elif opcode not in IGNORED:
            raise RefusedError(
                f"it uses the instruction {opcode}, which {self.vocabulary.purpose} has no use for"
            )

    def result(self) -> Any:
        """Return the value left on the stack."""
        if len(self.stack) != 1 or self.marks:
            raise DamagedError("it ends with something else than one value")
        return self.stack[0]

    def pop(self) -> Any:
        """Pop the top of the stack; a mark is an error."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise DamagedError("it pops from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        """Return the top of the stack and leave it there."""
        value = self.pop()
        self.stack.append(value)
        return value

    def since_mark(self) -> list[Any]:
        """Pop everything since the last mark."""
        if not self.marks:
            raise DamagedError("it has no mark on its stack")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def extend(self, values: list[Any]) -> None:
        """Append to the list on top."""
        self._container(list).extend(values)

    def update(self, values: list[Any]) -> None:
        """Set items of the dictionary on top."""
        if len(values) % 2:
            raise DamagedError("it gives a dictionary a key without a value")
        target = self._container(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    def _container(self, kind: type) -> Any:
        target = self.top()
        if type(target) is not kind:
            raise RefusedError(f"it fills a {type_name(target)} as if it were a {kind.__name__}")
        return target

    def call(self, function: Any, arguments: Any) -> Any:
        """Call the function of a name.

        Raises:
            RefusedError: for anything but the name of a function, and for arguments that it does not take.
        """
        if type(arguments) is not tuple:
            raise RefusedError(f"it calls {type_name(function)} with no tuple of arguments")
        if not isinstance(function, Name):
            raise RefusedError(f"it calls a {type_name(function)}")
        meant = self.vocabulary.calls.get((function.module, function.name))
        if meant is None:
            raise RefusedError(f"it calls {function}, which may only be named")
        self._charge(arguments, function)
        try:
            return meant(*arguments)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise RefusedError(
                f"it calls {function} with arguments that it does not take ({str(error)[:80]})"
            ) from error

    def make(self, kind: Any, arguments: Any) -> Any:
        """Make the record of an object."""
        if isinstance(kind, Name) and type(arguments) is tuple and self.vocabulary.is_record(kind):
            return Record(kind, arguments)
        return self.call(kind, arguments)

    def restore(self, target: Any, state: Any) -> None:
        """Give an object its state.

        Raises:
            RefusedError: for an object that has none.
        """
        if isinstance(target, Restored):
            target.restore(state)
        # an ordered dictionary's attributes (a state dict's versions) say nothing that is needed
        elif type(target) is not dict or type(state) is not dict:
            raise RefusedError(f"it sets the state of a {type_name(target)}, which has none")

    def _charge(self, arguments: tuple[Any, ...], function: Name) -> None:
        sized = (str, bytes, bytearray, list, tuple, dict, set)
        self.budget -= sum(len(value) for value in arguments if isinstance(value, sized))
        if self.budget < 0:
            raise RefusedError(f"it calls {function} on the same data again and again")

    def remember(self, key: Any) -> None:
        """Store the top of the stack in the memo.

        Raises:
            RefusedError: for a number too large for a memo.
        """
        if not 0 <= int(key) < MAX_MEMO:
            raise RefusedError(f"it stores values under numbers above {MAX_MEMO:,}")
        self.memo[int(key)] = self.top()

    def recall(self, key: Any) -> None:
        """Push a value of the memo."""
        if int(key) not in self.memo:
            raise DamagedError(
                f"it is not a pickle of weights (nothing is stored as number {int(key)})"
            )
        self.stack.append(self.memo[int(key)])

    def gather(self, kind: Callable[[list[Any]], Any], values: list[Any]) -> None:
        """Push a container of values."""
        self.stack.append(kind(values))

    def last(self, count: int) -> list[Any]:
        """Take the last values, in the order in which they were put there."""
        return [self.pop() for _ in range(count)][::-1]

    def discard(self) -> None:
        """Drop the top of the stack, be it a value or a mark."""
        if self.marks and len(self.stack) == self.marks[-1]:
            self.marks.pop()
        else:
            self.pop()

    def add(self, values: list[Any]) -> None:
        """Add to the set on top."""
        self._container(set).update(map(checked_key, values))

    def fetch(self) -> None:
        """Replace a persistent identifier by its object."""
        if self.persistent is None:
            raise RefusedError("it refers to something outside (instruction BINPERSID)")
        self.stack.append(self.persistent(self.pop()))


def checked_literal(value: Any) -> Any:
    """Return a literal; too long numbers are an error."""
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise RefusedError(f"it has an integer of {value.bit_length():,} bits")
    return value


def checked_key(key: Any) -> Any:
    """Return a key of a dictionary or a member of a set; only plain ones are taken."""
    if type(key) not in KEYS:
        raise RefusedError(f"it uses a {type_name(key)} as a key")
    if type(key) is int and key.bit_length() > MAX_KEY_BITS:
        raise RefusedError(f"it uses an integer of {key.bit_length()} bits as a key")
    return key


def type_name(value: Any) -> str:
    """Return the type of a value, for messages."""
    if isinstance(value, Name):
        return str(value)
    return str(value.name) if isinstance(value, Record) else type(value).__name__


def check_depth(value: Any) -> None:
    """Check that containers are not nested too deeply for recursion.

    Raises:
        RefusedError: when they are.
    """
    seen: set[int] = set()
    level = [value]
    for _ in range(MAX_DEPTH):
        within = []
        for container in level:
            if id(container) not in seen:
                seen.add(id(container))
                within += [child for child in children(container) if isinstance(child, NESTING)]
        if not within:
            return
        level = within
    raise RefusedError(f"it nests containers more than {MAX_DEPTH} deep")


def children(container: Any) -> Iterable[Any]:
    """Return what a container holds, one level down."""
    if isinstance(container, dict):
        return container.values()
    if isinstance(container, Record):
        return (container.state, container.arguments)
    return container if isinstance(container, list | tuple | set | frozenset) else ()


def as_dictionary(values: list[Any]) -> dict[Any, Any]:
    """Return a dictionary of keys and values in turn."""
    if len(values) % 2:
        raise DamagedError("it gives a dictionary a key without a value")
    return {checked_key(k): v for k, v in zip(values[::2], values[1::2], strict=True)}


NESTING = (list, tuple, dict, set, frozenset, Record)

IGNORED = frozenset({"PROTO", "FRAME", "STOP"})

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

LITERALS = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
})  # fmt: skip

FRESH: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}

# everything else (INST, OBJ, EXT1, PERSID, NEXT_BUFFER, ...) is an error
STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.discard(),
    "POP_MARK": lambda m, _: m.since_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.top()),
    "APPEND": lambda m, _: m.extend(m.last(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "LIST": lambda m, _: m.gather(list, m.since_mark()),
    "TUPLE": lambda m, _: m.gather(tuple, m.since_mark()),
    "TUPLE1": lambda m, _: m.gather(tuple, m.last(1)),
    "TUPLE2": lambda m, _: m.gather(tuple, m.last(2)),
    "TUPLE3": lambda m, _: m.gather(tuple, m.last(3)),
    "SETITEM": lambda m, _: m.update(m.last(2)),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    "DICT": lambda m, _: m.gather(as_dictionary, m.since_mark()),
    "ADDITEMS": lambda m, _: m.add(m.since_mark()),
    "FROZENSET": lambda m, _: m.gather(frozenset, list(map(checked_key, m.since_mark()))),
    "PUT": lambda m, key: m.remember(key),
    "BINPUT": lambda m, key: m.remember(key),
    "LONG_BINPUT": lambda m, key: m.remember(key),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "GET": lambda m, key: m.recall(key),
    "BINGET": lambda m, key: m.recall(key),
    "LONG_BINGET": lambda m, key: m.recall(key),
    "GLOBAL": lambda m, names: m.stack.append(m.vocabulary.find(*names.split(" ", 1))),
    "STACK_GLOBAL": lambda m, _: m.stack.append(m.vocabulary.find(*m.last(2))),
    "REDUCE": lambda m, _: m.stack.append(m.call(*m.last(2))),
    "NEWOBJ": lambda m, _: m.stack.append(m.make(*m.last(2))),
    "BUILD": lambda m, _: (lambda state: m.restore(m.top(), state))(m.pop()),
    "BINPERSID": lambda m, _: m.fetch(),
}


# NumPy's arrays, scalars and types in pickles. An array is pickled as a call for an empty one, which then gets
# (version, shape, type, order, bytes) as its state; a type as a call with its code, which then gets its byte order.
# Since protocol 5 an array may be one call with its bytes.

# kinds of plain numbers, one letter and bytes each; objects, text and records are not among them
NUMBERS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


class Dtype(Restored):
    """Stands for numpy.dtype."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code
        self.order = "|"

    def restore(self, state: Any) -> None:
        """Set the byte order from the pickled state."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        order = order.decode("latin1") if isinstance(order, bytes) else order
        if order not in ("<", ">", "|", "="):
            raise RefusedError("it has a numpy.dtype without a byte order")
        self.order = order

    def numpy(self) -> np.dtype[Any]:
        """Return the type.

        Raises:
            RefusedError: when it is not one of plain numbers.
        """
        code = self.code.lstrip("<>|=") if isinstance(self.code, str) else self.code
        if code not in NUMBERS:
            shown = "something else" if not isinstance(code, str) else repr(code[:20])
            raise RefusedError(f"it holds an array of other values than numbers ({shown})")
        return np.dtype(">" + code if ">" in (self.code[0], self.order) else "<" + code)


class Array(Restored):
    """Stands for numpy.ndarray; `values` is set with its state."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray = np.empty(0, dtype=np.uint8)
        self.given = False

    def restore(self, state: Any) -> None:
        """Take (version, shape, type, whether columns come first, bytes)."""
        if self.given or not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it sets the state of a numpy.ndarray to something else than one")
        _, shape, dtype, columns_first, raw = state
        self.values = shaped(raw, dtype, shape, "F" if columns_first else "C")
        self.given = True


def shaped(raw: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    """Return bytes as an array of exactly their size.

    Raises:
        RefusedError: when type, shape and number of bytes do not fit together.
    """
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(dtype, Dtype) or not isinstance(raw, bytes | bytearray):
        raise RefusedError("it holds an array of other values than numbers")
    kind = dtype.numpy()
    shape = (shape,) if isinstance(shape, int) else shape
    sides = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not sides or len(shape) > 32 or prod(shape) * kind.itemsize != len(raw):
        shown = str(shape[:9]) if sides else "that it gives"
        raise RefusedError(
            f"it holds an array whose shape {shown} is not that of its {len(raw)} bytes"
        )
    return np.frombuffer(raw, dtype=kind).reshape(shape, order="F" if order == "F" else "C")


def from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Stands for the call that makes an array of its bytes since protocol 5."""
    array = Array()
    array.restore((1, shape, dtype, order == "F", raw))
    return array


def scalar(dtype: Any, raw: Any = b"") -> int | float | bool:
    """Return a NumPy scalar as a number of Python."""
    number: int | float | bool = shaped(raw, dtype, ()).item()
    return number


def encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if encoding != "latin1" or not isinstance(text, str):
        shown = repr(encoding[:20]) if isinstance(encoding, str) else "that it gives"
        raise RefusedError(f"it asks for the codec {shown}")
    return text.encode("latin1")


def no_bytes() -> bytes:
    """How Python 3 writes empty bytes in protocol 2."""
    return b""


ARRAY_NAMES = frozenset({("numpy", "ndarray")})

ARRAY_CALLS = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): encode,
    ("__builtin__", "bytes"): no_bytes,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", Array),
            ("multiarray", "scalar", scalar),
            ("numeric", "_frombuffer", from_buffer),
        )
    },
}
