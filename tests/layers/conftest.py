"""Finite differences of first and second order, for whatever a penalty differentiates twice."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call


@pytest.fixture
def check_gradients() -> Callable[..., None]:
    def check(module: nn.Module, *inputs: Tensor, **settings: object) -> None:
        """Compare first and second derivatives by `inputs` and by all parameters with finite differences."""
        module = module.double()
        names, parameters = (
            zip(*module.named_parameters(), strict=True) if list(module.parameters()) else ((), ())
        )
        count = len(inputs)

        def function(*values: Tensor) -> Tensor:
            state = dict(zip(names, values[count:], strict=True))
            return functional_call(module, state, values[:count], settings)

        values = [v.detach().double().requires_grad_() for v in (*inputs, *parameters)]
        assert torch.autograd.gradcheck(function, values)
        assert torch.autograd.gradgradcheck(function, values)

    return check
