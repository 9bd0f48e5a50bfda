"""R2: zero-centred gradient penalty on generated images.

    R2 = 1/2 E[ ||grad_x D(x)||^2 ],  x ~ G

Mescheder et al. 2018, equation 10, https://arxiv.org/abs/1801.04406.
"""

from torch import Tensor

from gan_lab.training.regularizers.base import DiscriminatorRegularizer, squared_gradient_norm
from gan_lab.training.steps import DiscriminatorStep


class R2(DiscriminatorRegularizer):
    """Zero-centred gradient penalty on generated samples; `weight` is gamma."""

    differentiates_fake = True

    def forward(self, step: DiscriminatorStep) -> Tensor:
        # equation 10
        return squared_gradient_norm(step.fake_logits, step.fake) / 2
