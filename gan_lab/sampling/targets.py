"""Images to project: read from files, folders and memory, and converted to a generator's size and channels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from gan_lab.data.decoding import DECODE_ERRORS, open_image, regular_file
from gan_lab.data.images import to_float
from gan_lab.data.listing import list_folder
from gan_lab.data.source import inspect, reason_of
from gan_lab.data.transform import ImageTransform, native_channels
from gan_lab.errors import InputError

Given = str | Path | Image.Image | Tensor

_CALLED = {1: "gray", 3: "color", 4: "color with transparency"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Images to project.

    Attributes:
        images: float [N, C, H, W] in [-1, 1].
        names: of each, such as a file's.
        notes: conversions besides resizing, a sentence each.
        labels: int64 [N] if known.
    """

    images: Tensor
    names: list[str]
    notes: list[str] = field(default_factory=list)
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


def read_targets(
    given: Given | Sequence[Given], *, size: tuple[int, int], channels: int
) -> Targets:
    """Convert images to the size and channels of a generator.

    Other aspect ratios are cropped to the center, resampled by Pillow's Lanczos filter; transparency becomes white
    unless there is a channel for it.

    Args:
        given: paths of files and folders (whose images are taken in the order of their names), Pillow images,
            or tensors, float [C, H, W] or [N, C, H, W] in [-1, 1], which must have the right shape already.
        size: (height, width).
        channels: 1, 3 or 4.

    Raises:
        InputError: for no images, and images that cannot be read, are animated, or have another shape.
    """
    items = [given] if isinstance(given, str | Path | Image.Image | Tensor) else list(given)
    images: list[Tensor] = []
    names: list[str] = []
    notes: list[str] = []
    for item in items:
        if isinstance(item, Tensor):
            rows = checked_tensor(item, size, channels)
            names += [f"image {len(images) + i}" for i in range(len(rows))]
            images += list(rows)
        elif isinstance(item, Image.Image):
            names.append(f"image {len(images)}")
            image, said = in_memory(item, names[-1], size, channels)
            images.append(image)
            notes += said
        else:
            for path in files_of(Path(item).expanduser()):
                image, said = read_file(path, size, channels)
                images.append(image)
                names.append(str(path))
                notes += said
    if not images:
        raise InputError("there are no images to project; give files, folders or tensors")
    return Targets(images=torch.stack(images), names=names, notes=notes)


def files_of(path: Path) -> list[Path]:
    """Return the file, or the images in a folder and its sub-folders, by name.

    Raises:
        InputError: for a missing path, or a folder without images.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give an image file or a folder of them")
    if not path.is_dir():
        return [path]
    listing = list_folder(path)
    if not listing.images:
        raise InputError(f"{path} holds no images")
    listing.report(path)
    return [path / name for name in listing.images]


def read_file(path: Path, size: tuple[int, int], channels: int) -> tuple[Tensor, list[str]]:
    """Read one file; return the image [C, H, W] and notes.

    Raises:
        InputError: naming the file, when it is damaged, not an image, or has several frames.
    """
    try:
        with regular_file(path) as file:
            inspect(file)
            with open_image(file) as image:
                check_single(image, str(path))
                return transformed(image, str(path), size, channels)
    except InputError:
        raise
    except DECODE_ERRORS as error:
        raise InputError(
            f"{path} cannot be read ({reason_of(error)}); repair it, or leave it out"
        ) from error


def in_memory(
    image: Image.Image, name: str, size: tuple[int, int], channels: int
) -> tuple[Tensor, list[str]]:
    """Transform a copy of a Pillow image.

    Raises:
        InputError: when it is damaged, or cannot be converted to 8 bits.
    """
    if image.format == "EPS":  # copying its pixels would start Ghostscript
        raise InputError(f"{name} is PostScript, which is not decoded; give a PNG")
    check_single(image, name)
    try:
        return transformed(image.copy(), name, size, channels)
    except DECODE_ERRORS as error:
        raise InputError(f"{name} cannot be read ({reason_of(error)})") from error


def check_single(image: Image.Image, name: str) -> None:
    """Check that an image has one frame.

    Raises:
        InputError: with what to do.
    """
    frames = getattr(image, "n_frames", 1)  # Pillow's own way: only some formats have it
    if frames > 1 and image.format != "MPO":  # a phone's JPEG followed by a thumbnail
        raise InputError(f"{name} has {frames} frames; save the one to project as a separate image")


def transformed(
    image: Image.Image, name: str, size: tuple[int, int], channels: int
) -> tuple[Tensor, list[str]]:
    """Crop, resize and convert an opened image; returns float [C, H, W] and notes."""
    own = native_channels(image)
    transform = ImageTransform(size=size, channels=channels, crop="center", resample="lanczos")
    pixels = torch.from_numpy(np.array(transform(image), order="C"))
    # the orientation is applied to the image in place
    return to_float(pixels), list(notes_of(name, (image.height, image.width), size, own, channels))


def notes_of(
    name: str, was: tuple[int, int], size: tuple[int, int], own: int, channels: int
) -> list[str]:
    """Return notes on what was lost or could not be restored."""
    notes = []
    (height, width), aspect = was, size[1] / size[0]
    keep = (
        (height, round(height * aspect))
        if width > height * aspect
        else (round(width / aspect), width)
    )
    if keep != was:
        notes.append(
            f"{name}: {width}x{height} pixels, cropped to the {keep[1]}x{keep[0]} in the middle"
        )
    if keep[0] < size[0]:
        notes.append(f"{name}: {keep[1]}x{keep[0]} pixels, enlarged to {size[1]}x{size[0]}")
    if own == 4 and channels < 4:
        notes.append(f"{name}: transparent parts became white")
    if (own == 1) != (channels == 1):
        notes.append(f"{name}: {_CALLED[own]} became {_CALLED[channels]}, as the model makes")
    return notes


def checked_tensor(images: Tensor, size: tuple[int, int], channels: int) -> Tensor:
    """Return a tensor of images as [N, C, H, W].

    Raises:
        InputError: for another shape, type or range.
    """
    rows = (images[None] if images.ndim == 3 else images).detach().cpu()
    expected = (channels, *size)
    if rows.ndim != 4 or tuple(rows.shape[1:]) != expected:
        raise InputError(
            f"images of shape {list(images.shape)}; the model makes [N, {channels}, {size[0]}, {size[1]}]: "
            "give Pillow images or files to have them resized"
        )
    if not rows.is_floating_point():
        raise InputError(
            f"images are {rows.dtype}; give floats in [-1, 1] (gan_lab.data.images.to_float)"
        )
    if not rows.isfinite().all() or rows.abs().max() > 1.5:
        raise InputError("images must be finite and lie in [-1, 1]")
    return rows.float()


class Distance(ABC):
    """Compares images.

    Attributes:
        name: in results.
        why: it was chosen, in results.
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
    the same but for a factor). Coarse bands give gradients from afar, fine ones match details.
    """

    name = "laplacian pyramid, L1"

    def __init__(self, *, why: str = Distance.why) -> None:
        self.why = why

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        bands = laplacian_pyramid(images - targets)  # linear
        return torch.stack([band.abs().mean((1, 2, 3)) for band in bands]).sum(0)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Split images [N, C, H, W] into bands, fine to coarse, whose upsampled sum is the image.

    Images are averaged over 2x2 pixels while both sides are even and above 2; a band is an image minus its average,
    upsampled bilinearly. The last is the coarsest image.
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
