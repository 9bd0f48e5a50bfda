"""Drift: keeps the critic's outputs on real images near 0, where the Wasserstein loss leaves their offset free.

    E[ D(x)^2 ],  x ~ data

Karras et al. 2018, appendix A.1, https://arxiv.org/abs/1710.10196.
"""

from torch import Tensor

from gan_lab.training.regularizers.base import DiscriminatorRegularizer
from gan_lab.training.steps import DiscriminatorStep


class Drift(DiscriminatorRegularizer):
    """Penalty on D's squared logits of real images; `weight` is epsilon_drift (0.001 in the paper)."""

    def forward(self, step: DiscriminatorStep) -> Tensor:
        return step.real_logits.float().square()
