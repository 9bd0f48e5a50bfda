"""The filtered leaky rectifier: a nonlinearity that does not alias.

Karras et al. 2021, section 2 and figure 4, https://arxiv.org/abs/2106.12423: interpolate to a higher rate, rectify
there, cut off what the lower rate cannot hold, and sample at that rate.
"""

from torch import Tensor, nn
from torch.nn.functional import pad

from gan_lab.layers.equalized import rectify
from gan_lab.layers.resampling import convolve, spread


class FilteredLeakyReLU(nn.Module):
    """Upsample, rectify, clamp, downsample. Both resamplings are linear, so a gain may stand before all of it.

    Args:
        up: factor of the rate before the rectifier.
        up_filter: [T], separable; symmetric.
        down: factor by which the rate falls after it.
        down_filter: [T], separable, or [T, T]; symmetric.
        size: of the input.
        out_size: of the output.
        clamp: of what is rectified; None for no limit.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self,
        *,
        up: int,
        up_filter: Tensor,
        down: int,
        down_filter: Tensor,
        size: int,
        out_size: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.up, self.down, self.clamp = up, down, clamp
        self.register_buffer("up_filter", (up_filter * up).float(), persistent=False)
        self.register_buffer("down_filter", down_filter.float(), persistent=False)
        # the upsampled image is as long as the filter behind it needs for `out_size` pixels, and centred
        taps = len(up_filter)
        self.length = (out_size - 1) * down + len(down_filter)
        lead = self.length - size * up + taps - 1
        self.start = taps - 1 - (lead + up) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, size, size] to [N, C, out_size, out_size]."""
        x = self._upsample(self._upsample(x, dim=3), dim=2)
        return self._downsample(rectify(x, self.clamp))

    def _upsample(self, x: Tensor, dim: int) -> Tensor:
        if len(self.up_filter) > 1:
            stride = (self.up, 1) if dim == 2 else (1, self.up)
            x = spread(x, along(self.up_filter, dim), stride=stride)
        margins = (-self.start, self.start + self.length - x.shape[dim])
        return pad(x, (*margins, 0, 0) if dim == 3 else (0, 0, *margins))

    def _downsample(self, x: Tensor) -> Tensor:
        if self.down_filter.ndim == 2:
            return convolve(x, self.down_filter, stride=(self.down, self.down))
        if len(self.down_filter) == 1:
            return x
        x = convolve(x, along(self.down_filter, 3), stride=(1, self.down))
        return convolve(x, along(self.down_filter, 2), stride=(self.down, 1))


def along(taps: Tensor, dim: int) -> Tensor:
    """Return taps [T] as a kernel along one dimension of [N, C, H, W]."""
    return taps[None, :] if dim == 3 else taps[:, None]
