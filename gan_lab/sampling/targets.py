"""Images to project: from files, folders and memory to what a generator makes, with a word on what that changed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_lab.data.decoding import open_image, regular_file
from gan_lab.data.images import to_float
from gan_lab.data.listing import list_folder
from gan_lab.data.scan import DECODE_ERRORS, inspect, reason_of
from gan_lab.data.transform import ImageTransform, native_channels
from gan_lab.errors import InputError

Given = str | Path | Image.Image | Tensor

_CALLED = {1: "grey", 3: "colour", 4: "colour with transparency"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Images as a generator makes them.

    Attributes:
        images: float [N, C, H, W] in [-1, 1].
        names: of each, such as a file's.
        notes: what was done to them besides resizing, a sentence each.
        labels: int64 [N] where they are known.
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
    """Bring images to the size and channels of a generator.

    Another aspect is cropped to its centre, resampling is Pillow's Lanczos filter; transparency becomes white where
    there is no channel for it.

    Args:
        given: paths of files and folders (whose images are taken in the order of their names), Pillow images,
            or tensors, float [C, H, W] or [N, C, H, W] in [-1, 1], which must have the right shape already.
        size: (height, width).
        channels: 1, 3 or 4.

    Raises:
        InputError: for nothing, and for what cannot be read, is animated, or has another shape.
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
    """Return a file itself, and of a folder the images in it and below, by name.

    Raises:
        InputError: for what is not there, or a folder without images.
    """
    if not path.exists():
        raise InputError(f"{path} is not there; give an image file or a folder of them")
    if not path.is_dir():
        return [path]
    listing = list_folder(path)
    if not listing.images:
        raise InputError(f"{path} holds no images")
    listing.report(path)
    return [path / name for name in listing.images]


def read_file(path: Path, size: tuple[int, int], channels: int) -> tuple[Tensor, list[str]]:
    """Read one file; returns the image [C, H, W] and what was done to it.

    Raises:
        InputError: naming the file, when it is broken, no image, or has several.
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
    """Transform a Pillow image and leave it as it is.

    Raises:
        InputError: when it is damaged, or its pixels mean nothing in 8 bits.
    """
    if image.format == "EPS":  # to copy its pixels would start Ghostscript
        raise InputError(f"{name} is PostScript, which is not decoded; give a PNG")
    check_single(image, name)
    try:
        return transformed(image.copy(), name, size, channels)
    except DECODE_ERRORS as error:
        raise InputError(f"{name} cannot be read ({reason_of(error)})") from error


def check_single(image: Image.Image, name: str) -> None:
    """Refuse an image with several frames.

    Raises:
        InputError: with the remedy.
    """
    frames = getattr(image, "n_frames", 1)  # Pillow's own way: only some formats have it
    if frames > 1 and image.format != "MPO":  # a phone's JPEG with a thumbnail behind it
        raise InputError(
            f"{name} has {frames} frames; save the one to be projected as an image of its own"
        )


def transformed(
    image: Image.Image, name: str, size: tuple[int, int], channels: int
) -> tuple[Tensor, list[str]]:
    """Crop, resize and convert an opened image; returns float [C, H, W] and what was done to it."""
    own = native_channels(image)
    transform = ImageTransform(size=size, channels=channels, crop="center", resample="lanczos")
    pixels = torch.from_numpy(np.array(transform(image), order="C"))
    # the orientation is applied to the image in place
    return to_float(pixels), list(notes_of(name, (image.height, image.width), size, own, channels))


def notes_of(
    name: str, was: tuple[int, int], size: tuple[int, int], own: int, channels: int
) -> list[str]:
    """Return sentences on what an image lost or could not have."""
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
