"""Published constructor arguments, taken one by one, so that none is passed over in silence."""

from collections.abc import Mapping
from reprlib import repr as shortened
from typing import Any

from gan_lab.errors import InputError

MISSING = object()

# a file may ask for a network of any size: no published one comes near these
LARGEST = 1 << 20

MOST_LAYERS = 100


class Arguments:
    """Reads each argument once and refuses those that nobody read.

    Args:
        values: by published name.
        where: what they belong to, for errors.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = dict(values)
        self.where = where

    def take(self, name: str, kind: type, *, default: Any = MISSING, most: int = LARGEST) -> Any:
        """Return an argument as `kind`, or None where it is None.

        Args:
            name: of the argument.
            kind: its type.
            default: where it is missing.
            most: largest number, or number in a list, that is taken.

        Raises:
            InputError: when it is missing and has no default, is of another kind, or larger than any network's.
        """
        value = self.values.pop(name, default)
        if value is MISSING:
            raise InputError(f"{self.where} has no {name}, without which it cannot be built")
        if value is None:
            return None
        if not isinstance(value, (int, float) if kind in (int, float) else kind):
            raise InputError(
                f"{self.where}: {name}={shortened(value)} should be of type {kind.__name__}"
            )
        numbers: list[Any] = value if isinstance(value, list) else [value]
        if kind is list and not all(type(number) is int for number in numbers):
            raise InputError(f"{self.where}: {name}={shortened(value)} should hold whole numbers")
        if any(isinstance(n, int | float) and abs(n) > most for n in numbers):
            raise InputError(f"{self.where}: {name}={shortened(value)} is more than {most}")
        return value if kind is object else kind(value)

    def expect(self, name: str, *supported: Any) -> None:
        """Take an argument for which only some values are supported, the first of them where it is missing.

        Raises:
            InputError: when it has another.
        """
        given = self.values.pop(name, supported[0])
        if given not in supported:
            allowed = " or ".join(repr(value) for value in supported)
            raise InputError(
                f"{self.where}: {name}={shortened(given)} is not supported, only {allowed}"
            )

    def inner(self, name: str, *, beside: bool = False) -> "Arguments":
        """Return the arguments nested under `name`.

        Args:
            name: of the mapping.
            beside: whether they may also stand beside it: then they join the outer ones, before which they count.
        """
        values = self.values.pop(name, {})
        if not isinstance(values, Mapping):
            raise InputError(
                f"{self.where}: {name}={shortened(values)} should hold arguments by name"
            )
        if beside:
            self.values |= values
            return self
        return Arguments(values, f"{self.where}.{name}")

    def finish(self) -> None:
        """Refuse what is left.

        Raises:
            InputError: naming it.
        """
        if self.values:
            raise InputError(f"{self.where}: {', '.join(self.values)} not supported")
