"""Low-pass filters from a specification: Kaiser windows of a sinc, or of a jinc for radial symmetry.

Karras et al. 2021, appendix C, https://arxiv.org/abs/2106.12423; Kaiser 1974 for the window. Frequencies are in cycles
per image, lengths in taps.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gan_lab.layers.equalized import EqualizedLinear, lrelu
from gan_lab.layers.resampling import convolve, convolve_transposed


def lowpass(
    *, num_taps: int, cutoff: float, width: float, rate: float, radial: bool = False
) -> Tensor:
    """Design a filter with unit gain at frequency 0.

    Args:
        num_taps: length.
        cutoff: frequency at which the amplitude is one half.
        width: of the transition band.
        rate: sampling rate.
        radial: whether to return a filter that is the same in all directions.

    Returns:
        [T] for a separable filter, [T, T] for a radial one, in float64. One tap is the identity.
    """
    if num_taps == 1:
        return torch.ones((1, 1) if radial else 1, dtype=torch.float64)
    window = kaiser_window(num_taps, width=width, rate=rate)
    t = (torch.arange(num_taps, dtype=torch.float64) - (num_taps - 1) / 2) / rate
    if radial:
        # no tap lies at the centre, where the jinc would be 0 / 0, as the number of taps is even
        assert num_taps % 2 == 0
        r = torch.hypot(t[:, None], t[None, :])
        ideal = torch.special.bessel_j1(2 * math.pi * cutoff * r) / r
        taps = ideal * torch.outer(window, window)
    else:
        taps = torch.sinc(2 * cutoff * t) * window
    return taps / taps.sum()


def kaiser_window(num_taps: int, *, width: float, rate: float) -> Tensor:
    """Return the window [T] whose sinc has a transition band of `width` at sampling rate `rate`."""
    attenuation = 2.285 * math.pi * (num_taps - 1) * width / (rate / 2) + 7.95  # dB
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    x = torch.linspace(-1, 1, num_taps, dtype=torch.float64)
    argument = beta * (1 - x.square()).clamp(min=0).sqrt()
    return torch.special.i0(argument) / torch.special.i0(torch.tensor(beta, dtype=torch.float64))


# The filtered leaky ReLU: a nonlinearity that does not alias.


class FilteredLeakyReLU(nn.Module):
    """Upsample, rectify, clamp, downsample. Both resamplings are linear, so a gain may stand before all of it.

    Args:
        up: factor of the rate before the leaky ReLU.
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
        return self._downsample(lrelu(x, self.clamp))

    def _upsample(self, x: Tensor, dim: int) -> Tensor:
        if len(self.up_filter) > 1:
            stride = (self.up, 1) if dim == 2 else (1, self.up)
            x = convolve_transposed(x, along(self.up_filter, dim), stride=stride)
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


# Fourier features: the infinite, continuous input of StyleGAN3, which a style moves and turns.


class FourierFeatures(nn.Module):
    """Sinusoids of random frequency and phase, sampled where a transform says, mixed by a 1x1 convolution.

    Attributes:
        transform: [3, 3], the transform of the image plane where none is given; the identity at first.

    Args:
        features: number of sinusoids and of channels.
        size: of the output, margins included.
        rate: sampling rate, pixels in an image side.
        bandwidth: highest frequency, cycles in an image side.
        w_dim: length of w.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(
        self, *, features: int, size: int, rate: float, bandwidth: float, w_dim: int
    ) -> None:
        super().__init__()
        self.size = size
        self.rate = rate
        self.bandwidth = bandwidth
        self.affine = EqualizedLinear(inputs=w_dim, outputs=4, zeros=True)
        with torch.no_grad():
            self.affine.bias[0] = 1  # (cos, sin, x, y) of no motion
        self.weight = nn.Parameter(torch.randn(features, features))
        # uniform in the disc of frequencies below the bandwidth
        radius = bandwidth * torch.rand(features).sqrt()
        angle = 2 * math.pi * torch.rand(features)
        frequencies = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
        self.register_buffer("freqs", frequencies)
        self.register_buffer("phases", torch.rand(features) - 0.5)
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """Map w [N, w_dim], and a transform [3, 3] or [N, 3, 3], to features [N, F, size, size], in float32."""
        transform = self.transform if transform is None else transform.to(self.transform)
        motion = self.motion(w) @ transform  # [N, 3, 3]
        phases = self.phases + (self.freqs @ motion[:, :2, 2:]).squeeze(2)  # [N, F]
        frequencies = self.freqs @ motion[:, :2, :2]  # [N, F, 2]
        # a transform that shrinks the image raises frequencies, and those beyond the rate would alias
        excess = (frequencies.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)
        waves = self.grid() @ frequencies.transpose(1, 2) + phases[:, None]  # [N, size^2, F]
        waves = torch.sin(2 * math.pi * waves) * amplitudes[:, None]
        features = waves @ (self.weight / math.sqrt(len(self.weight))).T
        return features.transpose(1, 2).unflatten(2, (self.size, self.size))

    def motion(self, w: Tensor) -> Tensor:
        """Return the rotation and translation [N, 3, 3] that styles [N, w_dim] ask for."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = t.unbind(1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1)
        translation = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1)
        return rotation.unflatten(1, (3, 3)) @ translation.unflatten(1, (3, 3))

    def grid(self) -> Tensor:
        """Return the positions (x, y) of the pixels in units of the image side, centred, [size^2, 2]."""
        # made where it is used: a copy from the host would make it wait for the device
        places = torch.arange(self.size, device=self.weight.device, dtype=self.weight.dtype)
        line = (places - (self.size - 1) / 2) / self.rate
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y], dim=-1).flatten(0, 1)
