"""The moving average of the generator's weights, from which samples are drawn."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError

Buffers = Literal["copy", "average"]


class ExponentialMovingAverage:
    """Averages parameters with a half-life counted in images; buffers are copied, or averaged likewise.

    beta = 0.5 ^ (images / half-life); Karras et al. 2018, section 5.1 and appendix A, https://arxiv.org/abs/1710.10196,
    with the half-life in images and the ramp-up of Karras et al. 2020 (ADA), https://arxiv.org/abs/2006.06676.

    A decay of beta for each step of the generator is a half-life of ln 0.5 / ln beta steps, each of which takes
    batch_size * d_steps real images.

    Batch norm keeps means and variances as buffers, which belong to the generator as trained and not to the average of
    its weights. Copied, they are those of its last few steps: right for short half-lives, and for what is no
    statistic of single steps (StyleGAN's running mean of w, the power method's vectors). Averaged, they move as slowly
    as the weights do, as in https://github.com/ajbrock/BigGAN-PyTorch: right for half-lives of many kimg. Standing
    statistics (`gan_lab.layers.standing`), measured on the averaged weights themselves, are better than both.

    Args:
        half_life_kimg: thousands of real images after which old weights count one half; 0 follows the weights.
        rampup: the half-life is at most this share of the images seen, so that the start is soon forgotten; null for
            no such limit.
        buffers: "copy" or "average"; whole numbers are always copied.

    Raises:
        InputError: for numbers or a treatment of buffers that there are not.
    """

    def __init__(
        self, *, half_life_kimg: float, rampup: float | None = 0.05, buffers: Buffers = "copy"
    ) -> None:
        if half_life_kimg < 0 or (rampup is not None and rampup <= 0):
            raise InputError(
                f"EMA: half_life_kimg={half_life_kimg} must be >= 0 and rampup={rampup} positive or null"
            )
        if buffers not in get_args(Buffers):
            raise InputError(
                f"EMA: buffers={buffers!r} must be one of {', '.join(get_args(Buffers))}"
            )
        self.half_life_kimg = half_life_kimg
        self.rampup = rampup
        self.buffers = buffers

    def decay(self, *, images_seen: int, images: int) -> float:
        """Return beta for an update `images` after the last one, at `images_seen`."""
        half_life = self.half_life_kimg * 1000
        if self.rampup is not None:
            half_life = min(half_life, images_seen * self.rampup)
        return 0.5 ** (images / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(
        self, average: nn.Module, network: nn.Module, *, images_seen: int, images: int
    ) -> None:
        """Move `average` towards `network`, which has the same structure."""
        decay = self.decay(images_seen=images_seen, images=images)
        old: list[Tensor] = list(average.parameters())
        new: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(old, new, 1 - decay)
        for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
            if self.buffers == "average" and buffer.is_floating_point():
                kept.lerp_(buffer, 1 - decay)
            else:
                kept.copy_(buffer)
