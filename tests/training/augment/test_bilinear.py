import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import grid_sample

from gan_lab.training.augment.geometry import Spread, lookup


def batch():
    torch.manual_seed(0)
    images = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    return images, torch.rand(2, 3, 6, 2, dtype=torch.float64) * 2.4 - 1.2


def test_equals_torch():
    images, grid = batch()
    assert torch.equal(lookup(images, grid), grid_sample(images, grid, align_corners=True))


def test_gradient_equals_torch():
    images, grid = batch()
    cotangent = torch.randn(2, 2, 3, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad(lookup(images, grid), images, cotangent)
    reference = grid_sample(images, grid, align_corners=True)
    (theirs,) = torch.autograd.grad(reference, images, cotangent)
    assert torch.allclose(ours, theirs)


def test_derivatives_of_every_order():
    images, grid = batch()
    values = torch.randn(2, 2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: lookup(x, grid), images, check_forward_ad=True)
    assert gradgradcheck(lambda x: lookup(x, grid).square(), images)
    size = torch.Size((4, 5))
    assert gradcheck(lambda x: Spread.apply(x, grid, size), values, check_forward_ad=True)


def test_spreading_is_the_adjoint():
    images, grid = batch()
    values = torch.randn(2, 2, 3, 6, dtype=torch.float64)
    there = (lookup(images, grid) * values).sum()
    back = (images * Spread.apply(values, grid, images.shape[2:])).sum()
    assert torch.isclose(there, back)
