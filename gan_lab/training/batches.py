"""What the sizes of batches must fit: each other, the processes that share them, and layers that compare images."""

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lab.errors import InputError
from gan_lab.layers.minibatch_stddev import MinibatchStddev

if TYPE_CHECKING:
    from gan_lab.training.module import AdversarialModule


def check_batches(module: "AdversarialModule") -> None:
    """Refuse sizes that are none, micro-batches that are not full, and batch norm of one image.

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
            f"micro_batch_size=1 with batch normalisation ({layer}), which needs at least 2 images; "
            "raise batch_size or micro_batch_size"
        )


def check_share(module: "AdversarialModule", ranks: int, *, synchronized: bool = False) -> None:
    """Refuse a division of batches by which the same command would play another game.

    Args:
        module: whose batches are divided, by its `micro_batch_size` too.
        ranks: processes that share a batch.
        synchronized: whether batch norm takes its statistics over all of them.

    Raises:
        InputError: naming the numbers.
    """
    share = module.batch_size // ranks
    size = min(module.micro_batch_size, share)
    divided = f"batch_size={module.batch_size}"
    if ranks > 1:
        divided += f" on {ranks} processes is {share} images each"
    if share % size:
        raise InputError(
            f"{divided}, no multiple of micro_batch_size={size}; every micro-batch must be full"
        )
    layer = find_batch_norm(module)
    if size == 1 < ranks and layer is not None and not synchronized:
        raise InputError(
            f"{divided}: batch normalisation ({layer}) needs at least 2; raise batch_size, or share its statistics by "
            "trainer.sync_batchnorm=true"
        )
    for name, stddev in module.discriminator.named_modules():
        if isinstance(stddev, MinibatchStddev):
            whole, part = stddev.group_of(module.batch_size), stddev.group_of(size)
            if whole != part:
                raise InputError(
                    f"{divided}, of which {size} pass through D at once: the minibatch standard deviation "
                    f"(discriminator.{name}) would compare {part} images, not {whole}; let a multiple of {whole} pass "
                    f"at once, or set model.discriminator.mbstd_group_size={part}"
                )


def find_batch_norm(module: nn.Module) -> str | None:
    """Return the name of the first batch normalisation layer, or None."""
    return next((n for n, layer in module.named_modules() if isinstance(layer, _BatchNorm)), None)
