"""Batch normalisation whose scale and offset depend on a condition."""

import torch
from torch import Tensor, nn

from gan_lab.layers.embedding import ClassEmbedding


class ConditionalBatchNorm(nn.Module):
    """Normalise each channel over the batch, then scale by 1 + gain(y) and add offset(y).

    de Vries et al. 2017, https://arxiv.org/abs/1707.00683; Brock et al. 2019, appendix B,
    https://arxiv.org/abs/1809.11096.

    Args:
        width: channels.
        gain: maps the condition to [N, width]; likewise `offset`.
        eps: added to the variance.
    """

    def __init__(
        self, *, width: int, gain: nn.Module, offset: nn.Module, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=eps, affine=False)
        self.gain = gain
        self.offset = offset

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map [N, C, H, W] and conditions y [N, ...] to [N, C, H, W]."""
        gain, offset = (made[:, :, None, None] for made in (1 + self.gain(y), self.offset(y)))
        return torch.addcmul(offset, self.norm(x), gain)


class UnconditionalBatchNorm(nn.Module):
    """Batch norm with a learned scale and offset for all, in the place of a conditional one."""

    def __init__(self, *, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=eps)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Map [N, C, H, W] to the same shape, whatever y."""
        return self.norm(x)


def class_norm(*, width: int, num_classes: int, eps: float = 1e-5) -> nn.Module:
    """Return batch norm with a scale and an offset for each class, or for all where there are no classes.

    The condition is labels int64 [N] or vectors [N, num_classes]. Every class begins with scale 1 and offset 0.
    """
    if not num_classes:
        return UnconditionalBatchNorm(width=width, eps=eps)
    gain, offset = (ClassEmbedding(num_classes=num_classes, width=width) for _ in range(2))
    for table in (gain, offset):
        nn.init.zeros_(table.weight)
    return ConditionalBatchNorm(width=width, gain=gain, offset=offset, eps=eps)
