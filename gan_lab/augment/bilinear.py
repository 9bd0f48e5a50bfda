"""Bilinear lookup that can be differentiated any number of times: torch's own grid_sample has no second derivative."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

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
        # only its shape matters where the gradient by the grid is not asked for
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

    Coordinates are (x, y), -1 at the centre of the first and 1 at that of the last pixel; beyond them images are 0.
    """
    return Lookup.apply(images, grid)
