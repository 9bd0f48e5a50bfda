"""Geometric augmentations of ADA: pixel blitting, and general transformations with antialiasing.

Karras et al. 2020, appendix B, https://arxiv.org/abs/2006.06676. An image is padded by reflection about the centers
of its border pixels, periodically, for transformations of any extent.

Coordinates are (x, y) in pixels with y pointing down and the origin at the center of the image. Matrices are
inverse: from positions in the result to positions in the input.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from gan_lab.training.augment import Draws, where_image
from gan_lab.training.augment.pixels import (
    BLOCK,
    SYM6,
    band_matrix,
    block_positions,
    constant,
    filter_blocks,
    reflect,
)

BLITS = ("xflip", "rotate90", "xint")

WARPS = ("scale", "rotate", "aniso", "xfrac")

INTEGER_SHIFT = 0.125  # of the image size, at most

SCALE_OCTAVES = 0.2

FRACTIONAL_SHIFT = 0.125  # of the image size, standard deviation


def move(images: Tensor, draws: Draws) -> Tensor:
    """Blit and warp images [N, C, H, W]; those that draw neither are unchanged.

    Images that are only blitted are copied pixel by pixel; the others are resampled once.
    """
    size = images.shape[2:]
    inverse = identity = torch.eye(3, device=images.device, dtype=images.dtype)
    moved = images
    if draws.includes(*BLITS):
        blitting = draw_blit(draws, size)
        inverse = inverse_blit(*blitting, images.dtype)
        moved = blit(images, *blitting)
    if draws.includes(*WARPS):
        warping = draw_warp(draws, size)
        warped = (warping != identity).flatten(1).any(1)
        moved = where_image(warped, warp(images, inverse @ warping), moved)
    return moved


def draw_blit(draws: Draws, size: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Draw x-flips, quarter turns and shifts by whole pixels: [N], [N], [N, 2], integers."""
    height, width = size
    flip = draws.apply("xflip", (draws.uniform() < 0.5).to(draws.dtype), 0)
    turns = draws.apply("rotate90", (draws.uniform() * 4).floor(), 0)
    far = INTEGER_SHIFT
    # one decision for both directions
    happens = draws.apply("xint", torch.ones_like(flip), 0)
    shift = [(draws.uniform(-far, far) * length).round() * happens for length in (width, height)]
    return flip.long(), turns.long(), torch.stack(shift, 1).long()


def draw_warp(draws: Draws, size: torch.Size) -> Tensor:
    """Draw inverse matrices [N, 3, 3] of scaling, rotation, anisotropic scaling, rotation and translation."""
    height, width = size
    scale = draws.apply("scale", draws.lognormal(SCALE_OCTAVES), 1)
    before = draws.apply("rotate", draws.angle(), 0, twice=True)
    stretch = draws.apply("aniso", draws.lognormal(SCALE_OCTAVES), 1)
    after = draws.apply("rotate", draws.angle(), 0, twice=True)
    happens = draws.apply("xfrac", torch.ones_like(scale), 0)
    x, y = (draws.normal(FRACTIONAL_SHIFT * length) * happens for length in (width, height))
    inverse = scaling(1 / scale, 1 / scale) @ rotation(-before)
    inverse = inverse @ scaling(1 / stretch, stretch) @ rotation(-after)
    return inverse @ translation(-x, -y)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Return matrices [N, 3, 3] that scale by `x` and `y` [N]."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([x, zero, zero, zero, y, zero, zero, zero, one], 1).view(-1, 3, 3)


def rotation(angle: Tensor) -> Tensor:
    """Return matrices [N, 3, 3] that turn by `angle` [N], counterclockwise."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, sin, zero, -sin, cos, zero, zero, zero, one], 1).view(-1, 3, 3)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Return matrices [N, 3, 3] that shift by `x` and `y` [N] pixels."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([one, zero, x, zero, one, y, zero, zero, one], 1).view(-1, 3, 3)


def inverse_blit(flip: Tensor, turns: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the inverse matrices [N, 3, 3] of flipping, then turning, then shifting, free of rounding."""
    cos, sin = quarter_turn(turns)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    mirror = 1 - 2 * flip
    linear = torch.stack([mirror * cos, -mirror * sin, zero, sin, cos, zero, zero, zero, one], 1)
    back = -shift.to(dtype)
    return linear.view(-1, 3, 3).to(dtype) @ translation(back[:, 0], back[:, 1])


