"""NumPy's arrays, scalars and types in pickles.

An array is pickled as a call for an empty one, which then gets (version, shape, type, order, bytes) as its state; a
type as a call with its code, which then gets its byte order. Since protocol 5 an array may be one call with its bytes.
"""

from math import prod
from typing import Any

import numpy as np

from gan_lab.data.unpickling import RefusedError, Restored

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


WORDS = frozenset({("numpy", "ndarray")})

CALLS = {
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
