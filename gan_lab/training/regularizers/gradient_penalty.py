"""Gradient penalty of WGAN-GP: D's gradient has norm one between real and generated images.

    E[ (||grad_x D(x)||_2 - 1)^2 ],  x = real + u (fake - real),  u ~ U(0, 1) per image

Gulrajani et al. 2017, equation 3, https://arxiv.org/abs/1704.00028.
"""

import torch
from torch import Tensor

from gan_lab.training.regularizers.base import (
    DiscriminatorStep,
    GeneratorStep,
    Regularizer,
    gradient_norm,
)


class GradientPenalty(Regularizer):
    """One-centred gradient penalty per sample; `weight` is lambda (10 in the paper).

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        center: the norm that costs nothing; 0 gives the zero-centred variant of Thanh-Tung et al. 2019.
    """

    def __init__(self, *, weight: float, interval: int = 1, center: float = 1.0) -> None:
        super().__init__(weight=weight, interval=interval)
        self.center = center

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        assert isinstance(step, DiscriminatorStep)
        real, fake = step.real.detach(), step.fake.detach()
        mix = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
        between = torch.lerp(real, fake, mix).requires_grad_()
        norm = gradient_norm(step.critic(between, step.labels), between)
        return (norm - self.center).square()
