"""Losses against the formulas of their papers, written with sigmoids and logarithms in double precision."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.training.losses import (
    Hinge,
    LeastSquares,
    Loss,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)

LOSSES: list[Loss] = [
    Minimax(),
    NonSaturating(),
    LeastSquares(),
    Hinge(),
    Wasserstein(),
    Relativistic(),
]


def log_sigmoid(x: Tensor) -> Tensor:
    return torch.log(torch.sigmoid(x))


FORMULAS: dict[
    str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
] = {
    "Minimax": (
        lambda r, f: -log_sigmoid(r) - torch.log(1 - torch.sigmoid(f)),
        lambda r, f: torch.log(1 - torch.sigmoid(f)),
    ),
    "NonSaturating": (
        lambda r, f: -log_sigmoid(r) - torch.log(1 - torch.sigmoid(f)),
        lambda r, f: -log_sigmoid(f),
    ),
    "LeastSquares": (lambda r, f: (r - 1) ** 2 / 2 + f**2 / 2, lambda r, f: (f - 1) ** 2 / 2),
    "Hinge": (
        lambda r, f: (
            -torch.minimum(torch.zeros(()), r - 1) - torch.minimum(torch.zeros(()), -f - 1)
        ),
        lambda r, f: -f,
    ),
    "Wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "Relativistic": (lambda r, f: -log_sigmoid(r - f), lambda r, f: -log_sigmoid(f - r)),
}

logits = st.lists(st.floats(-20, 20), min_size=1, max_size=5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@given(values=logits)
def test_formulas(loss: Loss, values: list[float]) -> None:
    real = torch.tensor(values, dtype=torch.float64)
    fake = real.flip(0) * 0.7 - 0.3
    of_d, of_g = FORMULAS[type(loss).__name__]
    torch.testing.assert_close(
        loss.discriminator(real, fake), of_d(real, fake), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(loss.generator(fake, real), of_g(real, fake), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("size", [0.0, 50.0, 1e4])
def test_finite_with_finite_gradients_at_any_logit(loss: Loss, size: float) -> None:
    real = torch.tensor([-size, size], requires_grad=True)
    fake = torch.tensor([size, -size], requires_grad=True)
    total = loss.discriminator(real, fake).sum() + loss.generator(fake, real).sum()
    total.backward()
    for value in (total, real.grad, fake.grad):
        assert value is not None and torch.isfinite(value).all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_the_players_pull_in_opposite_directions(loss: Loss) -> None:
    real = torch.tensor([0.3], requires_grad=True)
    fake = torch.tensor([-0.2], requires_grad=True)
    loss.discriminator(real, fake).sum().backward()
    assert real.grad is not None and fake.grad is not None
    assert real.grad < 0 and (fake.grad > 0 or isinstance(loss, LeastSquares))
    logit = torch.tensor([-0.2], requires_grad=True)
    loss.generator(logit, torch.tensor([0.3])).sum().backward()
    assert logit.grad is not None and logit.grad < 0


def test_the_minimax_generator_saturates_and_the_non_saturating_one_does_not() -> None:
    confident = torch.tensor([-15.0], requires_grad=True)
    (weak,) = torch.autograd.grad(Minimax().generator(confident).sum(), confident)
    (strong,) = torch.autograd.grad(NonSaturating().generator(confident).sum(), confident)
    assert abs(float(weak)) < 1e-6 < 0.99 < abs(float(strong))


def test_random_margins_of_the_hinge() -> None:
    torch.manual_seed(0)
    real, fake = torch.full((10_000,), -1.0), torch.full((10_000,), 2.0)
    margins = Hinge(lowest_margin=0.8).discriminator(real, fake) - 3  # both beyond their margins
    assert 1.6 < float(margins.min()) < 1.62 and 1.98 < float(margins.max()) < 2
    assert not Hinge(lowest_margin=0.8).discriminator(real + 2, fake - 3).any(), "at 1 and -1"
    with pytest.raises(InputError, match="lowest_margin=2"):
        Hinge(lowest_margin=2)
