"""Checks of batch sizes: against each other, the processes that share a batch, and layers that compare samples."""

from collections.abc import Iterator
from typing import Protocol

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lab.errors import InputError
from gan_lab.layers.minibatch_stddev import MinibatchStddev


class Batched(Protocol):
    """What of `AdversarialModule` is checked."""

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
    """Check that a batch divided among processes trains as the whole batch would.

    Args:
        module: whose batches are divided, by its `micro_batch_size` too.
        processes: that share a batch.
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
