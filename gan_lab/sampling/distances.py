"""How far a picture is from its target, for projections: with a pretrained network, or without any weights."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from gan_lab.errors import InputError
from gan_lab.metrics.features.base import WeightsUnavailable
from gan_lab.metrics.features.lpips import LPIPS
from gan_lab.metrics.features.vgg16 import WEIGHTS as VGG16_WEIGHTS

KINDS = ("auto", "lpips", "pyramid")

_SEEN_BY_LPIPS = 256  # pixels of a side at most, as in StyleGAN2's projections ...

_SEEN_AT_LEAST = 64  # ... and at least: VGG16 halves four times


class Distance(ABC):
    """Compares images.

    Attributes:
        name: as it stands in results.
    """

    name: str

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

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        bands = laplacian_pyramid(images - targets)  # it is linear
        return torch.stack([band.abs().mean((1, 2, 3)) for band in bands]).sum(0)


class PerceptualDistance(Distance):
    """LPIPS with VGG16, on images of 64 to 256 pixels a side (Karras et al. 2020, appendix D, for the upper bound).

    Args:
        lpips: not yet loaded.
        device: of the images.

    Raises:
        WeightsUnavailable: when its weights cannot be had.
    """

    name = "lpips-vgg16"

    def __init__(self, lpips: LPIPS, device: torch.device) -> None:
        lpips.load(device)
        self._lpips = lpips
        self.name = f"{lpips.name} ({lpips.sha256[:12]})"

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return self._lpips.distance(shown(images), shown(targets))


def shown(images: Tensor) -> Tensor:
    """Bring images to a size for VGG16: means over pixels downwards, bilinear upwards."""
    short, long = sorted(images.shape[2:])
    if long > _SEEN_BY_LPIPS:
        factor = _SEEN_BY_LPIPS / long
        return interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    if short < _SEEN_AT_LEAST:
        return interpolate(images, scale_factor=_SEEN_AT_LEAST / short, mode="bilinear")
    return images


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


def choose_distance(
    kind: str = "auto",
    *,
    channels: int,
    device: torch.device,
    weights: str | None = None,
) -> tuple[Distance, str]:
    """Return a distance, and why it is this one.

    Args:
        kind: "lpips" (which may download VGG16's weights), "pyramid", or "auto": LPIPS where the weights are on this
            machine.
        channels: of the images; LPIPS sees 1 or 3.
        device: of the images.
        weights: path of torchvision's VGG16; None looks into torch's cache.

    Raises:
        InputError: for another kind, weights that are not there, and LPIPS of other channels.
    """
    if kind not in KINDS:
        raise InputError(f"distance={kind!r} must be one of {', '.join(KINDS)}")
    if kind == "pyramid":
        return PyramidDistance(), "as asked for"
    if kind == "auto":
        missing = weights is None and not VGG16_WEIGHTS.usual_path.is_file()
        if missing:
            return PyramidDistance(), f"VGG16's weights are not at {VGG16_WEIGHTS.usual_path}"
        if channels not in LPIPS.channels:
            return PyramidDistance(), f"LPIPS sees no images of {channels} channels"
    if weights is not None and not Path(weights).expanduser().is_file():
        raise InputError(f"vgg16={weights} is no file; give {VGG16_WEIGHTS.file_name}, or null")
    lpips = LPIPS(weights=weights)
    lpips.check((channels, 1, 1), "the model's")
    try:
        found = PerceptualDistance(lpips, device)
    except WeightsUnavailable as error:
        raise InputError(
            f"distance=lpips: VGG16's weights are not on this machine and could not be downloaded; get "
            f"{VGG16_WEIGHTS.url} and set vgg16=PATH, or take distance=pyramid"
        ) from error
    return found, "as asked for" if kind == "lpips" else "weights found"


def psnr(mse: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of mean squared errors of images in [-1, 1]."""
    return 10 * torch.log10(4 / mse)


def mean_squared_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error [N] of images [N, C, H, W]."""
    return (images - targets).square().mean(tuple(range(1, images.ndim)))
