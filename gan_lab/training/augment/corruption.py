"""Noise and cutout (Karras et al. 2020, appendix B, https://arxiv.org/abs/2006.06676)."""

import torch
from torch import Tensor

from gan_lab.training.augment.base import Draws, where_image

NOISE = 0.1

CUTOUT = 0.5  # of the image size


def add_noise(images: Tensor, draws: Draws) -> Tensor:
    """Add normal noise to every pixel and channel, its standard deviation drawn per image, half-normal."""
    if not draws.includes("noise"):
        return images
    deviation = draws.apply("noise", draws.normal(NOISE).abs(), 0)
    noisy = images + torch.randn_like(images) * deviation.view(-1, 1, 1, 1)
    return where_image(deviation > 0, noisy, images)


def cut_out(images: Tensor, draws: Draws) -> Tensor:
    """Set a rectangle of half the width and height to 0, mid-grey, anywhere, perhaps partly outside the image."""
    if not draws.includes("cutout"):
        return images
    size = draws.apply("cutout", torch.full_like(draws.uniform(), CUTOUT), 0)
    return torch.where(rectangle(images, draws.uniform(), draws.uniform(), size), 0, images)


def rectangle(images: Tensor, x: Tensor, y: Tensor, size: Tensor) -> Tensor:
    """Return the pixels [N, 1, H, W] whose centres lie in a rectangle about (x, y); all in shares of the image size."""
    inside = []
    for middle, length in ((y, images.shape[2]), (x, images.shape[3])):
        place = (torch.arange(length, device=images.device, dtype=images.dtype) + 0.5) / length
        distance = (place - middle.unsqueeze(1)).abs()
        inside.append(distance < size.unsqueeze(1) / 2)
    rows, columns = inside
    return rows[:, None, :, None] & columns[:, None, None, :]
