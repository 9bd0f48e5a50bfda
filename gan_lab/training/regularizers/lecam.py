"""LeCam regularization: D's outputs on one side stay near the average of those on the other.

    E_x[ (D(x) - a_F)^2 ] + E_z[ (D(G(z)) - a_R)^2 ]

a_R and a_F are moving averages of D's logits on real and on generated images. Tseng et al. 2021, equation 6,
https://arxiv.org/abs/2104.03310: for small sets of images.
"""

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.training.losses import mean_per_sample
from gan_lab.training.regularizers.base import DiscriminatorRegularizer
from gan_lab.training.steps import DiscriminatorStep


class LeCam(DiscriminatorRegularizer):
    """Penalty on the discriminator's logits; `weight` is lambda.

    The averages are those before the step, so that micro-batches do not change the penalty.

    Attributes:
        real: a_R, saved with the run.
        fake: a_F, saved with the run.
        num_averaged: steps that have entered them, saved with the run.

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        decay: share of the averages that stays at each penalty (0.99 in the authors' code).
        start: the penalty is 0 until the averages have seen so many steps, at least 1.
    """

    real: Tensor
    fake: Tensor
    num_averaged: Tensor

    def __init__(
        self, *, weight: float, interval: int = 1, decay: float = 0.99, start: int = 1000
    ) -> None:
        super().__init__(weight=weight, interval=interval)
        if not 0 <= decay < 1 or start < 1:
            raise InputError(
                f"LeCam: decay={decay} must lie in [0, 1) and start={start} be at least 1"
            )
        self.decay = decay
        self.start = start
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))
        self.register_buffer("num_averaged", torch.zeros((), dtype=torch.int64))
        self._seen: list[Tensor] = []  # logits [2, n] of this step's micro-batches

    def forward(self, step: DiscriminatorStep) -> Tensor:
        real, fake = step.real_logits.float(), step.fake_logits.float()
        means = [mean_per_sample(logits.detach()) for logits in (real, fake)]
        self._seen.append(torch.stack(means))
        penalty = (real - self.fake).square() + (fake - self.real).square()  # equation 6
        return penalty * (self.num_averaged >= self.start)

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        """Let the step's logits enter the averages; the first step's are these."""
        if not self._seen:
            return  # a step of another, lazy penalty
        real, fake = mean_over_ranks(torch.cat(self._seen, dim=1).mean(1))
        self._seen.clear()
        share = torch.where(self.num_averaged == 0, 1.0, 1 - self.decay)
        self.real.lerp_(real, share)
        self.fake.lerp_(fake, share)
        self.num_averaged += 1
