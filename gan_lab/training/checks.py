"""What of a training configuration is refused before anything expensive."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from gan_lab.errors import InputError
from gan_lab.seeding import check_seed

PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")


def check_numbers(config: DictConfig) -> None:
    """Refuse words where numbers belong.

    Raises:
        InputError: naming the key.
    """
    for key in ("batch_size", "d_steps", "seed"):
        if not isinstance(config[key], int):
            raise InputError(f"{key}={config[key]} must be a whole number")
    if not isinstance(config.total_kimg, int | float):
        raise InputError(f"total_kimg={config.total_kimg} must be a number")
    check_seed(config.seed)


def check_name(name: str | None, key: str = "name") -> None:
    """Refuse a name that is no folder in `runs_dir`.

    Raises:
        InputError: for an empty one, and for one that leads elsewhere.
    """
    if not name or Path(name).is_absolute() or not {".", ".."}.isdisjoint(Path(name).parts):
        raise InputError(f"{key}={name} must name a folder in runs_dir=, such as {key}=faces")


def check_trainer(node: DictConfig) -> None:
    """Refuse what the loop cannot do.

    Raises:
        InputError: for a strategy of one's own, a missing accelerator and an unknown precision.
    """
    if node.get("strategy") is not None:
        raise InputError(
            f"trainer.strategy={node.strategy}: two networks that take turns fit none of Lightning's strategies; every "
            "process here has both whole, and gradients are averaged once a step. Leave the strategy out, and set "
            "trainer.devices= and trainer.num_nodes=, or trainer=ddp for all GPUs of a machine"
        )
    if node.get("accelerator") in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise InputError(
            f"trainer.accelerator={node.accelerator}: there is none here; use trainer=auto or trainer=cpu"
        )
    precision = str(node.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision={precision} is none of {', '.join(PRECISIONS)}; bf16-mixed needs no scaling of losses, "
            "16-mixed suits devices without bfloat16"
        )
