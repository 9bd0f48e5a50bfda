"""Orthogonal regularization as BigGAN relaxed it: the filters of a layer are pairwise orthogonal, of any length.

    sum over layers of || W W^T * (1 - I) ||_F^2,  W [out, in * kernel]

Brock et al. 2019, equation 3, https://arxiv.org/abs/1809.11096.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gan_lab.errors import InputError
from gan_lab.training.regularizers.base import DiscriminatorStep, GeneratorStep, Player, Regularizer

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Orthogonal(Regularizer):
    """Penalty on the weights of one player; `weight` is beta (1e-4 in BigGAN, on G).

    Embeddings are left out, as in the paper's code. Returns one number, not one an image.

    Args:
        weight: coefficient.
        interval: steps between penalties.
        player: "generator" or "discriminator".
    """

    def __init__(self, *, weight: float, interval: int = 1, player: Player = "generator") -> None:
        super().__init__(weight=weight, interval=interval)
        if player not in ("generator", "discriminator"):
            raise InputError(
                f"Orthogonal: player={player!r} must be 'generator' or 'discriminator'"
            )
        self.player = player

    def check(self, network: nn.Module) -> None:
        """Refuse a network without filters."""
        if not any(has_filters(module) for module in network.modules()):
            raise InputError(
                f"Orthogonal: the {self.player} has neither convolutions nor linear layers"
            )

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        penalties = [overlap(filters(m)) for m in step.network.modules() if has_filters(m)]
        return torch.stack(penalties).sum()


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
