"""Consistency regularization: D says the same of an image when it is mirrored or shifted a little.

    E_x[ (D(x) - D(T(x)))^2 ]                              CR: Zhang et al. 2020, https://arxiv.org/abs/1910.12027
      + E_z[ (D(G(z)) - D(T(G(z))))^2 ]                    bCR: Zhao et al. 2020, https://arxiv.org/abs/2002.04724

T mirrors one half of the images from left to right and moves each by a few pixels, both at random.
"""

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorInput, map_samples
from gan_lab.training.regularizers.base import DiscriminatorRegularizer
from gan_lab.training.steps import DiscriminatorStep


class Consistency(DiscriminatorRegularizer):
    """Penalty on D's change under T; `weight` is lambda (10 in both papers), of real and of generated images alike.

    Where D sees vectors beside images, such as codes, T changes the images.

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        fakes: whether generated images count, too (bCR); without, T's traces show up in them (Zhao et al. 2020).
        flip: whether T mirrors; not for images that mean something else then, such as digits.
        shift: largest shift along each axis, as a share of the image's side.
    """

    def __init__(
        self,
        *,
        weight: float,
        interval: int = 1,
        fakes: bool = True,
        flip: bool = True,
        shift: float = 0.125,
    ) -> None:
        super().__init__(weight=weight, interval=interval)
        if not 0 <= shift < 1 or not (flip or shift):
            raise InputError(
                f"Consistency: shift={shift} must lie in [0, 1), and with flip=false be above 0"
            )
        self.fakes = fakes
        self.flip = flip
        self.shift = shift

    def forward(self, step: DiscriminatorStep) -> Tensor:
        penalty = (step.real_logits - self._logits(step, step.real)).float().square()
        if self.fakes:
            penalty = penalty + (step.fake_logits - self._logits(step, step.fake)).float().square()
        return penalty

    def _logits(self, step: DiscriminatorStep, x: DiscriminatorInput) -> Tensor:
        """Return D's logits of T(x)."""
        return step.logits(map_samples(lambda images: self.transform(images.detach()), x))

    def transform(self, images: Tensor) -> Tensor:
        """Return T(images [N, C, H, W]); what moves in from beyond an edge repeats it."""
        count, _, height, width = images.shape
        device = images.device
        rows = shifted(count, height, self.shift, device)  # [N, H]
        columns = shifted(count, width, self.shift, device)  # [N, W]
        if self.flip:
            mirrored = torch.rand(count, 1, device=device) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        items = torch.arange(count, device=device)[:, None, None]
        # indices with a slice between them: the channels come last
        return images[items, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def shifted(count: int, size: int, share: float, device: torch.device) -> Tensor:
    """Return for each image and place the place [count, size] from where its pixel comes."""
    most = int(share * size)
    by = torch.randint(-most, most + 1, (count, 1), device=device)
    return (torch.arange(size, device=device) + by).clamp(0, size - 1)
