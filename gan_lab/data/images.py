"""8-bit images as samples: conversion between floats in [-1, 1] and 8-bit files."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_lab.data.decoding import open_image
from gan_lab.data.media import ShownTensor
from gan_lab.data.sample import Representation, SampleKind, SampleSpec, to_pil
from gan_lab.errors import InputError
from gan_lab.run import replacing

_COMPRESSION = 1  # zlib's fastest level: a tenth larger than its default, several times quicker


class ImageKind(SampleKind):
    """Images uint8 [C, H, W] with 8 bits a channel, written as PNG."""

    name = "image"
    suffix = ".png"
    axes = ("channels", "height", "width")

    def to_float(self, stored: Tensor) -> Tensor:
        return to_float(stored)

    def to_stored(self, values: Tensor) -> Tensor:
        return to_uint8(values)

    def encoded(self, stored: Tensor) -> bytes:
        file = BytesIO()
        to_pil(stored).save(file, format="PNG", compress_level=_COMPRESSION)
        return file.getvalue()

    def decoded(self, data: bytes) -> Tensor:
        with open_image(BytesIO(data)) as image:
            pixels = torch.from_numpy(np.array(image))
        return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).contiguous()

    def zip_options(self, shape: Sequence[int]) -> str:
        return "data=zip"

    def preview(self, stored: Tensor) -> Tensor:
        """Return the images; with other numbers of channels than 1, 3 or 4, the first channel."""
        return stored if stored.shape[1] in (1, 3, 4) else stored[:, :1]


def image_spec(
    *,
    channels: int,
    image_size: tuple[int, int],
    class_names: Sequence[str] = (),
    class_counts: Sequence[int] = (),
    kind: SampleKind | None = None,
    representation: Representation | None = None,
) -> SampleSpec:
    """Describe images.

    Args:
        channels: C.
        image_size: (height, width).
        class_names: of the labels; none without classes.
        class_counts: training images of each class, or none.
        kind: None for 8 bits.
        representation: None for the kind's floats.
    """
    return SampleSpec(
        kind=kind or ImageKind(),
        representation=representation or Representation(),
        shape=(channels, *image_size),
        num_classes=len(class_names),
        class_names=tuple(class_names),
        class_counts=tuple(class_counts),
    )


def to_uint8(images: Tensor) -> Tensor:
    """Quantize images in [-1, 1] to 0..255, rounding to the nearest level and saturating outside.

    Args:
        images: floating point, any shape.

    Returns:
        uint8, the same shape.

    Raises:
        InputError: for integers, for non-finite values, and for a range that belongs to another convention
            (a wrong range gives a plausible FID, torchmetrics' `normalize=True` wraps negative values).
    """
    if not images.is_floating_point():
        raise InputError(
            f"images are {images.dtype}; to_uint8 takes floats in [-1, 1]: use to_float first"
        )
    if images.numel():
        low, high = torch.aminmax(images.float())
        if not torch.isfinite(low + high):
            raise InputError("images contain NaN or infinity")
        # generators without a tanh may exceed the range on both sides, 0..255 only on one
        if high > 16 and low >= -1:
            raise InputError(
                f"images span {low:.4g} to {high:.4g}; expected [-1, 1]: divide 0..255 by 127.5, less 1"
            )
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Map uint8 images 0..255 to float32 in [-1, 1]; the inverse of `to_uint8`.

    Raises:
        InputError: when the images are not uint8.
    """
    if images.dtype != torch.uint8:
        raise InputError(f"images are {images.dtype}; to_float takes uint8")
    return images.float().div(127.5).sub(1)


def save_png(image: Tensor, path: Path) -> None:
    """Write one uint8 image [C, H, W] as PNG; the folder is created if needed."""
    save_pil(to_pil(image), path)


def save_pil(image: Image.Image, path: Path) -> None:
    """Write a Pillow image as PNG, atomically; the folder is created if needed."""
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")


class Images(ShownTensor):
    """A tensor of images [N, C, H, W] in about [-1, 1], which a notebook can show.

        images = gan.sample(16)
        images.grid(columns=8).save("sheet.png")
        images[3].pil()

    Args:
        values: floats [N, C, H, W], or [C, H, W].
    """

    def __new__(cls, values: Tensor) -> "Images":
        """View a tensor as images; they share memory."""
        return values.as_subclass(cls)

    def pil(self) -> Any:
        """Return a Pillow image of [C, H, W], and a list of them of [N, C, H, W].

        Raises:
            InputError: for values that are not an image: other dimensions, 2 or more than 4 channels, NaN.
        """
        pixels = [to_pil(image) for image in self._pixels()]
        return pixels[0] if self.ndim == 3 else pixels

    def _pixels(self) -> Tensor:
        values = self.as_subclass(Tensor)
        if values.ndim not in (3, 4) or values.shape[-3] not in (1, 3, 4) or not values.numel():
            raise InputError(
                f"a tensor of shape {tuple(values.shape)} is not an image: give [N, C, H, W] or [C, H, W], C = 1, 3, 4"
            )
        pixels = to_uint8(values.detach()).cpu()
        return pixels[None] if pixels.ndim == 3 else pixels

    def _repr_png_(self) -> bytes | None:
        """Return a PNG for notebooks; None if the values are not images."""
        try:
            shown = self[:_MOST_SHOWN] if self.ndim == 4 else self
            side = max(shown.shape[-2:]) if shown.ndim >= 2 else 1
            sheet = Images(shown).grid(scale=max(1, _SMALLEST_SHOWN // max(side, 1)))
        except InputError:
            return None
        sheet.thumbnail((_LARGEST_SHOWN, _LARGEST_SHOWN))
        buffer = BytesIO()
        sheet.save(buffer, format="PNG")
        return buffer.getvalue()


# of a grid in a notebook: images, and pixels in the side of an image and of all
_MOST_SHOWN, _SMALLEST_SHOWN, _LARGEST_SHOWN = 100, 64, 1600
