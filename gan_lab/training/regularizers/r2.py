"""R2: zero-centred gradient penalty on generated images.

    R2 = 1/2 E[ ||grad_x D(x)||^2 ],  x ~ G

Mescheder et al. 2018, equation 10, https://arxiv.org/abs/1801.04406.
"""

from torch import Tensor

from gan_lab.training.regularizers.base import (
    DiscriminatorStep,
    GeneratorStep,
    Regularizer,
    squared_gradient_norm,
)


class R2(Regularizer):
    """Zero-centred gradient penalty on generated images; `weight` is gamma."""

    needs_input_gradient = True

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        assert isinstance(step, DiscriminatorStep)
        return squared_gradient_norm(step.fake_logits, step.fake) / 2
