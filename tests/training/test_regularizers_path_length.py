import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.stylegan import StyleGeneratorNetwork
from gan_lab.training.regularizers import PathLength, path_lengths
from gan_lab.training.steps import GeneratorStep
from tests.helpers.steps import generator_step


class Linear(StyleGeneratorNetwork):
    """G(w) = a * (the mean over layers of w, as an image): its Jacobian is known."""

    num_classes = 0
    z_dim = 16

    def __init__(self, slope: float = 3.0) -> None:
        nn.Module.__init__(self)
        self.slope = nn.Parameter(torch.tensor(slope))

    def styles(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z[:, None].expand(-1, 4, -1) * 1.0

    def synthesis(self, w: Tensor, noise: str = "random") -> Tensor:
        return self.slope * w.mean(1).unflatten(1, (1, 4, 4))


def step(network: nn.Module, count: int = 8) -> GeneratorStep:
    z = torch.randn(count, 16, requires_grad=True)
    return generator_step(network, z)


def test_length_of_a_linear_generator() -> None:
    """J^T y = a y / 4 for each of 4 layers, y of 16 entries with variance 1 / 16."""
    network = Linear()
    w = network.styles(torch.randn(2, 16, requires_grad=True))
    y = torch.randn(2, 1, 4, 4)
    lengths = path_lengths(network.synthesis(w), w, y)
    assert_close(lengths, 3 / 4 * y.flatten(1).norm(dim=1))
    many = network.styles(torch.randn(4000, 16, requires_grad=True))
    drawn = path_lengths(network.synthesis(many), many)
    assert drawn.square().mean().item() == pytest.approx((3 / 4) ** 2, rel=0.05)


def test_the_penalty_is_the_squared_distance_from_a_mean_that_follows() -> None:
    penalty, network, given = PathLength(weight=2.0, decay=0.5, shrink=2), Linear(), step(Linear())
    torch.manual_seed(0)
    first = penalty(given)
    torch.manual_seed(0)
    w = network.styles(given.z[:4])
    lengths = path_lengths(network.synthesis(w), w)
    assert_close(first, (lengths - 0.5 * lengths.mean()).square())
    assert_close(penalty.mean, 0.5 * lengths.mean().detach())
    for _ in range(30):
        penalty(step(network, 512))
    assert penalty.mean.item() == pytest.approx(3 / 4, rel=0.05)


def test_its_gradient_moves_the_slope_towards_the_mean() -> None:
    torch.manual_seed(0)
    penalty, network = PathLength(weight=2.0), Linear()
    penalty.mean.fill_(0.1)
    penalty(step(network)).mean().backward()
    assert network.slope.grad > 0  # lengths above the mean: a smaller slope is better


def test_the_mean_is_saved() -> None:
    assert list(PathLength(weight=2.0).state_dict()) == ["mean"]


def test_generators_without_styles_are_rejected() -> None:
    with pytest.raises(InputError, match="path_length needs a generator with styles"):
        PathLength(weight=2.0)(step(nn.Linear(16, 16)))
    with pytest.raises(InputError, match="decay=2"):
        PathLength(weight=2.0, decay=2)
