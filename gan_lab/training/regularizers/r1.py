"""R1: zero-centred gradient penalty on real images.

    R1 = 1/2 E[ ||grad_x D(x)||^2 ],  x ~ data

Mescheder et al. 2018, equation 9, https://arxiv.org/abs/1801.04406.
"""

from torch import Tensor

from gan_lab.training.regularizers.base import DiscriminatorRegularizer, squared_gradient_norm
from gan_lab.training.steps import DiscriminatorStep


class R1(DiscriminatorRegularizer):
    """Zero-centred gradient penalty on real samples; `weight` is gamma (10 in the paper)."""

    differentiates_real = True

    def forward(self, step: DiscriminatorStep) -> Tensor:
        # equation 9
        return squared_gradient_norm(step.real_logits, step.real) / 2
