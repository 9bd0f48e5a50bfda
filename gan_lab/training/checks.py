"""Early validation of the training config."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from gan_lab.errors import InputError
from gan_lab.seeding import check_seed

PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")
STRATEGIES = (
    None,
    "auto",
    "ddp",
)  # all the same: `gan_lab.distributed.strategy.ManualDDPStrategy` where it is needed


def check_numbers(config: DictConfig) -> None:
    """Check that numbers are numbers.

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
    """Check that a name is a folder in `runs_dir`.

    Raises:
        InputError: for an empty one, and for one that leads elsewhere.
    """
    if not name or Path(name).is_absolute() or not {".", ".."}.isdisjoint(Path(name).parts):
        raise InputError(f"{key}={name} must name a folder in runs_dir=, such as {key}=faces")


def check_trainer(node: DictConfig) -> None:
    """Check strategy, accelerator and precision.

    Raises:
        InputError: for what the loop cannot train with, with the reason.
    """
    strategy = node.get("strategy")
    if strategy not in STRATEGIES:
        raise InputError(
            f"trainer.strategy={strategy} is not supported: it trains one model with one optimizer, but generator "
            "and discriminator take turns within a step; set trainer.strategy=ddp, or trainer=ddp for all GPUs here"
        )
    if node.get("accelerator") in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise InputError(
            f"trainer.accelerator={node.accelerator}: there is none here; use trainer=auto or trainer=cpu"
        )
    precision = str(node.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision={precision} is not supported; set one of {', '.join(PRECISIONS)}, which keep weights "
            "and their moving average in float32"
        )
