"""R1: zero-centred gradient penalty on real images.

    R1 = 1/2 E[ ||grad_x D(x)||^2 ],  x ~ data

Mescheder et al. 2018, equation 9, https://arxiv.org/abs/1801.04406.
"""

from torch import Tensor

from gan_lab.training.regularizers.base import (
    DiscriminatorStep,
    GeneratorStep,
    Regularizer,
    squared_gradient_norm,
)


class R1(Regularizer):
    """Zero-centred gradient penalty on real images; `weight` is gamma (10 in the paper)."""

    needs_input_gradient = True

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        assert isinstance(step, DiscriminatorStep)
        return squared_gradient_norm(step.real_logits, step.real) / 2
