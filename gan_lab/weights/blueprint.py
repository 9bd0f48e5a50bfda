"""Published networks: reading published constructor arguments and weights, and building our networks from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from reprlib import repr as shortened
from typing import Any

from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.training.state_dicts import Translation, check_fit, outline, part

MISSING = object()

# limits for files from an untrusted source; no published network comes near them
LARGEST = 1 << 20

MOST_LAYERS = 100


class Arguments:
    """Published constructor arguments; each is taken once, and one that is left over is an error.

    Args:
        values: by published name.
        where: what they belong to, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = dict(values)
        self.where = where

    def take(self, name: str, kind: type, *, default: Any = MISSING, most: int = LARGEST) -> Any:
        """Take an argument, converted to `kind`; None stays None.

        Args:
            name: of the argument.
            kind: its type.
            default: if it is missing.
            most: largest allowed number, also in lists.

        Raises:
            InputError: when it is missing without a default, of another type, or too large.
        """
        value = self.values.pop(name, default)
        if value is MISSING:
            raise InputError(f"{self.where} has no {name}, which is required")
        if value is None:
            return None
        if not isinstance(value, (int, float) if kind in (int, float) else kind):
            raise InputError(
                f"{self.where}: {name}={shortened(value)} should be of type {kind.__name__}"
            )
        numbers: list[Any] = value if isinstance(value, list) else [value]
        if kind is list and not all(type(number) is int for number in numbers):
            raise InputError(f"{self.where}: {name}={shortened(value)} should hold whole numbers")
        # written so that NaN is rejected, too
        if not all(abs(n) <= most for n in numbers if isinstance(n, int | float)):
            raise InputError(f"{self.where}: {name}={shortened(value)} is more than {most}")
        return value if kind is object else kind(value)

    def expect(self, name: str, *supported: Any) -> None:
        """Take an argument that has only some supported values; the first one is the default.

        Raises:
            InputError: for another value.
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
            beside: whether they may also be given at the outer level; nested values take precedence.
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
            InputError: naming those left over.
        """
        if self.values:
            raise InputError(f"{self.where}: {', '.join(self.values)} not supported")


@dataclass(frozen=True)
class Blueprint:
    """How to build a network: our class, its arguments, and published weights.

    Attributes:
        target: our class.
        arguments: of its constructor.
        state: published name -> array or tensor; None for random weights.
        translate: renames published weights to ours.
    """

    target: type[nn.Module]
    arguments: Mapping[str, Any]
    state: Mapping[str, Any] | None
    translate: Translation

    @property
    def node(self) -> dict[str, Any]:
        """The network as a config node."""
        return {
            "_target_": f"{self.target.__module__}.{self.target.__qualname__}",
            **self.arguments,
        }

    def weights(self) -> dict[str, Tensor]:
        """Return the published weights under our names.

        Raises:
            InputError: when they do not match the arguments. This is checked before memory for the network is
                allocated, since a file may describe a much larger network than it holds.
        """
        assert self.state is not None
        own = self.outline()
        try:
            weights = self.translate(self.state, own)
        except InputError:
            raise
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"weights do not match the arguments ({error})") from error
        check_fit(own, weights)
        return weights

    def outline(self) -> dict[str, Tensor]:
        """Return the state dict of the network (names, shapes and types) without allocating memory.

        Raises:
            InputError: when the arguments are invalid.
        """
        try:
            made: nn.Module = outline(partial(self.target, **self.arguments))
            return made.state_dict()
        except InputError:
            raise
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            # constructors do not check for every nonsense that a file may hold
            raise InputError(
                f"its arguments are invalid ({type(error).__name__}: {error})"
            ) from error

    def build(self) -> nn.Module:
        """Return the network in evaluation mode.

        Raises:
            InputError: for invalid arguments, or weights that do not match them.
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
    """Read G and D, whichever has arguments in the config.

    Args:
        config: perhaps `generator` and `discriminator`: arguments by their published names.
        state: weights, `"G/<published name>"` and `"D/<published name>"` -> array or tensor; None for random ones.
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
