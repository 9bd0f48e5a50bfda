"""A tuned generator as an exported model, which all commands take in the place of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gan_lab import exported
from gan_lab.commands.export import staged, write_weights
from gan_lab.exporting.material import of_export, of_run
from gan_lab.loading import local
from gan_lab.run import write, write_json
from gan_lab.sampling import Gan

_NAMED = 5


def save_tuned(gan: Gan, config: DictConfig, out: Path, *, names: Sequence[str]) -> Path:
    """Write a tuned generator as an exported model; what was exported there before is replaced.

    Args:
        gan: the tuned generator.
        config: of `gan-lab project`.
        out: folder.
        names: of the pictures that it was tuned to.

    Returns:
        The folder.
    """
    description = describe(config)
    pictures = ", ".join(names[:_NAMED])
    pictures += f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    description["name"] = f"{description['name']}, tuned"
    description["tuned"] = {"to": list(names), "how": OmegaConf.to_container(config.tune)}
    # those that were measured are of the untuned generator's images
    description["figures"], description["best"] = [], None
    description["discriminator"], description["programs"] = None, {}
    with staged(out) as folder:
        path = folder / exported.WEIGHTS["generator"]
        description["generator"] |= write_weights(gan.generator.state_dict(), path)
        write_json(folder / exported.DESCRIPTION, description)
        write(
            folder / exported.CARD,
            f"# {description['name']}\n\nThe generator of {config.run} after pivotal tuning (Roich et al. 2021, "
            f"https://arxiv.org/abs/2106.05744) to these pictures: {pictures}. `gan-lab generate run={out} "
            f"latents={out.parent / 'latents.safetensors'}` draws them.\n",
        )
    return out


def describe(config: DictConfig) -> dict[str, Any]:
    """Return what is known of the untuned generator."""
    source = local(config.run)
    if exported.is_export(source):
        made = of_export(source, weights=None, discriminator=False, trust=config.trust)
        return made.description
    return of_run(
        source,
        checkpoint=config.checkpoint,
        weights=config.weights or "ema",
        discriminator=False,
        trust=config.trust,
    ).description
