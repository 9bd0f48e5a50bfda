"""What a regularizer is: one base for each player."""

from typing import Literal

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorInput, distinct_tensors
from gan_lab.training.losses import mean_per_sample
from gan_lab.training.steps import DiscriminatorStep, GeneratorStep

PlayerName = Literal["generator", "discriminator"]


class Regularizer(nn.Module):
    """What both kinds of regularizer share; a module, so that what it keeps is saved with the run.

    Attributes:
        player: whose parameters it acts on.
        penalizes: whether `forward` returns a penalty; False for those that act in another way only.

    Args:
        weight: coefficient of the penalty in the player's loss.
        interval: steps of the player between two penalties. At 1 the penalty joins the loss; above, it is lazy:
            it has an optimizer step of its own every `interval` steps with `interval` times the weight
            (Karras et al. 2020, appendix B, https://arxiv.org/abs/1912.04958).
    """

    player: PlayerName
    penalizes = True

    def __init__(self, *, weight: float, interval: int = 1) -> None:
        super().__init__()
        if weight < 0 or interval < 1:
            raise InputError(
                f"{type(self).__name__}: weight={weight}, interval={interval}; weight must be >= 0 and interval >= 1"
            )
        self.weight = weight
        self.interval = interval

    def check(self, network: nn.Module) -> None:
        """Check before training that the penalty can be computed for the player's network.

        Raises:
            InputError: with the reason where it cannot.
        """

    def after_step(self, network: nn.Module) -> None:
        """Act on the player's network after each of its optimizer steps."""


class DiscriminatorRegularizer(Regularizer):
    """A penalty on the discriminator.

    Attributes:
        differentiates_real: whether it differentiates `step.real_logits` by `step.real`.
        differentiates_fake: whether it differentiates `step.fake_logits` by `step.fake`.
        replays: whether it compares passes through the same weights, of which spectral norm then makes one version.
    """

    player: PlayerName = "discriminator"
    differentiates_real = False
    differentiates_fake = False
    replays = False

    def forward(self, step: DiscriminatorStep) -> Tensor:
        """Return the penalty per sample [N] (or one number for a penalty on weights), without its coefficient."""
        raise AssertionError(f"{type(self).__name__} has no penalty")


class GeneratorRegularizer(Regularizer):
    """A penalty on the generator, or a choice of the samples that it learns from."""

    player: PlayerName = "generator"

    def forward(self, step: GeneratorStep) -> Tensor:
        """Return the penalty per sample [N] (or one number for a penalty on weights), without its coefficient."""
        raise AssertionError(f"{type(self).__name__} has no penalty")

    def select(self, losses: Tensor, fake_logits: Tensor) -> Tensor:
        """Return those of the generator's losses [N] that count in this step; logits are [N] or [N, K]."""
        return losses


def squared_gradient_norm(logits: Tensor, x: DiscriminatorInput) -> Tensor:
    """Return the squared L2 norm of d logit / d x per sample, [N], differentiable once more.

    Args:
        logits: [N], or [N, K], of which each sample's mean is differentiated.
        x: what they were computed from; of a tuple, the gradient by all its tensors, each counted once.
    """
    return flat_gradient(logits, x).square().sum(1)


def gradient_norm(logits: Tensor, x: DiscriminatorInput) -> Tensor:
    """Return the L2 norm of d logit / d x per sample, [N]; its own gradient is 0, not NaN, where it is 0."""
    return torch.linalg.vector_norm(flat_gradient(logits, x), dim=1)


def flat_gradient(logits: Tensor, x: DiscriminatorInput) -> Tensor:
    """Return d logit / d x of each sample as one row, [N, D], in single precision or better.

    The logits are summed over samples first: without coupling between samples (batch norm couples them), each one's
    gradient is that of its own logit.
    """
    inputs = distinct_tensors(x)
    gradients = torch.autograd.grad(mean_per_sample(logits).sum(), inputs, create_graph=True)
    rows = [gradient.float().flatten(1) for gradient in gradients]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
