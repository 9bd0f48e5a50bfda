"""Orthogonal regularization as BigGAN relaxed it: the filters of a layer are pairwise orthogonal, of any length.

    sum over layers of || W W^T * (1 - I) ||_F^2,  W [out, in * kernel]

Brock et al. 2019, equation 3, https://arxiv.org/abs/1809.11096.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gan_lab.errors import InputError
from gan_lab.training.regularizers.base import DiscriminatorRegularizer, GeneratorRegularizer
from gan_lab.training.steps import DiscriminatorStep, GeneratorStep

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class GeneratorOrthogonal(GeneratorRegularizer):
    """Penalty on the generator's weights; `weight` is beta (1e-4 in BigGAN). Returns one number, not one a sample."""

    def check(self, network: nn.Module) -> None:
        """Check that the network has filters."""
        check_filters(network, self.player)

    def forward(self, step: GeneratorStep) -> Tensor:
        return non_orthogonality(step.network)


class DiscriminatorOrthogonal(DiscriminatorRegularizer):
    """Penalty on the discriminator's weights; `weight` is beta. Returns one number, not one a sample."""

    def check(self, network: nn.Module) -> None:
        """Check that the network has filters."""
        check_filters(network, self.player)

    def forward(self, step: DiscriminatorStep) -> Tensor:
        return non_orthogonality(step.network)


def check_filters(network: nn.Module, player: str) -> None:
    """Check that a network has filters.

    Raises:
        InputError: naming the player when it has none.
    """
    if not any(has_filters(module) for module in network.modules()):
        raise InputError(f"Orthogonal: the {player} has neither convolutions nor linear layers")


def non_orthogonality(network: nn.Module) -> Tensor:
    """Return the sum over layers; embeddings are left out, as in the paper's code."""
    terms = [overlap(filters(m)) for m in network.modules() if has_filters(m)]
    return torch.stack(terms).sum()  # equation 3


def has_filters(module: nn.Module) -> bool:
    """Whether the module is a convolution, transposed or not, or a linear layer."""
    return isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear))


def filters(module: nn.Module) -> Tensor:
    """Return the weight with one row per output, [out, in * kernel]; under spectral norm, that which is trained."""
    if is_parametrized(module, "weight"):
        weight = module.parametrizations.weight.original  # type: ignore[union-attr]
    else:
        weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, TRANSPOSED):
        weight = weight.transpose(0, 1)
    return weight.float().flatten(1)


def overlap(rows: Tensor) -> Tensor:
    """Return the sum of squared inner products between different rows."""
    gram = rows @ rows.T
    return (gram - gram.diagonal().diag()).square().sum()
