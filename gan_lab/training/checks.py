"""Early validation: trainer, batch sizes (and layers that compare samples), and that all processes train the same."""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Protocol

import torch
from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from pydantic import Field
from torch import nn
from torch.distributed import all_gather_object
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lab.config import BatchSize, FolderName, Keys, Seed, Text, Threads, flatten
from gan_lab.errors import InputError
from gan_lab.layers.collectives import several_ranks
from gan_lab.layers.equalized import MinibatchStddev

PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")
STRATEGIES = (
    None,
    "auto",
    "ddp",
)  # all the same: `gan_lab.distributed.ranks.ManualDDPStrategy` where it is needed


class TrainKeys(Keys):
    """The keys of gan-lab train that are plain values."""

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
    rank_timeout: Annotated[float, Field(gt=0, le=10**5)]
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
        InputError: for unsupported values, with the reason.
    """
    strategy = node.get("strategy")
    if strategy not in STRATEGIES:
        raise InputError(
            f"trainer.strategy={strategy} is not supported, since generator and "
            "discriminator alternate within a step; set trainer.strategy=ddp, or trainer=ddp for all GPUs here"
        )
    wanted = node.get("accelerator")
    here = torch.accelerator.current_accelerator(check_available=True)
    if wanted in ("gpu", "cuda", "mps") and (here is None or wanted not in ("gpu", here.type)):
        raise InputError(
            f"trainer.accelerator={wanted}: this machine has none; use trainer=auto or trainer=cpu"
        )
    precision = str(node.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision={precision} is not supported; set one of {', '.join(PRECISIONS)}, which keep weights "
            "and their moving average in float32"
        )


class Batched(Protocol):
    """The attributes of `AdversarialModule` that are checked."""

    batch_size: int
    micro_batch_size: int
    d_steps: int
    total_images: int

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield all layers with their names."""
        ...


def check_batch_sizes(module: Batched) -> None:
    """Check that batch sizes are positive and divisible, and that batch norm sees at least 2 samples.

    Raises:
        InputError: naming the numbers.
    """
    if module.batch_size < 1 or module.d_steps < 1 or module.total_images < 1:
        raise InputError(
            f"batch_size={module.batch_size}, d_steps={module.d_steps} and "
            f"total_kimg={module.total_images / 1000} must all be positive"
        )
    if module.micro_batch_size < 1:
        raise InputError(f"micro_batch_size={module.micro_batch_size} must be positive, or null")
    if module.batch_size % module.micro_batch_size:
        raise InputError(
            f"batch_size={module.batch_size} is not a multiple of micro_batch_size={module.micro_batch_size}; "
            "every micro-batch must be full"
        )
    if module.micro_batch_size == 1 and (layer := find_batch_norm(module)) is not None:
        raise InputError(
            f"micro_batch_size=1 with batch normalization ({layer}), which needs at least 2 samples; "
            "raise batch_size or micro_batch_size"
        )


def check_batch_per_process(
    module: Batched, processes: int, *, sync_batchnorm: bool = False
) -> None:
    """Check that dividing a batch among processes does not change training.

    Args:
        module: whose batches are divided, also into micro-batches.
        processes: number of processes.
        sync_batchnorm: whether batch norm takes its statistics over all of them.

    Raises:
        InputError: naming the numbers.
    """
    share = module.batch_size // processes
    size = min(module.micro_batch_size, share)
    divided = f"batch_size={module.batch_size}"
    if processes > 1:
        divided += f" on {processes} processes is {share} samples each"
    if share % size:
        raise InputError(
            f"{divided}, not a multiple of micro_batch_size={size}; every micro-batch must be full"
        )
    layer = find_batch_norm(module)
    if size == 1 < processes and layer is not None and not sync_batchnorm:
        raise InputError(
            f"{divided}: batch normalization ({layer}) needs at least 2; raise batch_size, or set "
            "trainer.sync_batchnorm=true"
        )
    for name, stddev in module.named_modules():
        if isinstance(stddev, MinibatchStddev):
            whole, part = stddev.group_of(module.batch_size), stddev.group_of(size)
            if whole != part:
                raise InputError(
                    f"{divided}, of which {size} pass through D at once: the minibatch standard deviation ({name}) "
                    f"would compare {part} samples, not {whole}; set micro_batch_size to a multiple of {whole}, or "
                    f"model.discriminator.mbstd_group_size={part}"
                )


def find_batch_norm(module: Batched) -> str | None:
    """Return the name of the first batch normalization layer, or None."""
    return next((n for n, layer in module.named_modules() if isinstance(layer, _BatchNorm)), None)


class CheckSameConfig(Callback):
    """Check that all processes have the same configuration and begin at the same point of the run.

    A launcher that composes the configuration again on each rank (a sweep, for one) may give each another one, and
    gradients of different models would be averaged.

    Args:
        config: of this process, resolved.
    """

    def __init__(self, *, config: DictConfig) -> None:
        container = OmegaConf.to_container(config)
        assert isinstance(container, dict)
        self._flat = {str(key): value for key, value in flatten(container).items()}

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration."""
        text = json.dumps(self._flat, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Compare with the other processes, before the first step.

        Raises:
            InputError: naming the keys that differ.
        """
        if not several_ranks():
            return
        everywhere: list[Any] = [None] * trainer.world_size
        all_gather_object(everywhere, (self.digest, module.images_seen))
        if len(set(everywhere)) == 1:
            return
        all_gather_object(everywhere, (self._flat, module.images_seen))
        first, seen = everywhere[0]
        for rank, (other, others_seen) in enumerate(everywhere):
            keys = [k for k in {**first, **other} if first.get(k) != other.get(k)]
            if keys or others_seen != seen:
                what = f"{keys[0]} is {first.get(keys[0])} and {other.get(keys[0])}" if keys else ""
                where = (
                    "" if seen == others_seen else f"they are at {seen} and {others_seen} images"
                )
                raise InputError(
                    f"processes 0 and {rank} are not the same run: {what or where}; start all of them by one command"
                )
