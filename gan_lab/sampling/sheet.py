"""Sheets of images with words beside them."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gan_lab.data.media import enlarged
from gan_lab.data.sample import to_pil

_GAP = 3

_LARGE = 96  # pixels that a small image is enlarged to


def sheet(
    cells: Tensor, *, rows: Sequence[str] = (), columns: Sequence[str] = (), side: int | None = None
) -> Image.Image:
    """Arrange images in rows and columns.

    Args:
        cells: uint8 [R, K, C, H, W] with 1 or 3 channels.
        rows: R names, at the left; or none.
        columns: K names, above; or none.
        side: that the shorter side of small images is enlarged to, by whole factors; None for about 96 pixels.
    """
    scale = max(1, round((side or _LARGE) / min(cells.shape[3:])))
    cells = enlarged(cells, scale)
    height, width = cells.shape[3:]
    font = ImageFont.load_default(size=max(11, min(16, height // 6)))
    line = int(font.getbbox("Ag")[3])
    left = max((int(font.getlength(name)) for name in rows), default=0)
    left += 3 * _GAP if rows else _GAP
    top = line + 2 * _GAP if columns else _GAP
    image = Image.new(
        to_pil(cells[0, 0]).mode,
        (left + (width + _GAP) * cells.shape[1], top + (height + _GAP) * cells.shape[0]),
        "white",
    )
    draw = ImageDraw.Draw(image)
    for row, images in enumerate(cells):
        y = top + row * (height + _GAP)
        if rows:
            draw.text((left - 2 * _GAP, y + height // 2), rows[row], "black", font, anchor="rm")
        for column, pixels in enumerate(images):
            image.paste(to_pil(pixels), (left + column * (width + _GAP), y))
    for column, name in enumerate(columns):
        x = left + column * (width + _GAP) + width // 2
        draw.text((x, top - _GAP), name, "black", font, anchor="md")
    return image


def stacked(images: Sequence[Image.Image]) -> Image.Image:
    """Put images of one mode one below the other."""
    size = (max(p.width for p in images), sum(p.height for p in images))
    whole = Image.new(images[0].mode, size, "white")
    y = 0
    for image in images:
        whole.paste(image, (0, y))
        y += image.height
    return whole


def on_white(pixels: Tensor) -> Tensor:
    """Return uint8 images [..., C, H, W] without transparency: RGBA over white, others as they are."""
    if pixels.shape[-3] != 4:
        return pixels
    colour, alpha = pixels[..., :3, :, :].float(), pixels[..., 3:, :, :].float() / 255
    return (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
