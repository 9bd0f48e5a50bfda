"""Gaussian blur before the discriminator.

Karras et al. 2021, appendix F, https://arxiv.org/abs/2106.12423: in configuration R, images are less and less blurred
over the first 200 kimg, so that D does not judge high frequencies before G has found the low ones.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from gan_lab.errors import InputError
from gan_lab.training.augment.base import Augmentation


class Blur(Augmentation):
    """Blurs every image alike.

    Args:
        sigma: distance in pixels at which the kernel is one half of its centre; 0 for none. To fade it out, schedule
            it: `schedules.blur.sigma`.
    """

    def __init__(self, *, sigma: float) -> None:
        super().__init__()
        if sigma < 0:
            raise InputError(f"blur: sigma={sigma} must not be negative")
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        return blur(images, self.sigma)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images [N, C, H, W] with a Gaussian that is one half `sigma` pixels from its centre; 0 outside them."""
    radius = math.floor(3 * sigma)
    if radius < 1:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp2(-(offsets / sigma).square())
    taps = (taps / taps.sum()).expand(images.shape[1], 1, 1, -1)
    images = conv2d(images, taps, padding=(0, radius), groups=images.shape[1])
    return conv2d(images, taps.transpose(2, 3), padding=(radius, 0), groups=images.shape[1])
