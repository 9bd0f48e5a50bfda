"""A network as a publication describes it: its constructor arguments, which of our classes it is, and its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from reprlib import repr as shortened
from typing import Any

from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.training.state_dicts import Translation, check_fit, outline, part

MISSING = object()

# a file may ask for a network of any size: no published one comes near these
LARGEST = 1 << 20

MOST_LAYERS = 100


class Arguments:
    """Published constructor arguments, each read once; what nobody reads is an error.

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
        # NaN is not a number that is at most anything
        if not all(abs(n) <= most for n in numbers if isinstance(n, int | float)):
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
        """Check that every argument was read.

        Raises:
            InputError: naming it.
        """
        if self.values:
            raise InputError(f"{self.where}: {', '.join(self.values)} not supported")


@dataclass(frozen=True)
class Blueprint:
    """What a network is built from.

    Attributes:
        target: our class.
        arguments: of its constructor.
        state: published name -> array or tensor; None for fresh weights.
        translate: gives published weights our names.
    """

    target: type[nn.Module]
    arguments: Mapping[str, Any]
    state: Mapping[str, Any] | None
    translate: Translation

    @property
    def node(self) -> dict[str, Any]:
        """The network as a node of a configuration."""
        return {
            "_target_": f"{self.target.__module__}.{self.target.__qualname__}",
            **self.arguments,
        }

    def weights(self) -> dict[str, Tensor]:
        """Return the published weights under our names.

        Raises:
            InputError: when they do not fit the arguments. Nothing of the network's size has been made then: what a
                file asks for and what it holds may be far apart.
        """
        assert self.state is not None
        own = self.outline()
        try:
            weights = self.translate(self.state, own)
        except InputError:
            raise
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"weights do not fit the arguments ({error})") from error
        check_fit(own, weights)
        return weights

    def outline(self) -> dict[str, Tensor]:
        """Return the state dict that the arguments ask for, in name, shape and type only.

        Raises:
            InputError: when they make no network.
        """
        try:
            made: nn.Module = outline(partial(self.target, **self.arguments))
            return made.state_dict()
        except InputError:
            raise
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            # a file may give numbers that no constructor has a word for
            raise InputError(
                f"its arguments make no network ({type(error).__name__}: {error})"
            ) from error

    def build(self) -> nn.Module:
        """Return the network in evaluation mode.

        Raises:
            InputError: for arguments that it does not take, or weights that do not fit them.
        """
        if self.state is None:
            return self.target(**self.arguments).eval()
        weights = self.weights()
        network = self.target(**self.arguments)
        network.load_state_dict(weights)
        return network.eval()


Blueprints = dict[str, Blueprint]
# (published arguments, published weights) -> blueprint
Reader = Callable[[Mapping[str, Any], Mapping[str, Any] | None], Blueprint]


def read_players(
    config: Mapping[str, Any],
    state: Mapping[str, Any] | None,
    *,
    generator: Reader,
    discriminator: Reader,
) -> Blueprints:
    """Read those of G and D whose arguments are given.

    Args:
        config: perhaps `generator` and `discriminator`: arguments by their published names.
        state: `"G/<published name>"` and `"D/<published name>"` -> array or tensor; None for fresh weights.
        generator: reads a generator.
        discriminator: reads a discriminator.

    Raises:
        InputError: for arguments that are not supported.
    """
    readers = {"generator": ("G", generator), "discriminator": ("D", discriminator)}
    return {
        name: read(config[player], part(state, name))
        for player, (name, read) in readers.items()
        if player in config
    }
