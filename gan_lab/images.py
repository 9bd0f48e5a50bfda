"""Between images in [-1, 1], which everything here computes with, and 8-bit files."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from gan_lab.errors import InputError


def to_uint8(images: Tensor) -> Tensor:
    """Quantise images in [-1, 1] to 0..255, rounding to the nearest level and saturating outside.

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
            raise InputError("images hold NaN or infinity, which no picture can show")
        # generators without a tanh may go far to either side; 0..255 goes to one
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


def to_pil(image: Tensor) -> Image.Image:
    """Make a picture of one uint8 image [C, H, W] with 1 (grey), 3 (RGB) or 4 (RGBA) channels."""
    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def grid(images: Tensor, columns: int) -> Tensor:
    """Tile uint8 images [N, C, H, W] row by row into one image [C, H', W']."""
    # make_grid repeats a grey channel three times, which would change the mode of the file
    return make_grid(images, nrow=columns, padding=2, pad_value=255)[: images.shape[1]]


def save_png(image: Tensor, path: Path) -> None:
    """Write one uint8 image [C, H, W] as PNG; the folder is made when it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(image).save(path, format="PNG")
