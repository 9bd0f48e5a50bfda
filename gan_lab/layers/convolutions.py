"""Convolutions whose derivatives of every order are convolutions of the same kind again.

torch's second derivatives cost more: with groups they always include those by the weights, even of a fixed filter,
computed group by group with kernels as large as the image.

A convolution is linear in x and in w. Its gradients are two more such maps: by x the transposed convolution of the
output's gradient g with w, by w a correlation of x with g. The derivatives of each of the three are the other two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a convolution runs over images; without dilation."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    groups: int = 1
    transposed: bool = False
    output_padding: Pair = (0, 0)

    def adjoint(self, x: torch.Size, y: torch.Size, weight: torch.Size) -> "Geometry":
        """Return the geometry of the map from y's gradient to x's, given their shapes."""
        left = [0, 0]
        if not self.transposed:
            for i, (step, margin) in enumerate(zip(self.stride, self.padding, strict=True), 2):
                # rows or columns of x that the stride leaves over
                left[i - 2] = x[i] + 2 * margin - weight[i] - (y[i] - 1) * step
        return self._replace(transposed=not self.transposed, output_padding=(left[0], left[1]))


class Convolution(torch.autograd.Function):
    """A convolution of x [N, C, H, W] with w [O, C / groups, K, L], or transposed, with w [C, O / groups, K, L].

    Attributes:
        by_weights: whether the gradient by w is computed; see `by_inputs_alone`.
    """

    by_weights = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        """Return [N, O, H', W']."""
        stride, padding, groups, transposed, output_padding = geometry
        weight = weight.to(x.dtype)  # under autocast gradients have another precision than x
        if transposed:
            return functional.conv_transpose2d(
                x, weight, None, stride, padding, output_padding, groups
            )
        return functional.conv2d(x, weight, None, stride, padding, groups=groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.geometry = inputs
        ctx.adjoint = ctx.geometry.adjoint(x.shape, output.shape, weight.shape)
        ctx.weight_shape = weight.shape
        by_x, by_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if by_weight else None, weight if by_x else None)
        ctx.save_for_forward(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        needed = ctx.needs_input_grad
        by_x = by_weight = None
        if needed[0]:
            by_x = Convolution.apply(gradient, weight, ctx.adjoint)
        if needed[1] and Convolution.by_weights:
            by_weight = WeightGradient.apply(
                x, gradient, ctx.weight_shape, ctx.geometry, ctx.adjoint
            )
        return by_x, by_weight, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Return the derivative in a direction of x; the weight is constant."""
        (weight,) = ctx.saved_tensors
        return Convolution.apply(tangents[0], weight, ctx.geometry)


class WeightGradient(torch.autograd.Function):
    """The gradient of a `Convolution` by its weight, as a function of x and of the gradient of its output."""

    @staticmethod
    def forward(
        x: Tensor, gradient: Tensor, shape: torch.Size, geometry: Geometry, adjoint: Geometry
    ) -> Tensor:
        """Return a tensor of the weight's shape."""
        stride, padding, groups, transposed, output_padding = geometry
        _, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient,
            x.to(gradient.dtype),
            gradient.new_empty(shape),
            None,
            stride,
            padding,
            (1, 1),
            transposed,
            output_padding,
            groups,
            (False, True, False),
        )
        found: Tensor = by_weight
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, gradient, _, ctx.geometry, ctx.adjoint = inputs
        by_x, by_gradient, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if by_gradient else None, gradient if by_x else None)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, gradient = ctx.saved_tensors
        (weight,) = gradients
        by_x = by_gradient = None
        if ctx.needs_input_grad[0]:
            by_x = Convolution.apply(gradient, weight, ctx.adjoint)
        if ctx.needs_input_grad[1]:
            by_gradient = Convolution.apply(x, weight, ctx.geometry)
        return by_x, by_gradient, None, None, None


@contextmanager
def by_inputs_alone() -> Iterator[None]:
    """Skip gradients by weights within the block: torch does not tell a function which gradients are needed."""
    Convolution.by_weights = False
    try:
        yield
    finally:
        Convolution.by_weights = True
