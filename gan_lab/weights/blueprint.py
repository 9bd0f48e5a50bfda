"""A network as a publication describes it: which of ours it is, its arguments, and its weights under our names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.training.state_dicts import Translation, check_fit, outline


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
