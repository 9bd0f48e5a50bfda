"""LPIPS as the distance of a projection, or the pyramid distance where VGG16's weights are missing."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gan_lab.errors import InputError
from gan_lab.metrics.features.base import WeightsUnavailable
from gan_lab.metrics.features.lpips import LPIPS
from gan_lab.metrics.features.vgg16 import WEIGHTS as VGG16_WEIGHTS
from gan_lab.sampling.distances import Distance, PyramidDistance

KINDS = ("auto", "lpips", "pyramid")
AS_ASKED = "as asked for"

_SEEN_BY_LPIPS = 256  # pixels of a side at most, as in StyleGAN2's projections ...

_SEEN_AT_LEAST = 64  # ... and at least: VGG16 halves four times


class PerceptualDistance(Distance):
    """LPIPS with VGG16, on images of 64 to 256 pixels a side (Karras et al. 2020, appendix D, for the upper bound).

    Args:
        lpips: not yet loaded.
        device: of the images.
        why: it was chosen.

    Raises:
        WeightsUnavailable: when its weights cannot be had.
    """

    def __init__(self, lpips: LPIPS, device: torch.device, *, why: str) -> None:
        lpips.load(device)
        self.why = why
        self._lpips = lpips
        self.name = f"{lpips.name} ({lpips.sha256[:12]})"

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return self._lpips.distance(resize_for_vgg16(images), resize_for_vgg16(targets))


def resize_for_vgg16(images: Tensor) -> Tensor:
    """Bring images to a size for VGG16: means over pixels downwards, bilinear upwards."""
    short, long = sorted(images.shape[2:])
    if long > _SEEN_BY_LPIPS:
        factor = _SEEN_BY_LPIPS / long
        return interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    if short < _SEEN_AT_LEAST:
        return interpolate(images, scale_factor=_SEEN_AT_LEAST / short, mode="bilinear")
    return images


def choose_distance(
    kind: str = "auto",
    *,
    channels: int,
    device: torch.device,
    weights: str | None = None,
) -> Distance:
    """Return the distance of images that a projection makes small.

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
        return PyramidDistance(why=AS_ASKED)
    if kind == "auto":
        missing = weights is None and not VGG16_WEIGHTS.usual_path.is_file()
        if missing:
            return PyramidDistance(why=f"VGG16's weights are not at {VGG16_WEIGHTS.usual_path}")
        if channels not in LPIPS.channels:
            return PyramidDistance(why=f"LPIPS sees no images of {channels} channels")
    if weights is not None and not Path(weights).expanduser().is_file():
        raise InputError(f"vgg16={weights} is no file; give {VGG16_WEIGHTS.file_name}, or null")
    lpips = LPIPS(weights=weights)
    lpips.check((channels, 1, 1), "the model's")
    try:
        return PerceptualDistance(
            lpips, device, why=AS_ASKED if kind == "lpips" else "weights found"
        )
    except WeightsUnavailable as error:
        raise InputError(
            f"distance=lpips: VGG16's weights are not on this machine and could not be downloaded; get "
            f"{VGG16_WEIGHTS.url} and set vgg16=PATH, or take distance=pyramid"
        ) from error
