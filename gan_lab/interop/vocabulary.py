"""What a pickle may name, and what names and objects become that are not run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gan_lab.errors import InputError


class RefusedError(InputError):
    """A pickle asks for something that it is not given."""


class DamagedError(InputError):
    """A pickle is cut short or makes no sense."""


@dataclass(frozen=True)
class Name:
    """What a pickle calls by a module and a name; nothing is imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Restored(ABC):
    """An object of ours that a pickle may give a state once."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Keep a state.

        Raises:
            RefusedError: when it is not of the form that this object has.
        """


@dataclass(eq=False)
class Record(Restored):
    """Stands for an object of a class that is not run: its name, what it was made with, and its state as plain data."""

    name: Name
    arguments: tuple[Any, ...] = ()
    state: Any = field(default=None, repr=False)

    def restore(self, state: Any) -> None:
        """Keep the state; whatever the class would have done with it is not done."""
        if self.state is not None:
            raise RefusedError(f"it sets the state of a {self.name} twice")
        self.state = state


@dataclass(frozen=True)
class Vocabulary:
    """What a kind of file may name.

    Attributes:
        calls: functions of ours in place of those named.
        values: values of ours in place of those named.
        words: names that are only arguments of others.
        records: beginnings of module names whose classes become records.
        purpose: what kind of file this is, for errors.
    """

    purpose: str
    calls: Mapping[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)
    values: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    words: frozenset[tuple[str, str]] = frozenset()
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
        if key in self.calls or key in self.words or self.is_record(found):
            return found
        shown = f"{module[:80]}.{name[:80]}"
        raise RefusedError(f"it asks for {shown}, which {self.purpose} has no use for")
