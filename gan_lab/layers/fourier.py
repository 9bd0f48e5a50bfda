"""Fourier features: the infinite, continuous input of StyleGAN3, which a style moves and turns.

Karras et al. 2021, section 3.2 and appendix F, https://arxiv.org/abs/2106.12423.
"""

import math

import torch
from torch import Tensor, nn

from gan_lab.layers.equalized import EqualizedLinear


class FourierFeatures(nn.Module):
    """Sinusoids of random frequency and phase, sampled where a transform says, mixed by a 1x1 convolution.

    Attributes:
        transform: [3, 3], the transform of the image plane where none is given; the identity at first.

    Args:
        features: number of sinusoids and of channels.
        size: of the output, margins included.
        rate: sampling rate, pixels in an image side.
        bandwidth: highest frequency, cycles in an image side.
        style_dim: length of w.
    """

    transform: Tensor
    frequencies: Tensor
    phases: Tensor

    def __init__(
        self, *, features: int, size: int, rate: float, bandwidth: float, style_dim: int
    ) -> None:
        super().__init__()
        self.size = size
        self.rate = rate
        self.bandwidth = bandwidth
        self.affine = EqualizedLinear(inputs=style_dim, outputs=4, zeros=True)
        with torch.no_grad():
            self.affine.bias[0] = 1  # (cos, sin, x, y) of no motion
        self.weight = nn.Parameter(torch.randn(features, features))
        # uniform in the disc of frequencies below the bandwidth
        radius = bandwidth * torch.rand(features).sqrt()
        angle = 2 * math.pi * torch.rand(features)
        frequencies = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
        self.register_buffer("frequencies", frequencies)
        self.register_buffer("phases", torch.rand(features) - 0.5)
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """Map w [N, style_dim], and a transform [3, 3] or [N, 3, 3], to features [N, F, size, size], in float32."""
        transform = self.transform if transform is None else transform.to(self.transform)
        motion = self.motion(w) @ transform  # [N, 3, 3]
        phases = self.phases + (self.frequencies @ motion[:, :2, 2:]).squeeze(2)  # [N, F]
        frequencies = self.frequencies @ motion[:, :2, :2]  # [N, F, 2]
        # a transform that shrinks the image raises frequencies, and those beyond the rate would alias
        excess = (frequencies.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)
        waves = self.grid() @ frequencies.transpose(1, 2) + phases[:, None]  # [N, size^2, F]
        waves = torch.sin(2 * math.pi * waves) * amplitudes[:, None]
        features = waves @ (self.weight / math.sqrt(len(self.weight))).T
        return features.transpose(1, 2).unflatten(2, (self.size, self.size))

    def motion(self, w: Tensor) -> Tensor:
        """Return the rotation and translation [N, 3, 3] that styles [N, style_dim] ask for."""
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
