"""DRAGAN: D's gradient has norm one in a cloud around the real images.

    E[ (||grad_x D(x + delta)||_2 - 1)^2 ],  x ~ data,  delta ~ N(0, c I)

Kodali et al. 2017, equation 4, https://arxiv.org/abs/1705.07215. The gradient is that of the logit, so that the
penalty means the same with every loss.
"""

import torch
from torch import Tensor

from gan_lab.layers.networks import map_tensors
from gan_lab.training.regularizers.base import DiscriminatorRegularizer, gradient_norm
from gan_lab.training.steps import DiscriminatorStep, requiring_grad


class Dragan(DiscriminatorRegularizer):
    """One-centred gradient penalty around the data; `weight` is lambda (10 in the paper).

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        noise: standard deviation of delta as a share of that of the micro-batch's values.
    """

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.5) -> None:
        super().__init__(weight=weight, interval=interval)
        self.noise = noise

    def forward(self, step: DiscriminatorStep) -> Tensor:
        near = requiring_grad(map_tensors(self._disturb, step.real))
        return (gradient_norm(step.logits(near), near) - 1).square()  # equation 4

    def _disturb(self, real: Tensor) -> Tensor:
        real = real.detach()
        return real + self.noise * real.std() * torch.randn_like(real)
