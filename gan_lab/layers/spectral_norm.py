"""Spectral normalisation: a weight divided by (an estimate of) its largest singular value.

Miyato et al. 2018, https://arxiv.org/abs/1802.05957, equation 8 and algorithm 1.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.nn.functional import normalize
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

Network = TypeVar("Network", bound=nn.Module)
WARMUP_STEPS = 15  # of the power method before the first use; each use adds one


class SpectralNorm(nn.Module):
    """W -> W / sigma(W), sigma by the power method from a kept left singular vector `u`.

    W is read as a matrix with one row per output. Every use takes one step of the power method from `u` and, while
    training, keeps its result; sigma = u^T W v with u and v held constant, whose derivative by W is that of the
    singular value. In evaluation the same weights always give the same result.

    A module of its own for `torch.nn.utils.parametrize`: the trained tensor stays `original`, so optimizers, moving
    averages, deep copies and state dicts see ordinary parameters and one buffer.

    Args:
        weight: [out, ...], two or more dimensions.
        eps: smallest norm that the power method divides by.
    """

    u: Tensor

    def __init__(self, weight: Tensor, *, eps: float = 1e-12) -> None:
        super().__init__()
        self.eps = eps
        start = torch.randn(len(weight), dtype=weight.dtype, device=weight.device)
        self.register_buffer("u", normalize(start, dim=0, eps=eps))
        with torch.no_grad():
            for _ in range(WARMUP_STEPS):
                self.u.copy_(self.singular_vectors(weight.detach().flatten(1))[0])

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight divided by its largest singular value, in the same shape."""
        # in half precision the estimate would be off by more than a step of the power method gains
        with full_precision(weight):
            return weight / self.sigma(weight)

    def sigma(self, weight: Tensor) -> Tensor:
        """Return the estimate of the largest singular value, a scalar that is differentiable by the weight."""
        rows = weight.flatten(1)
        with torch.no_grad():
            u, v = self.singular_vectors(rows)
            if self.training:
                self.u.copy_(u)
        return torch.dot(u, rows @ v)

    def singular_vectors(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step of the power method: u [out] and v [in] of a matrix [out, in]."""
        v = normalize(self.u @ rows, dim=0, eps=self.eps)
        return normalize(rows @ v, dim=0, eps=self.eps), v


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Leave mixed precision on the device of `like`, where there is any."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext()


def spectrally_normalized(
    network: Network,
    *,
    eps: float = 1e-12,
    embeddings: bool = True,
) -> Network:
    """Normalise every convolution and linear layer of a network in place, and return it.

    Args:
        network: any; layers that are normalised already stay as they are.
        eps: smallest norm that the power method divides by.
        embeddings: whether embeddings are normalised too (in a discriminator; not in BigGAN's generator).
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    for layer in list(network.modules()):
        chosen = isinstance(layer, kinds) or (embeddings and isinstance(layer, nn.Embedding))
        if chosen and not is_parametrized(layer, "weight"):
            weight = cast(Tensor, layer.weight)
            register_parametrization(layer, "weight", SpectralNorm(weight, eps=eps))
    return network
