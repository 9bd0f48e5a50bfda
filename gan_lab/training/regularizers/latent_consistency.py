"""Latent consistency, D's side of zCR: D says the same of an image and of that from a latent nearby.

    E[ (D(G(z)) - D(G(z + dz)))^2 ],  dz ~ N(0, sigma^2 I)

Zhao et al. 2020, section 2.2, https://arxiv.org/abs/2002.04724. Its other side, which asks G to make these two images
differ, is `latent_diversity`.
"""

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import samples_of
from gan_lab.training.regularizers.base import DiscriminatorRegularizer, GeneratorRegularizer
from gan_lab.training.steps import DiscriminatorStep, GeneratorStep


class LatentConsistency(DiscriminatorRegularizer):
    """Penalty on D's change between neighbours in latent space; `weight` is lambda_dis.

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        noise: sigma, standard deviation of dz.
    """

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.05) -> None:
        super().__init__(weight=weight, interval=interval)
        if noise <= 0:
            raise InputError(f"LatentConsistency: noise={noise} must be positive")
        self.noise = noise

    def forward(self, step: DiscriminatorStep) -> Tensor:
        with torch.no_grad():
            near = step.generate(step.z + self.noise * torch.randn_like(step.z))
        return (step.fake_logits - step.logits(near)).float().square()


# Latent diversity, G's side of zCR: the images of two latents nearby are to differ.


class LatentDiversity(GeneratorRegularizer):
    """Reward for G's change between neighbours in latent space; `weight` is lambda_gen.

    Args:
        weight: coefficient.
        interval: G steps between penalties.
        noise: sigma, standard deviation of dz.
    """

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.05) -> None:
        super().__init__(weight=weight, interval=interval)
        if noise <= 0:
            raise InputError(f"LatentDiversity: noise={noise} must be positive")
        self.noise = noise

    def forward(self, step: GeneratorStep) -> Tensor:
        there = step.generate(step.z + self.noise * torch.randn_like(step.z))
        changes = [
            (here - near).float().square().flatten(1).mean(1)
            for here, near in zip(samples_of(step.fake), samples_of(there), strict=True)
        ]
        return -torch.stack(changes).mean(0)
