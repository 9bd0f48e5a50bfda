"""Standing statistics: what batch norm uses in evaluation, measured for the images that are to be made.

Brock et al. 2019, appendix C, https://arxiv.org/abs/1809.11096: the averages kept during training belong to older
weights, to the generator before its weights were averaged, and to latents without truncation. Measured for the
averaged weights and the truncation of the samples, statistics fit both, and no image depends on others of its batch.
Averages of statistics (`gan_lab.training.ema`, `buffers="average"`) follow averaged weights without a pass over images,
but know of no truncation.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lab.errors import InputError


@torch.no_grad()
def standing_statistics(
    generator: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> nn.Module:
    """Replace the running statistics of a generator's batch norms by their mean over some batches, in place.

    Everything else about the generator stays as it is: only batch norm is in training mode meanwhile.

    Args:
        generator: in evaluation mode, with batch norm.
        batches: (latents, labels) as images will be made from, of one size.

    Returns:
        The generator, in evaluation mode.

    Raises:
        InputError: when the generator has no batch norm, or there are no batches.
    """
    norms = [layer for layer in generator.modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        raise InputError(
            "standing statistics are for generators with batch normalisation; leave them out"
        )
    generator.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    count = 0
    for z, labels in batches:
        generator(z, labels)
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if not count:
        raise InputError(
            "standing statistics need at least one batch; give num_batches of at least 1"
        )
    return generator.eval()
