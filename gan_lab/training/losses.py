"""GAN losses as functions of logits.

Each maps logits elementwise, [N] or [N, K] of several heads or patches, to losses of the same shape, independent of
networks and the training loop. The discriminator's loss is the sum of its real and its fake term.
`softplus(x) = log(1 + e^x) = -log sigmoid(-x)` is numerically exact where `log(sigmoid(x) + eps)` is not.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from gan_lab.errors import InputError


class Loss(Protocol):
    """Interface of a loss.

    Attributes:
        paired: whether it compares each fake with a real sample, so that the generator's step needs real logits, too.
        neutral_logit: the logit of an undecided discriminator, around which real and fake swap.
    """

    paired: bool
    neutral_logit: float

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of D, elementwise, from its logits for real and for fake samples."""
        ...

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Loss of G, elementwise, from D's logits for fake samples; `real` is given where `paired`."""
        ...


class Minimax:
    """The zero-sum game: D ascends and G descends log D(x) + log(1 - D(G(z))).

    Goodfellow et al. 2014, equation 1, https://arxiv.org/abs/1406.2661. G's gradient vanishes while D is confident.
    """

    paired = False
    neutral_logit = 0.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)  # -log D(x) - log(1 - D(G(z))), equation 1

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -softplus(fake)  # log(1 - D(G(z)))


class NonSaturating:
    """D as in the minimax game, G ascends log D(G(z)): the same fixed point without vanishing gradients for G.

    Goodfellow et al. 2014, section 3, https://arxiv.org/abs/1406.2661.
    """

    paired = False
    neutral_logit = 0.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return softplus(-fake)  # -log D(G(z))


class LeastSquares:
    """Least squares: D's targets are 1 on real and 0 on generated images, G's target is 1.

    Mao et al. 2017, equation 9, https://arxiv.org/abs/1611.04076.
    """

    paired = False
    neutral_logit = 0.5

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1).square() + fake.square()) / 2  # equation 9, first line

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return (fake - 1).square() / 2  # equation 9, second line


class Hinge:
    """Hinge loss with margin 1 for D, a linear loss for G.

    Lim and Ye 2017, https://arxiv.org/abs/1705.02894; Miyato et al. 2018, equations 16 and 17,
    https://arxiv.org/abs/1802.05957.

    Args:
        lowest_margin: below 1, each logit draws its margin from U(lowest_margin, 1), as a soft target does; 1 draws
            nothing.

    Raises:
        InputError: for a margin outside of [0, 1].
    """

    paired = False
    neutral_logit = 0.0

    def __init__(self, *, lowest_margin: float = 1.0) -> None:
        if not 0 <= lowest_margin <= 1:
            raise InputError(f"Hinge: lowest_margin={lowest_margin} must lie between 0 and 1")
        self.lowest_margin = lowest_margin

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(self.margin(real) - real) + relu(self.margin(fake) + fake)  # equation 16

    def margin(self, logits: Tensor) -> Tensor | float:
        """Return the margin of each logit."""
        if self.lowest_margin == 1:
            return 1.0
        return torch.empty_like(logits).uniform_(self.lowest_margin, 1)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake  # equation 17


class Wasserstein:
    """Wasserstein loss: the difference of the critic's means; needs a Lipschitz constraint (a penalty, clipping).

    Arjovsky et al. 2017, equation 2, https://arxiv.org/abs/1701.07875.
    """

    paired = False
    neutral_logit = 0.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real  # equation 2

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake


class Relativistic:
    """Logistic loss of the difference between a real and a generated image's logits, pair by pair (RpGAN).

    Jolicoeur-Martineau 2019, section 4.1, https://arxiv.org/abs/1807.00734; Huang et al. 2024, equation 2,
    https://arxiv.org/abs/2501.05441.
    """

    paired = True
    neutral_logit = 0.0

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real)  # equation 2 of Huang et al.

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None
        return softplus(real - fake)


def mean_per_sample(values: Tensor) -> Tensor:
    """Average values [N] or [N, K], such as logits or losses, to one per sample [N]."""
    return values if values.ndim == 1 else values.flatten(1).mean(1)
