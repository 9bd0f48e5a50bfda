"""Spectral normalization: a weight divided by an estimate of its largest singular value.

Miyato et al. 2018, https://arxiv.org/abs/1802.05957, equation 8 and algorithm 1.
"""

from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from gan_lab.errors import InputError
from gan_lab.layers.equalized import EqualizedConv2d, EqualizedLinear
from gan_lab.layers.precision import full_precision

Network = TypeVar("Network", bound=nn.Module)
Layer = TypeVar("Layer", bound=nn.Module)
KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, EqualizedConv2d, EqualizedLinear)
WARMUP_STEPS = 15  # steps of the power method before the first use; each use adds one


class SpectralNorm(nn.Module):
    """Spectral norm W / (scale sigma(W)); sigma by the power method from the stored left singular vector `u`.

    W is read as a matrix with one row per output. Every use takes one step of the power method from `u` and, in
    training mode, stores its result; sigma = u^T W v with u and v held constant, whose derivative by W is that of the
    singular value. In evaluation mode the result is a function of the weights.

    A module for `torch.nn.utils.parametrize`: the trained tensor stays `original`, so optimizers, moving
    averages, deep copies and state dicts see ordinary parameters and one buffer.

    Args:
        weight: [out, ...], two or more dimensions.
        eps: smallest norm that the power method divides by.
        scale: factor by which the layer multiplies its weight at use; the product has norm 1.
    """

    u: Tensor

    def __init__(self, weight: Tensor, *, eps: float = 1e-12, scale: float = 1.0) -> None:
        super().__init__()
        self.eps = eps
        self.scale = scale
        start = torch.randn(len(weight), dtype=weight.dtype, device=weight.device)
        self.register_buffer("u", normalize(start, dim=0, eps=eps))
        with torch.no_grad():
            # the meta device has no values, and each step would take it milliseconds
            for _ in range(0 if weight.is_meta else WARMUP_STEPS):
                self.u.copy_(self.singular_vectors(weight.detach().flatten(1))[0])

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight divided by `scale` times its largest singular value, in the same shape."""
        # in half precision the rounding error would exceed the gain of a step
        with full_precision(weight.device):
            return weight / (self.sigma(weight) * self.scale)

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


class StoredSpectralNorm(SpectralNorm):
    """Spectral norm as `torch.nn.utils.spectral_norm`: `u` and `v` are stored, and evaluation mode uses both unchanged.

    For published weights that were trained this way.

    Args:
        weight: [out, ...], or [in, out, ...] of a transposed convolution.
        eps: smallest norm that the power method divides by.
        transposed: whether it is that of a transposed convolution.
    """

    v: Tensor

    def __init__(self, weight: Tensor, *, eps: float = 1e-12, transposed: bool = False) -> None:
        rows = weight.transpose(0, 1) if transposed else weight
        super().__init__(rows, eps=eps)
        self.transposed = transposed
        self.register_buffer("v", torch.empty_like(rows[0].flatten()))
        if not weight.is_meta:
            with torch.no_grad():
                self.v.copy_(normalize(self.u @ rows.detach().flatten(1), dim=0, eps=eps))

    def sigma(self, weight: Tensor) -> Tensor:
        rows = (weight.transpose(0, 1) if self.transposed else weight).flatten(1)
        u, v = self.u, self.v
        if self.training:
            with torch.no_grad():
                u, v = self.singular_vectors(rows)
                self.u.copy_(u)
                self.v.copy_(v)
        return torch.dot(u, rows @ v)


def spectrally_normalized(
    network: Network,
    *,
    eps: float = 1e-12,
    embeddings: bool = True,
) -> Network:
    """Apply spectral norm to every convolution and linear layer of a network in place, and return it.

    For layers with equalized learning rate, the weight at use, gains included, gets norm 1.

    Args:
        network: any; layers that have spectral norm already stay as they are.
        eps: smallest norm that the power method divides by.
        embeddings: whether embeddings get it, too (in a discriminator; not in BigGAN's generator).
    """
    kinds = (*KINDS, nn.Embedding) if embeddings else KINDS
    for layer in list(network.modules()):
        if isinstance(layer, kinds) and not is_parametrized(layer, "weight"):
            norm = SpectralNorm(layer.weight, eps=eps, scale=scale_of(layer))
            register_parametrization(layer, "weight", norm)
    return network


def stored_spectral_norm(layer: Layer) -> Layer:
    """Apply `StoredSpectralNorm` to a layer's weight in place, and return the layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    norm = StoredSpectralNorm(weight, transposed=isinstance(layer, nn.ConvTranspose2d))
    register_parametrization(layer, "weight", norm)
    return layer


def scale_of(layer: nn.Module) -> float:
    """Return the factor by which a layer multiplies its weight at use."""
    return layer.weight_gain if isinstance(layer, EqualizedConv2d | EqualizedLinear) else 1.0


def normalize_discriminator(network: nn.Module) -> None:
    """Apply spectral norm to every weight of a discriminator of any architecture, in place.

    Weights that have it already stay as they are. Weights initialized with 0 (the last convolutions of R3GAN's blocks)
    have no norm to divide by: they are redrawn from the normal distribution.

    Raises:
        InputError: when a weight belongs to no layer of a known kind.
    """
    for layer in network.modules():
        if isinstance(layer, (*KINDS, nn.Embedding)) and not is_parametrized(layer, "weight"):
            weight = cast(nn.Parameter, layer.weight)
            if not weight.detach().any():
                nn.init.normal_(weight)
    spectrally_normalized(network)
    others = [
        name
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1 and not name.endswith("parametrizations.weight.original")
    ]
    if others:
        raise InputError(
            f"model.discriminator_spectral_norm=true: {others[0]} ({len(others)} such) is no weight of a "
            "convolution, linear layer or embedding, which alone are supported; set it to false"
        )
