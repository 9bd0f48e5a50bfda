"""Generators that are linear maps."""

import torch
from torch import nn

from gan_lab.layers.networks import GeneratorNetwork

SIDE = 8


class LinearSynthesis(nn.Module):
    """w [N, 1, D] -> images by a matrix."""

    def __init__(self, w_dim, *, orthogonal=False):
        super().__init__()
        torch.manual_seed(0)
        self.matrix = nn.Linear(w_dim, SIDE * SIDE, bias=False)
        if orthogonal:
            nn.init.orthogonal_(self.matrix.weight)

    def forward(self, w, noise="const"):
        return self.matrix(w[:, 0]).view(-1, 1, SIDE, SIDE) / 8


class Linear(GeneratorNetwork):
    """Images are a linear map of z."""

    num_classes = 0

    def __init__(self, *, z_dim=64, orthogonal=False):
        super().__init__()
        self.z_dim = z_dim
        self.synthesis = LinearSynthesis(z_dim, orthogonal=orthogonal)

    def forward(self, z, labels=None):
        return self.synthesis(z[:, None])
