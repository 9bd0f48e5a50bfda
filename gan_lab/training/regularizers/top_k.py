"""Top-k training: G learns from those of its images that D takes most for real.

Sinha et al. 2020, algorithm 1, https://arxiv.org/abs/2002.06224: k begins with the whole batch and shrinks to half of
it, since D's gradient leads astray where an image is far from all real ones.
"""

from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.training.losses import mean_per_sample
from gan_lab.training.regularizers.base import GeneratorRegularizer


class TopK(GeneratorRegularizer):
    """Leave the worst images out of G's loss; not a penalty, so it has neither weight nor interval.

    Of each micro-batch at least one image stays.

    Args:
        share: k as a share of the batch, in (0, 1]. To shrink it, schedule it: `schedules.top_k.share`.
    """

    penalizes = False

    def __init__(self, *, share: float = 1.0) -> None:
        super().__init__(weight=0)
        if not 0 < share <= 1:
            raise InputError(f"TopK: share={share} must lie in (0, 1]")
        self.share = share

    def select(self, losses: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the losses of the samples with the largest mean logits."""
        count = max(round(self.share * len(losses)), 1)
        return losses[mean_per_sample(fake_logits.detach()).topk(count).indices]
