"""Spectral norm against torch.linalg.matrix_norm, and as a parametrization (copies, state dicts)."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from gan_lab.layers.spectral_norm import (
    SpectralNorm,
    spectrally_normalized,
    stored_spectral_norm,
)


def largest(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2))


def layers() -> list[nn.Module]:
    return [nn.Linear(7, 5), nn.Conv2d(3, 8, 3), nn.Conv1d(2, 4, 3), nn.Embedding(6, 9)]


@pytest.mark.parametrize("index", range(4))
def test_the_largest_singular_value_becomes_one(index: int) -> None:
    torch.manual_seed(index)
    layer = layers()[index]
    nn.init.normal_(layer.weight, 0, 3)
    spectrally_normalized(layer)
    for _ in range(200):  # one step of the power method a use
        _ = layer.weight
    assert_close(largest(layer.weight), 1.0, rtol=1e-5, atol=0)
    original = layer.parametrizations.weight.original
    assert_close(layer.weight * largest(original), original, rtol=1e-5, atol=1e-6)


def test_orthogonal_weights_stay_as_they_are() -> None:
    layer = nn.Linear(6, 6, bias=False)
    nn.init.orthogonal_(layer.weight)
    before = layer.weight.detach().clone()
    assert_close(spectrally_normalized(layer).weight, before, rtol=1e-5, atol=1e-6)


def test_its_gradient_is_that_of_the_exact_norm() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    norm, cotangent = SpectralNorm(weight.detach()), torch.randn(5, 7, dtype=torch.float64)
    for _ in range(500):
        norm(weight)
    (ours,) = torch.autograd.grad((norm(weight) * cotangent).sum(), weight)
    exact = weight / torch.linalg.matrix_norm(weight, ord=2)
    (theirs,) = torch.autograd.grad((exact * cotangent).sum(), weight)
    assert_close(ours, theirs)


def test_evaluation_changes_no_state() -> None:
    torch.manual_seed(0)
    layer = spectrally_normalized(nn.Conv2d(16, 16, 3)).eval()
    state = deepcopy(layer.state_dict())
    first, second = layer.weight, layer.weight
    assert torch.equal(first, second)
    assert all(torch.equal(state[key], value) for key, value in layer.state_dict().items())
    layer.train()
    error = [abs(largest(layer.weight) - 1) for _ in range(100)]
    assert error[-1] < error[0]


def test_copies_are_independent_and_the_state_dict_is_complete(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = spectrally_normalized(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    )
    copy = deepcopy(network)
    with torch.no_grad():
        copy[0].parametrizations.weight.original.mul_(3)
    x = torch.randn(3, 2, 3, 3)
    network.eval(), copy.eval()
    assert torch.equal(network(x), network(x))
    assert_close(copy[0].weight, network[0].weight)  # a factor is divided out
    assert not torch.equal(
        copy[0].parametrizations.weight.original, network[0].parametrizations.weight.original
    )
    torch.save(network.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(1)
    other = spectrally_normalized(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 2)))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.eval()(x), network(x))
    # in training the next step of the power method is the same too
    assert torch.equal(other.train()(x), network.train()(x))


def test_any_network_is_normalized_once() -> None:
    network = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    spectrally_normalized(spectrally_normalized(network), embeddings=False)
    assert [len(list(layer.buffers())) for layer in network] == [1, 1, 3]
    without = spectrally_normalized(nn.Sequential(nn.Embedding(4, 3)), embeddings=False)
    assert not list(without.buffers())


def test_gradients_of_second_order(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Softplus()).double()
    # u and v are constants to the gradient: it is the exact one only where they have converged
    spectrally_normalized(layer).eval()
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)
    sigma = layer[0].parametrizations.weight[0]
    weight = torch.randn(3, 4, dtype=torch.float64)
    u, v = torch.randn(3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    sigma.singular_vectors = lambda rows: (u, v)  # held, as the gradient holds them
    weight.requires_grad_()
    assert torch.autograd.gradcheck(sigma, weight)
    assert torch.autograd.gradgradcheck(sigma, weight)


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("transposed", [False, True])
def test_the_stored_variant_matches_torchs(transposed: bool) -> None:
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    theirs = torch.nn.utils.spectral_norm(kind(3, 5, 4), dim=1 if transposed else 0)
    ours: Any = kind(3, 5, 4)
    with torch.no_grad():
        ours.weight.copy_(theirs.weight_orig)
        ours.bias.copy_(theirs.bias)
    stored_spectral_norm(ours)
    norm = ours.parametrizations.weight[0]
    norm.u.copy_(theirs.weight_u)
    norm.v.copy_(theirs.weight_v)
    x = torch.randn(2, 3, 6, 6)
    for mode in (False, True, False):
        ours.train(mode)
        theirs.train(mode)
        made, expected = ours(x), theirs(x)
        torch.testing.assert_close(made, expected)
        torch.testing.assert_close(norm.u, theirs.weight_u)
        slopes = [
            torch.autograd.grad(out.square().sum(), weight)[0]
            for out, weight in (
                (made, ours.parametrizations.weight.original),
                (expected, theirs.weight_orig),
            )
        ]
        torch.testing.assert_close(*slopes)
