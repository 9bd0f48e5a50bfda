"""Which reader a publication has, and networks from what it describes."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from gan_lab.errors import InputError
from gan_lab.weights.blueprint import Blueprints

Reader = Callable[[Mapping[str, Any], Mapping[str, Any] | None], Blueprints]

# what a configuration's source begins with -> where its reader is
READERS = {
    "stylegan2-ada networks": "gan_lab.weights.stylegan2:read",
    "stylegan3 networks": "gan_lab.weights.stylegan3:read",
    "R3GAN networks": "gan_lab.weights.r3gan:read",
    "BigGAN-PyTorch networks": "gan_lab.weights.biggan:read",
    "pytorch-pretrained-BigGAN": "gan_lab.weights.pretrained_biggan:read",
}


def from_published(
    config: Mapping[str, Any], state: Mapping[str, Any] | None
) -> dict[str, nn.Module]:
    """Build the networks that a publication describes, with its weights.

    Args:
        config: `source` (which publication), `generator` and perhaps `discriminator`: constructor arguments by their
            published names.
        state: `"G/<published name>"` and `"D/<published name>"` -> array or tensor; None for fresh weights.

    Returns:
        {"G": generator, "D": discriminator}, those that `config` describes, in evaluation mode.
        `generator(z, labels=None) -> images [N, C, H, W]`, `discriminator(images, labels=None) -> logits [N]`.

    Raises:
        InputError: for an unknown source, an argument that is not supported, or weights that do not fit.
    """
    return {name: blueprint.build() for name, blueprint in blueprints(config, state).items()}


def blueprints(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Return what `from_published` builds, before it is built: our classes, their arguments and the weights.

    Raises:
        InputError: for an unknown source or an argument that is not supported.
    """
    source = str(config.get("source", ""))
    for prefix, where in READERS.items():
        if source.startswith(prefix):
            module, _, function = where.partition(":")
            reader: Reader = getattr(import_module(module), function)
            return reader(config, state)
    raise InputError(f"source={source!r} is unknown; it must begin with one of {list(READERS)}")
