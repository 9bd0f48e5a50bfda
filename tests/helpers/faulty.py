"""Data and losses that make a run fail on purpose."""

import time
from collections.abc import Sequence

from torch import Tensor

from gan_lab.data.builtin import Digits
from gan_lab.data.sample import Batch
from gan_lab.training.losses import Relativistic


class SlowDigits(Digits):
    """Digits of which a batch takes a tenth of a second."""

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        time.sleep(0.1)
        return super().__getitems__(indices)


class Unanchored(Relativistic):
    """A loss that bounds only differences of logits and raises their mean without limit."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.003 * (real - fake).square() - 0.5 * (real + fake)
