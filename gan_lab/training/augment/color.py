"""ADA's changes of pixel values: colours, by one affine map per image, noise and cutout.

Karras et al. 2020, appendix B, https://arxiv.org/abs/2006.06676. Images with 3 channels are RGB, with 4 RGBA, whose
opacity is unchanged. One channel is treated as grey RGB: on the luma axis, so hue and saturation change nothing.
"""

import math

import torch
from torch import Tensor

from gan_lab.training.augment import Draws, where_image

COLORS = ("brightness", "contrast", "lumaflip", "hue", "saturation")

BRIGHTNESS = 0.2  # standard deviation, images being in [-1, 1]

CONTRAST_OCTAVES = 0.5

SATURATION_OCTAVES = 1.0


def recolor(images: Tensor, draws: Draws) -> Tensor:
    """Recolor images [N, C, H, W]; those that draw nothing are unchanged."""
    if not draws.includes(*COLORS):
        return images
    matrix = draw_colors(draws, grey=images.shape[1] == 1)
    changed = (matrix != torch.eye(4, device=matrix.device)).flatten(1).any(1)
    return where_image(changed, apply_colors(images, matrix), images)


def draw_colors(draws: Draws, *, grey: bool) -> Tensor:
    """Draw affine maps [N, 4, 4] of RGB: brightness, contrast, luma flip and, but for grey, hue and saturation."""
    matrix = brightness(draws.apply("brightness", draws.normal(BRIGHTNESS), 0))
    matrix = contrast(draws.apply("contrast", draws.lognormal(CONTRAST_OCTAVES), 1)) @ matrix
    flipped = (draws.uniform() < 0.5).to(draws.dtype)
    matrix = luma_flip(draws.apply("lumaflip", flipped, 0)) @ matrix
    if grey:
        return matrix
    matrix = hue(draws.apply("hue", draws.angle(), 0)) @ matrix
    return saturation(draws.apply("saturation", draws.lognormal(SATURATION_OCTAVES), 1)) @ matrix


def apply_colors(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply affine maps [N, 4, 4] of RGB to images [N, C, H, W] with 1, 3 or 4 channels."""
    count, channels, height, width = images.shape
    if channels == 1:
        # every row gives the same grey, up to rounding
        gain, offset = matrix[:, 0, :3].sum(1), matrix[:, 0, 3]
        return images * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)
    colors = images[:, :3].flatten(2)
    changed = torch.baddbmm(matrix[:, :3, 3:], matrix[:, :3, :3], colors)
    changed = changed.view(count, 3, height, width)
    return torch.cat([changed, images[:, 3:]], 1) if channels > 3 else changed


def brightness(offset: Tensor) -> Tensor:
    """Add `offset` [N] to every channel."""
    matrix = torch.eye(4, device=offset.device, dtype=offset.dtype).repeat(len(offset), 1, 1)
    matrix[:, :3, 3] = offset.unsqueeze(1)
    return matrix


def contrast(factor: Tensor) -> Tensor:
    """Multiply every channel by `factor` [N]."""
    return torch.diag_embed(torch.stack([factor, factor, factor, torch.ones_like(factor)], 1))


def luma_flip(flip: Tensor) -> Tensor:
    """Mirror colours in the plane through black-and-white's middle, across the luma axis, where `flip` [N] is 1."""
    luma, chroma = axes(flip)
    return split(luma, chroma, along=1 - 2 * flip, across=torch.ones_like(flip))


def saturation(factor: Tensor) -> Tensor:
    """Scale the distance from the luma axis by `factor` [N]."""
    luma, chroma = axes(factor)
    return split(luma, chroma, along=torch.ones_like(factor), across=factor)


def hue(angle: Tensor) -> Tensor:
    """Turn colours about the luma axis by `angle` [N]: Rodrigues' formula."""
    luma, chroma = axes(angle)
    matrix = split(luma, chroma, along=torch.ones_like(angle), across=angle.cos())
    turn = math.sqrt(1 / 3) * angle.sin()
    for row, column in ((0, 1), (1, 2), (2, 0)):
        matrix[:, row, column] -= turn
        matrix[:, column, row] += turn
    return matrix


def axes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projections [3, 3] on the luma axis (1, 1, 1) and on the plane across it."""
    luma = torch.full((3, 3), 1 / 3, device=like.device, dtype=like.dtype)
    return luma, torch.eye(3, device=like.device, dtype=like.dtype) - luma


def split(luma: Tensor, chroma: Tensor, *, along: Tensor, across: Tensor) -> Tensor:
    """Scale the part along the luma axis and the part across it by factors [N]: [N, 4, 4].

    Equal factors of 1 give the identity, to the bit.
    """
    matrix = torch.eye(4, device=along.device, dtype=along.dtype).repeat(len(along), 1, 1)
    change = luma * (along - 1).view(-1, 1, 1) + chroma * (across - 1).view(-1, 1, 1)
    matrix[:, :3, :3] += change
    return matrix


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
