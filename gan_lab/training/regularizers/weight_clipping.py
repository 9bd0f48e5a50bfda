"""Weight clipping of the first WGAN: after each D step every parameter is clamped to [-limit, limit].

Arjovsky et al. 2017, algorithm 1, https://arxiv.org/abs/1701.07875.
"""

import torch
from torch import nn

from gan_lab.errors import InputError
from gan_lab.training.regularizers.base import DiscriminatorRegularizer


class WeightClipping(DiscriminatorRegularizer):
    """Clamp D's parameters; not a penalty, so it has neither weight nor interval.

    Args:
        limit: c, 0.01 in the paper.
    """

    penalizes = False

    def __init__(self, *, limit: float = 0.01) -> None:
        super().__init__(weight=0)
        if limit <= 0:
            raise InputError(f"WeightClipping: limit={limit} must be positive")
        self.limit = limit

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        for parameter in network.parameters():
            parameter.clamp_(-self.limit, self.limit)
