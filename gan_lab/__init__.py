"""gan_lab: train, evaluate and use generative adversarial networks."""

from typing import TYPE_CHECKING, Any

from gan_lab.version import __version__

if TYPE_CHECKING:
    from gan_lab.weights.loading import load as load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import `load` on demand, so that `gan-lab --help` does not wait for torch."""
    if name == "load":
        from gan_lab.weights.loading import load

        return load
    raise AttributeError(f"module 'gan_lab' has no attribute {name!r}")
