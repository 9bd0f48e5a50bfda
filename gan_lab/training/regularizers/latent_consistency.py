"""Latent consistency, D's side of zCR: D says the same of an image and of that from a latent nearby.

    E[ (D(G(z)) - D(G(z + dz)))^2 ],  dz ~ N(0, sigma^2 I)

Zhao et al. 2020, section 2.2, https://arxiv.org/abs/2002.04724. Its other side, which asks G to make these two images
differ, is `latent_diversity`.
"""

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.training.regularizers.base import DiscriminatorStep, GeneratorStep, Player, Regularizer


class LatentConsistency(Regularizer):
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

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        assert isinstance(step, DiscriminatorStep)
        with torch.no_grad():
            near = step.generate(step.z + self.noise * torch.randn_like(step.z), step.labels)
        return (step.fake_logits - step.critic(near, step.labels)).float().square()


# Latent diversity, G's side of zCR: the images of two latents nearby are to differ.


class LatentDiversity(Regularizer):
    """Reward for G's change between neighbours in latent space; `weight` is lambda_gen.

    Args:
        weight: coefficient.
        interval: G steps between penalties.
        noise: sigma, standard deviation of dz.
    """

    player: Player = "generator"

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.05) -> None:
        super().__init__(weight=weight, interval=interval)
        if noise <= 0:
            raise InputError(f"LatentDiversity: noise={noise} must be positive")
        self.noise = noise

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        assert isinstance(step, GeneratorStep)
        near = step.z + self.noise * torch.randn_like(step.z)
        there = step.network(near, step.labels)
        here = step.fake
        if here is None or here.shape != there.shape:
            # a lazy step has made no images yet, and a BiGAN's are parts of pairs
            here = step.network(step.z, step.labels)
        return -(here - there).float().square().flatten(1).mean(1)
