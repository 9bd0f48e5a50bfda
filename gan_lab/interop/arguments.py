"""Published constructor arguments, taken one by one, so that none is passed over in silence."""

from collections.abc import Mapping
from typing import Any

from gan_lab.errors import InputError

MISSING = object()


class Arguments:
    """Reads each argument once and refuses those that nobody read.

    Args:
        values: by published name.
        where: what they belong to, for errors.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = dict(values)
        self.where = where

    def take(self, name: str, kind: type, *, default: Any = MISSING) -> Any:
        """Return an argument as `kind`, or None where it is None.

        Raises:
            InputError: when it is missing and has no default, or is of another kind.
        """
        value = self.values.pop(name, default)
        if value is MISSING:
            raise InputError(f"{self.where} has no {name}, without which it cannot be built")
        if value is None:
            return None
        if not isinstance(value, (int, float) if kind in (int, float) else kind):
            raise InputError(f"{self.where}: {name}={value!r} should be of type {kind.__name__}")
        return value if kind is object else kind(value)

    def expect(self, name: str, value: Any) -> None:
        """Take an argument for which only one value is supported.

        Raises:
            InputError: when it has another.
        """
        given = self.values.pop(name, value)
        if given != value:
            raise InputError(f"{self.where}: {name}={given!r} is not supported, only {value!r}")

    def inner(self, name: str, *, beside: bool = False) -> "Arguments":
        """Return the arguments nested under `name`.

        Args:
            name: of the mapping.
            beside: whether they may also stand beside it: then they join the outer ones, before which they count.
        """
        values = self.values.pop(name, {})
        if not isinstance(values, Mapping):
            raise InputError(f"{self.where}: {name}={values!r} should hold arguments by name")
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
