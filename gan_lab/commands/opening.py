"""A trained generator as a command's configuration asks for it."""

from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

import gan_lab
from gan_lab.errors import InputError
from gan_lab.rendering import Rendering
from gan_lab.sampling import Gan
from gan_lab.seeding import check_seed


def open_gan(config: DictConfig) -> Gan:
    """Load a generator, on its device and with the statistics that were asked for.

    Args:
        config: with `run`, `checkpoint`, `weights`, `device`, `trust`, `seed` and `truncation`, and where a command
            has it, `standing_statistics`.

    Raises:
        InputError: for a run, checkpoint, device, seed or number of images that there is not, or a truncation that
            means nothing to the generator.
    """
    check_seed(config.seed)
    gan = load_gan(config)
    if config.get("standing_statistics") is not None:
        measure_statistics(gan, config)
    return gan


def load_gan(config: DictConfig) -> Gan:
    """Load a generator on its device.

    Args:
        config: that of `open_gan`, of which `seed`, `standing_statistics` and `truncation` may be missing.

    Raises:
        InputError: as `open_gan`.
    """
    gan = gan_lab.load(
        config.run,
        checkpoint=config.checkpoint,
        weights=config.weights,
        device=pick_device(config.device),
        trust=config.trust,
    )
    gan.check_truncation(config.get("truncation"))
    return gan


def rendering_of(config: DictConfig) -> Rendering:
    """Return how images are rendered; keys that a command has not are left as they are by default."""
    translate = config.get("translate")
    return Rendering(
        truncation=config.truncation,
        center=config.get("center", "mean"),
        noise=config.get("noise", "const"),
        translate=(0.0, 0.0) if translate is None else plain(translate),
        rotate=config.get("rotate") or 0.0,
    )


def plain(value: Any) -> Any:
    """Return a list of a configuration as a tuple, and other values as they are."""
    return tuple(value) if isinstance(value, ListConfig) else value


def measure_statistics(gan: Gan, config: DictConfig) -> None:
    """Measure standing statistics where the configuration asks for them.

    Raises:
        InputError: when the generator has none, or for a number that is none.
    """
    count = config.standing_statistics
    if count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool):
        raise InputError(
            f"standing_statistics={count} must be a number of images, such as 10000, or null"
        )
    gan.measure_statistics(count, seed=config.seed, truncation=config.truncation)


def pick_device(name: str) -> torch.device:
    """Return a device by name; "auto" is the accelerator that is there, else the CPU.

    Raises:
        InputError: for a device that is not there.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name} cannot be used here ({error}); use auto or cpu") from error
