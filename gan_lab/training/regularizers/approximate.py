"""Approximate R1 and R2: the gradient penalties by finite differences, without second derivatives.

    ((D(x + s n) - D(x)) / s)^2,  n ~ N(0, I)

whose mean over n is ||grad_x D(x)||^2 but for terms of order s^2: n^T g has the mean square ||g||^2. Lin et al. 2025,
https://arxiv.org/abs/2501.08316 (there without the division); Hyun et al. 2025,
https://arxiv.org/abs/2509.24935, with s = 0.01. One draw of a sample has a standard deviation of sqrt(2) times the
mean; the batch and the steps average over it. Augmentations and noise are the same in both calls.
"""

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorInput, Role, map_tensors
from gan_lab.training.losses import mean_per_sample
from gan_lab.training.regularizers.base import DiscriminatorRegularizer
from gan_lab.training.steps import DiscriminatorStep


class Approximate(DiscriminatorRegularizer):
    """What both have in common: half of the squared difference quotient, as R1 and R2 are half of the squared norm.

    Args:
        weight: gamma, as of R1 and R2.
        interval: D steps between penalties.
        noise: s, standard deviation of the change of x.

    Raises:
        InputError: for a change that is none.
    """

    role: Role
    replays = True

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.01) -> None:
        super().__init__(weight=weight, interval=interval)
        if noise <= 0:
            raise InputError(f"{type(self).__name__}: noise={noise} must be positive")
        self.noise = noise

    def penalty(self, step: DiscriminatorStep, x: DiscriminatorInput, logits: Tensor) -> Tensor:
        """Return the penalty [N] of samples and D's logits for them."""
        near = map_tensors(lambda part: (part + self.noise * torch.randn_like(part)).detach(), x)
        return squared_slope(step.replayed(near, self.role), logits, self.noise) / 2


class ApproximateR1(Approximate):
    """R1 by finite differences, on real samples; `weight` is gamma (0.1 in GAT)."""

    role = "real"

    def forward(self, step: DiscriminatorStep) -> Tensor:
        return self.penalty(step, step.real, step.real_logits)


class ApproximateR2(Approximate):
    """R2 by finite differences, on generated samples; `weight` is gamma."""

    role = "fake"

    def forward(self, step: DiscriminatorStep) -> Tensor:
        return self.penalty(step, step.fake, step.fake_logits)


def squared_slope(near: Tensor, logits: Tensor, noise: float) -> Tensor:
    """Return ((near - logits) / noise)^2 of each sample's mean logit, [N]."""
    difference = mean_per_sample(near.float()) - mean_per_sample(logits.float())
    return (difference / noise).square()
