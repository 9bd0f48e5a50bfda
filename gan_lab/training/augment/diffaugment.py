"""DiffAugment: differentiable augmentation of real and generated images, with constant strength.

Zhao et al. 2020, section 3 and appendix A, https://arxiv.org/abs/2006.10738.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.training.augment import Augmentation, Draws, where_image
from gan_lab.training.augment.pixels import rectangle

TRANSLATION = 1 / 8  # of the image size, at most

CUTOUT = 1 / 2  # of the image size

BRIGHTNESS = 0.5  # at most

COLORS = 3  # color channels of an image, without opacity


class DiffAugment(Augmentation):
    """Random color, translation and cutout, differentiable any number of times.

    Args:
        policy: which of `color`, `translation` and `cutout`, applied in this order, and `flip`, which mirrors
            half of the images and is not in the paper (GAT has it).
        p: probability of each of them per image, 1 in the paper.

    Raises:
        InputError: for an unknown policy, or a p that is not a probability.
    """

    def __init__(
        self, *, policy: Sequence[str] = ("color", "translation", "cutout"), p: float = 1.0
    ) -> None:
        super().__init__()
        unknown = [name for name in policy if name not in POLICIES]
        if unknown or not policy:
            raise InputError(
                f"diffaugment: policy={list(policy)}; give one or more of {', '.join(POLICIES)}"
            )
        if not 0 <= p <= 1:
            raise InputError(f"diffaugment: p={p} must be from 0 to 1")
        self.policy = tuple(policy)
        self.p = p
        self.colors = COLORS

    def check(self, spec: SampleSpec) -> None:
        super().check(spec)
        if spec.encoded_shape != spec.shape:
            self.colors = spec.encoded_shape[0]  # latents have channels without opacity

    def forward(self, images: Tensor) -> Tensor:
        if self.p <= 0:
            return images
        with torch.autocast(images.device.type, enabled=False):
            changed = images if images.dtype == torch.float64 else images.float()
            p = torch.full((), self.p, device=images.device)
            draws = Draws(changed, p, dict.fromkeys(POLICIES, 1.0))
            for name, change in POLICIES.items():
                if name in self.policy:
                    happens = draws.apply(name, torch.ones_like(draws.uniform()), 0) > 0
                    if name == "color":
                        change = partial(recolor, colors=self.colors)
                    changed = where_image(happens, change(changed, draws), changed)
        return changed.to(images.dtype)


def recolor(images: Tensor, draws: Draws, colors: int = COLORS) -> Tensor:
    """Draw brightness in [-0.5, 0.5], saturation in [0, 2] and contrast in [0.5, 1.5] for images [N, C, H, W].

    A channel after the first `colors` is opacity and stays unchanged; one channel has no saturation to change.
    """
    changed, opacity = images[:, :colors], images[:, colors:]
    changed = changed + draws.uniform(-BRIGHTNESS, BRIGHTNESS).view(-1, 1, 1, 1)
    changed = spread(changed, draws.uniform(0, 2), dims=(1,))
    changed = spread(changed, draws.uniform(0.5, 1.5), dims=(1, 2, 3))
    return torch.cat([changed, opacity], 1)


def spread(images: Tensor, factor: Tensor, *, dims: tuple[int, ...]) -> Tensor:
    """Scale the differences from the mean over `dims` by `factor` [N]."""
    mean = images.mean(dims, keepdim=True)
    return mean + (images - mean) * factor.view(-1, 1, 1, 1)


def translate(images: Tensor, draws: Draws) -> Tensor:
    """Shift images [N, C, H, W] by whole pixels, up to an eighth of their size; filled with 0."""
    for dim in (2, 3):
        length = images.shape[dim]
        furthest = int(length * TRANSLATION + 0.5)
        steps = (draws.uniform() * (2 * furthest + 1)).floor().long() - furthest
        images = shift(images, steps, dim=dim)
    return images


def shift(images: Tensor, steps: Tensor, *, dim: int) -> Tensor:
    """Shift images [N, C, H, W] by `steps` [N] pixels along a dimension; filled with 0."""
    length = images.shape[dim]
    source = torch.arange(length, device=images.device) - steps.unsqueeze(1)  # [N, length]
    inside = (source >= 0) & (source < length)
    along = [-1, 1, 1, 1]
    along[dim] = length
    index = source.clamp(0, length - 1).view(along).expand_as(images)
    return torch.where(inside.view(along), images.gather(dim, index), 0)


def cut_out(images: Tensor, draws: Draws) -> Tensor:
    """Set a rectangle of half the width and height to 0, its center anywhere in images [N, C, H, W]."""
    x, y = draws.uniform(), draws.uniform()
    return torch.where(rectangle(images, x, y, torch.full_like(x, CUTOUT)), 0, images)


def mirror(images: Tensor, draws: Draws) -> Tensor:
    """Mirror one half of images [N, C, H, W] from left to right."""
    return where_image(draws.uniform() < 0.5, images.flip(3), images)


POLICIES: dict[str, Callable[[Tensor, Draws], Tensor]] = {
    "color": recolor,
    "translation": translate,
    "cutout": cut_out,
    "flip": mirror,
}
