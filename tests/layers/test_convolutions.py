"""Convolutions against torch's, and their first, second and forward derivatives against finite differences."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d
from torch.testing import assert_close

from gan_lab.layers.convolutions import Convolution, Geometry, by_inputs_alone

# the second leaves over a column, which no place of the kernel reaches
GEOMETRIES = [
    (Geometry(padding=(1, 1), groups=2), (2, 4, 3, 4), (6, 2, 3, 3)),
    (Geometry(stride=(2, 2), padding=(1, 0)), (2, 2, 4, 4), (3, 2, 2, 3)),
    (Geometry(), (2, 3, 2, 2), (4, 3, 1, 1)),
    (Geometry(stride=(2, 1), groups=2, transposed=True), (1, 4, 2, 3), (4, 3, 3, 2)),
]


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(("geometry", "x_shape", "weight_shape"), GEOMETRIES)
def test_derivatives(
    geometry: Geometry, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> None:
    x, weight = drawn(x_shape, weight_shape)
    stride, padding, groups, transposed, _ = geometry
    made = Convolution.apply(x, weight, geometry)
    if transposed:
        assert_close(made, conv_transpose2d(x, weight, None, stride, padding, groups=groups))
    else:
        assert_close(made, conv2d(x, weight, None, stride, padding, groups=groups))

    def bent(*inputs: Tensor) -> Tensor:  # a linear map alone has no second derivative
        return Convolution.apply(*inputs, geometry).square()

    assert torch.autograd.gradcheck(bent, (x, weight))
    assert torch.autograd.gradgradcheck(bent, (x, weight))


def test_gradients_by_weights_can_be_left_out() -> None:
    x, weight = drawn((1, 2, 3, 3), (2, 2, 1, 1))
    made = Convolution.apply(x, weight, Geometry())
    with by_inputs_alone():
        made.sum().backward(retain_graph=True)
    assert x.grad is not None and weight.grad is None
    made.sum().backward()
    assert weight.grad is not None
