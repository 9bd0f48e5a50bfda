import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

from gan_lab.bench.steps import FlopCounter, matmul_peak


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_forward_and_backward(groups: int, stride: int, transposed: bool) -> None:
    x = torch.randn(2, 8, 6, 10, requires_grad=True)
    weight = (
        torch.randn(8, 16 // groups, 3, 3) if transposed else torch.randn(16, 8 // groups, 3, 3)
    )
    weight.requires_grad_()
    convolve = conv_transpose2d if transposed else conv2d
    with FlopCounter() as forward:
        y = convolve(x, weight, padding=1, stride=stride, groups=groups)
    # each pixel of the smaller image meets 3x3 weights of each pair of channels in a group
    smaller = x if transposed else y
    pairs = 8 * 16 // groups
    expected = 2 * 2 * smaller.shape[2] * smaller.shape[3] * 9 * pairs
    assert forward.total == expected
    for wanted in ((x,), (weight,), (x, weight)):
        with FlopCounter() as backward:
            torch.autograd.grad(y.sum(), wanted, retain_graph=True)
        assert backward.total == expected * len(wanted)


def test_a_penalty_on_a_gradient_counts_its_second_derivative() -> None:
    x, weight = torch.randn(4, 6, requires_grad=True), torch.randn(5, 6, requires_grad=True)
    product = 2 * 4 * 6 * 5
    with FlopCounter() as counter:
        (gradient,) = torch.autograd.grad((x @ weight.T).square().sum(), x, create_graph=True)
        assert counter.total == 2 * product  # forward, and back to x
        gradient.square().sum().backward()
    # gradient = 2 (x W^T) W: its two products have two derivatives each
    assert counter.total == 6 * product


def test_a_differentiation_inside_a_loss_by_a_leaf_is_counted() -> None:
    layer = torch.nn.Conv2d(2, 3, 3)
    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    with FlopCounter() as counter:
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)[0].sum().backward()
    assert counter.total >= 3 * 2 * 9 * 9 * 2 * 3


def test_the_peak_is_one_that_a_product_reaches() -> None:
    by_clock, by_cpu = matmul_peak(torch.device("cpu"), torch.float32, seconds=0.05)
    # more than scalar arithmetic, less than any core there is does in vectors
    assert 1e8 < by_clock < 1e14 and 1e8 < by_cpu < 1e14
