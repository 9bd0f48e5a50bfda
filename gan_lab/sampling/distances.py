"""How far an image is from its target, for projections; `gan_lab.metrics.features.vgg16` has LPIPS."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate


class Distance(ABC):
    """Compares images.

    Attributes:
        name: as it stands in results.
        why: it was chosen, as it stands in results.
    """

    name: str
    why: str = "the default"

    @abstractmethod
    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the distance [N] of float images [N, C, H, W] in about [-1, 1], differentiable."""


class PyramidDistance(Distance):
    """Mean absolute differences of the bands of Laplacian pyramids, summed over bands; needs no weights.

        d(a, b) = sum_j mean |L_j(a) - L_j(b)|

    Bojanowski et al. 2018, https://arxiv.org/abs/1707.05776, section 2 (there 2^2j times sums over pixels, which is
    the same but for a factor). Coarse bands lead the way from afar, fine ones settle details.
    """

    name = "laplacian pyramid, L1"

    def __init__(self, *, why: str = Distance.why) -> None:
        self.why = why

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        bands = laplacian_pyramid(images - targets)  # it is linear
        return torch.stack([band.abs().mean((1, 2, 3)) for band in bands]).sum(0)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Split images [N, C, H, W] into bands, fine to coarse, that enlarged and summed are the images again.

    The means over 2x2 pixels are taken while both sides are even and more than 2; a band is what an image has and its
    mean, enlarged bilinearly, has not. The last is the coarsest image itself.
    """
    bands = []
    while min(images.shape[2:]) > 2 and not (images.shape[2] % 2 or images.shape[3] % 2):
        coarse = avg_pool2d(images, 2)
        bands.append(images - interpolate(coarse, scale_factor=2, mode="bilinear"))
        images = coarse
    return [*bands, images]


def psnr(mse: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of mean squared errors of images in [-1, 1]."""
    return 10 * torch.log10(4 / mse)


def mean_squared_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error [N] of images [N, C, H, W]."""
    return (images - targets).square().mean(tuple(range(1, images.ndim)))