def quarter_turn(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of multiples of right angles, integers."""
    return turns.remainder(4).sub(2).abs() - 1, (turns - 1).remainder(4).sub(2).abs() - 1


def blit(images: Tensor, flip: Tensor, turns: Tensor, shift: Tensor) -> Tensor:
    """Flip images [N, C, H, W] where `flip`, turn them counterclockwise, and shift them: copies of their pixels.

    Args:
        flip: [N], 0 or 1.
        turns: [N], right angles.
        shift: [N, 2], pixels to the right and down.
    """
    height, width = images.shape[2:]
    cos, sin = (part.view(-1, 1, 1) for part in quarter_turn(turns))
    # twice the coordinates, which are halves where a length is even
    y, x = torch.meshgrid(
        2 * torch.arange(height, device=images.device) - (height - 1),
        2 * torch.arange(width, device=images.device) - (width - 1),
        indexing="ij",
    )
    x = x - 2 * shift[:, 0].view(-1, 1, 1)
    y = y - 2 * shift[:, 1].view(-1, 1, 1)
    x, y = (1 - 2 * flip.view(-1, 1, 1)) * (cos * x - sin * y), sin * x + cos * y
    column = reflect((x + width - 1).div(2, rounding_mode="floor"), width)
    row = reflect((y + height - 1).div(2, rounding_mode="floor"), height)
    source = (row * width + column).flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, source).view_as(images)


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Transform images [N, C, H, W] by inverse matrices [N, 3, 3], at twice their resolution.

    The resolution is doubled by an orthogonal wavelet filter and halved by the same one's adjoint, so that nothing
    changes where the matrix is the identity.
    """
    height, width = images.shape[2:]
    fine = double(double(images).mT).mT
    moved = lookup(fine, fine_grid(inverse, height, width))
    return halve(halve(moved, width).mT, height).mT


def fine_grid(inverse: Tensor, height: int, width: int) -> Tensor:
    """Return positions [N, K, L, 2], in [-1, 1], of the samples of the fine result in one period of the fine image."""
    # the shift of low frequencies: the filter's center of mass
    delay = float(np.arange(len(SYM6)) @ SYM6 / SYM6.sum())
    taps = len(SYM6)

    def positions(length: int) -> Tensor:
        samples = torch.arange(2 * (length - 1) + taps, device=inverse.device, dtype=inverse.dtype)
        return (samples - delay) / 2 - (length - 1) / 2

    def normalized(position: Tensor, length: int) -> Tensor:
        period = 4 * (length - 1)
        sample = 2 * position + (length - 1) + delay
        return sample.remainder(period) * (2 / period) - 1

    x, y = positions(width).view(1, 1, -1), positions(height).view(1, -1, 1)
    matrix = inverse.unsqueeze(-1).unsqueeze(-1)  # [N, 3, 3, 1, 1]
    from_x = matrix[:, 0, 0] * x + matrix[:, 0, 1] * y + matrix[:, 0, 2]
    from_y = matrix[:, 1, 0] * x + matrix[:, 1, 1] * y + matrix[:, 1, 2]
    return torch.stack([normalized(from_x, width), normalized(from_y, height)], -1)


def double(lines: Tensor) -> Tensor:
    """Filter lines [..., L] and their reflections at twice the resolution: [..., 4 (L - 1) + 1].

    That is one period, and its first sample once more; sample n is sum_k x_k h_(n - 2k).
    """
    length = lines.shape[-1]
    samples = 4 * (length - 1) + 1
    matrix, _ = resampling_matrices()
    width = len(matrix)
    positions = block_positions(
        -(-samples // (2 * BLOCK)),
        step=BLOCK,
        first=BLOCK - width,
        width=width,
        device=lines.device,
    )
    fine = filter_blocks(lines, reflect(positions, length), constant(matrix, lines))
    return fine[..., :samples]


def halve(lines: Tensor, length: int) -> Tensor:
    """Return y_k = sum_n x_n h_(n - 2k) for 0 <= k < `length` of lines [..., 2 (length - 1) + taps]."""
    _, matrix = resampling_matrices()
    positions = block_positions(
        -(-length // BLOCK), step=2 * BLOCK, first=0, width=len(matrix), device=lines.device
    )
    # the last block may go beyond what its pixels need
    positions = positions.clamp(max=lines.shape[-1] - 1)
    return filter_blocks(lines, positions, constant(matrix, lines))[..., :length]


@cache
def resampling_matrices() -> tuple[np.ndarray, np.ndarray]:
    """Return what makes 2 BLOCK samples of BLOCK pixels and those before, and BLOCK pixels of samples."""
    taps = SYM6
    pixels = np.arange(1 - len(taps) // 2, BLOCK)
    samples = np.arange(2 * BLOCK + len(taps) - 2)
    up = band_matrix(taps, samples[: 2 * BLOCK] - 2 * pixels[:, None])
    down = band_matrix(taps, samples[:, None] - 2 * np.arange(BLOCK))
    return up, down


# Bilinear lookup that can be differentiated any number of times: torch's own grid_sample has no second derivative.

BILINEAR, ZEROS = 0, 0


class Lookup(torch.autograd.Function):
    """Linear in the image; its derivative is its adjoint, and that one's derivative is the lookup again."""

    @staticmethod
    def forward(images: Tensor, grid: Tensor) -> Tensor:
        """Look [N, C, H, W] up at [N, K, L, 2], coordinates (x, y) from -1 to 1 between the outermost pixels."""
        return grid_sample(images, grid, align_corners=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, grid = inputs
        ctx.save_for_backward(grid)
        ctx.save_for_forward(grid)
        ctx.size = images.shape[2:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grid,) = ctx.saved_tensors
        return Spread.apply(gradients[0], grid, ctx.size), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (grid,) = ctx.saved_tensors
        return Lookup.apply(tangents[0], grid)


class Spread(torch.autograd.Function):
    """The adjoint of `Lookup`: every value goes, in parts, to the four pixels that it would be looked up from."""

    @staticmethod
    def forward(values: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        """Spread [N, C, K, L] into [N, C, *size]."""
        # only its shape matters where the grid needs no gradient
        images = values.new_zeros(()).expand(*values.shape[:2], *size)
        backward = torch.ops.aten.grid_sampler_2d_backward
        return backward(values, images, grid, BILINEAR, ZEROS, True, (True, False))[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, grid, ctx.size = inputs
        ctx.save_for_backward(grid)
        ctx.save_for_forward(grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grid,) = ctx.saved_tensors
        return Lookup.apply(gradients[0], grid), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (grid,) = ctx.saved_tensors
        return Spread.apply(tangents[0], grid, ctx.size)


def lookup(images: Tensor, grid: Tensor) -> Tensor:
    """Look images [N, C, H, W] up at `grid` [N, K, L, 2]: [N, C, K, L].

    Coordinates are (x, y), -1 at the center of the first and 1 at that of the last pixel; beyond them images are 0.
    """
    return Lookup.apply(images, grid)
