"""Self-attention between the positions of an image, and where a network has it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from gan_lab.errors import InputError


class SelfAttention(nn.Module):
    """x + gamma * o(softmax(theta(x)^T phi(x)) g(x)), gamma beginning at 0.

    Zhang et al. 2019, https://arxiv.org/abs/1805.08318, equations 1 to 3. As in the authors' and BigGAN's networks,
    queries and keys have an eighth of the channels and values a half, and keys and values are the maxima over 2x2
    positions.

    Args:
        width: channels, 8 or more.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        if width < 8:
            raise InputError(
                f"attention over {width} channels: it needs at least 8; raise the width"
            )
        self.theta = nn.Conv2d(width, width // 8, 1, bias=False)
        self.phi = nn.Conv2d(width, width // 8, 1, bias=False)
        self.g = nn.Conv2d(width, width // 2, 1, bias=False)
        self.o = nn.Conv2d(width // 2, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W], H and W even, to the same shape."""
        queries = self.theta(x).flatten(2)  # [N, C/8, HW]
        keys = max_pool2d(self.phi(x), 2).flatten(2)  # [N, C/8, HW/4]
        values = max_pool2d(self.g(x), 2).flatten(2)  # [N, C/2, HW/4]
        # no 1/sqrt(d): published weights were trained without
        # equation 1
        shares = torch.bmm(queries.transpose(1, 2), keys).softmax(dim=2)  # [N, HW, HW/4]
        # in this order the backward pass reads `shares` row by row, in half the time
        mixed = torch.bmm(shares, values.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.gamma * self.o(mixed)  # equations 2 and 3


def attention_stages(attention: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[bool]:
    """Return for each stage whether attention follows it.

    Args:
        attention: sizes (the shorter side) at which there is to be attention. Those larger than all of `sizes` are
            left out, so that one setting serves images of many sizes.
        sizes: (height, width) that each stage ends with.

    Raises:
        InputError: when a size lies between those of the stages.
    """
    shorter = [min(size) for size in sizes]
    for size in attention:
        if size not in shorter and size <= max(shorter, default=0):
            raise InputError(
                f"attention={list(attention)}: the network passes through {sorted(set(shorter))} pixels; "
                "choose among these, or attention=[]"
            )
    # where several stages have one size, attention follows the first
    return [size in attention and size not in shorter[:i] for i, size in enumerate(shorter)]


def attentions(
    attention: Sequence[int], sizes: Sequence[tuple[int, int]], widths: Sequence[int]
) -> nn.ModuleList:
    """Return what follows each block: self-attention at the sizes given, else nothing."""
    wanted = attention_stages(attention, sizes)
    return nn.ModuleList(
        SelfAttention(width=width) if here else nn.Identity()
        for here, width in zip(wanted, widths, strict=True)
    )
