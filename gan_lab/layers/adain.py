"""Adaptive instance normalization: a style sets mean and deviation of every feature map.

    AdaIN(x, y) = y_s (x - mean(x)) / deviation(x) + y_b

Huang and Belongie 2017, https://arxiv.org/abs/1703.06868, in the form of Karras et al. 2019, equation 1,
https://arxiv.org/abs/1812.04948.
"""

import torch
from torch import Tensor, nn

from gan_lab.layers.equalized import EqualizedLinear
from gan_lab.layers.precision import raised

EPSILON = 1e-8


class AdaIN(nn.Module):
    """Normalizes each feature map of each image, then scales and shifts it by an affine map of the style.

    Args:
        features: channels.
        style_dim: length of w.
    """

    def __init__(self, *, features: int, style_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(inputs=style_dim, outputs=2 * features)
        with torch.no_grad():
            self.affine.bias[:features] = 1.0  # of y_s; appendix C

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [N, C, H, W] and w [N, style_dim] to [N, C, H, W], statistics in single precision."""
        scale, offset = raised(self.affine(w))[:, :, None, None].chunk(2, dim=1)
        values = raised(x)
        variance, mean = torch.var_mean(values, dim=(2, 3), correction=0, keepdim=True)
        scale = scale * (variance + EPSILON).rsqrt()
        return torch.addcmul(offset, values - mean, scale).to(x.dtype)
