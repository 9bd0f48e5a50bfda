"""Minibatch standard deviation: lets D see whether a group of images varies.

Karras et al. 2018, section 3, https://arxiv.org/abs/1710.10196.
"""

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.precision import to_fp32


class MinibatchStddev(nn.Module):
    """Appends channels that hold the mean standard deviation of features over a group of images.

    Images i, i + N / g, i + 2 N / g, ... of N form a group of g.

    Args:
        group_size: images in a group; of fewer or other numbers of images, the largest divisor up to it.
        num_channels: to append; each looks at its share of the features.

    Raises:
        InputError: for less than one of either.
    """

    def __init__(self, *, group_size: int = 4, num_channels: int = 1) -> None:
        super().__init__()
        if group_size < 1 or num_channels < 1:
            raise InputError(
                f"mbstd_group_size={group_size} and mbstd_num_channels={num_channels} must be at least 1; "
                "mbstd_group_size=0 leaves the layer out"
            )
        self.group_size = group_size
        self.num_channels = num_channels

    def group_of(self, count: int) -> int:
        """Return how many of `count` images form a group."""
        return next(g for g in range(min(self.group_size, count), 0, -1) if count % g == 0)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C + num_channels, H, W]."""
        count, channels, height, width = x.shape
        group = self.group_of(count)
        shares = to_fp32(x).reshape(
            group, -1, self.num_channels, channels // self.num_channels, height, width
        )
        deviation = (shares.var(dim=0, correction=0) + 1e-8).sqrt()  # [N / g, F, C / F, H, W]
        statistic = deviation.mean(dim=(2, 3, 4)).repeat(group, 1)[:, :, None, None]  # [N, F, 1, 1]
        return torch.cat([x, statistic.to(x.dtype).expand(-1, -1, height, width)], dim=1)
