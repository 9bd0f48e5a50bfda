"""Gradient penalty of WGAN-GP: D's gradient has norm one between real and generated images.

    E[ (||grad_x D(x)||_2 - 1)^2 ],  x = real + u (fake - real),  u ~ U(0, 1) per image

Gulrajani et al. 2017, equation 3, https://arxiv.org/abs/1704.00028.
"""

import torch
from torch import Tensor

from gan_lab.layers.networks import tensors_of
from gan_lab.training.regularizers.base import DiscriminatorRegularizer, gradient_norm
from gan_lab.training.steps import DiscriminatorStep, requiring_grad


class GradientPenalty(DiscriminatorRegularizer):
    """One-centred gradient penalty per sample; `weight` is lambda (10 in the paper).

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        center: the norm that costs nothing; 0 gives the zero-centred variant of Thanh-Tung et al. 2019.
    """

    def __init__(self, *, weight: float, interval: int = 1, center: float = 1.0) -> None:
        super().__init__(weight=weight, interval=interval)
        self.center = center

    def forward(self, step: DiscriminatorStep) -> Tensor:
        pairs = list(zip(tensors_of(step.real), tensors_of(step.fake), strict=True))
        first, _ = pairs[0]
        u = torch.rand(len(first), device=first.device, dtype=first.dtype)
        mixed = tuple(
            torch.lerp(real.detach(), fake.detach(), u.view(-1, *[1] * (real.ndim - 1)))
            for real, fake in pairs
        )
        between = requiring_grad(mixed if isinstance(step.real, tuple) else mixed[0])
        norm = gradient_norm(step.logits(between), between)
        return (norm - self.center).square()  # equation 3
