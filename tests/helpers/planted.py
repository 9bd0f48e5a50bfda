"""Generators whose inverse is known."""

import torch
from torch import Tensor, nn

from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.sampling.gan import Gan


class Linear(GeneratorNetwork):
    """z -> 4x4 pixels by a matrix, brighter with the class."""

    def __init__(self, matrix: Tensor, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.z_dim = matrix.shape[1]
        self.first = nn.Linear(*matrix.T.shape, bias=False)
        self.first.weight = nn.Parameter(matrix.clone())

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self.first(z).unflatten(1, (1, 4, 4))
        return images if labels is None else images + labels[:, None, None, None]


class Rescaled(Linear):
    """The same of z scaled to one length."""

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(z / z.norm(dim=1, keepdim=True), labels)


def linear_gan(matrix: Tensor, num_classes: int = 0, kind: type[Linear] = Linear) -> Gan:
    return Gan(kind(matrix, num_classes).eval().requires_grad_(False))


def with_values(values: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix [16, Z] with these singular values, and its right singular vectors [Z, Z], signs as directions have."""
    source = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(16, len(values), generator=source).double())
    right, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=source).double())
    vectors = right.T
    signs = vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
    return (left * values.double() @ vectors).float(), (vectors * signs).float()
