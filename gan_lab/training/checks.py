"""Early validation of the training config."""

from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig
from pydantic import Field

from gan_lab.config import BatchSize, FolderName, Keys, Seed, Text, Threads
from gan_lab.errors import InputError

PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")
STRATEGIES = (
    None,
    "auto",
    "ddp",
)  # all the same: `gan_lab.distributed.strategy.ManualDDPStrategy` where it is needed


class TrainKeys(Keys):
    """The keys of gan-lab train that are no nodes."""

    name: FolderName
    runs_dir: Text
    seed: Seed
    total_kimg: Annotated[float, Field(gt=0, le=10**9)]
    batch_size: BatchSize
    d_steps: Annotated[int, Field(ge=1, le=1000)]
    micro_batch_size: BatchSize | None
    conditional: bool | None
    num_workers: Annotated[int, Field(ge=0, le=1024)] | None
    threads: Threads | None
    compile: bool | Text | None
    dry_run: bool
    new_data: bool
    data_fingerprint: Text | None
    init_from: Text | None
    sweep: FolderName | None
    swept_keys: list[Text]
    objective: Text | None
    objective_mode: Literal["min", "max"] | None
    run_dir: Text
    sample: dict[str, Any] | None


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
