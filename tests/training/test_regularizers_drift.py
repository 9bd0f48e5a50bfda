import torch
from torch import Tensor, nn
from torch.testing import assert_close

from gan_lab.layers.networks import DiscriminatorNetwork
from gan_lab.training.regularizers import Drift
from tests.helpers.steps import discriminator_step


class Offset(DiscriminatorNetwork):
    """D(x) = mean(x) + b."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return images.mean((1, 2, 3)) + self.offset


def test_it_is_the_square_of_real_logits_only() -> None:
    network, real = (
        Offset(2.0),
        torch.ones(3, 1, 2, 2) * torch.tensor([1.0, 0.0, -5.0])[:, None, None, None],
    )
    drift = Drift(weight=0.001)(discriminator_step(network, real, -real))
    assert_close(drift, torch.tensor([9.0, 4.0, 9.0]))
    drift.mean().backward()
    assert_close(network.offset.grad, torch.tensor(2 * (3 + 2 - 3) / 3))


def test_it_draws_an_offset_that_the_wasserstein_loss_leaves_free_to_zero() -> None:
    network, real = Offset(5.0), torch.randn(64, 1, 2, 2)
    drift = Drift(weight=0.001)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
    for _ in range(50):
        step = discriminator_step(network, real, -real)
        loss = (step.fake_logits - step.real_logits + drift(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_close(network.offset.detach(), -real.mean(), rtol=0, atol=1e-4)
