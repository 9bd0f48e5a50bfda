"""Latent diversity, G's side of zCR: the images of two latents nearby are to differ.

    -E[ ||G(z) - G(z + dz)||^2 ],  dz ~ N(0, sigma^2 I)

Zhao et al. 2020, section 2.2, https://arxiv.org/abs/2002.04724. The square is a mean over the image's values here, so
that a weight means the same at every resolution. Its other side is `latent_consistency`.
"""

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.regularizers.base import DiscriminatorStep, GeneratorStep, Player, Regularizer


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
