"""Showing and playing samples: HTML fragments, grids, labeled sheets, tensors for notebooks."""

import base64
import html
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Self

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from gan_lab.data.sample import SampleKind, SampleSpec, to_pil
from gan_lab.errors import InputError

# samples that loggers get one by one, by media type
_MOST_SINGLE = {"image": 0, "audio": 8, "text": 64}
_MOST_SHOWN = 16  # players or texts in a notebook


def fragment(media: bytes, media_type: str, *, name: str = "") -> str:
    """Return HTML that shows or plays one sample: an image, an audio player, or text as it is.

    Args:
        media: as `SampleKind.media` returns it.
        media_type: of it.
        name: alternative text.

    Raises:
        InputError: for other media types.
    """
    what = media_type.partition("/")[0]
    label = html.escape(name)
    if what == "text":
        return f'<pre aria-label="{label}">{html.escape(media.decode(errors="replace"))}</pre>'
    uri = f"data:{media_type};base64,{base64.b64encode(media).decode()}"
    if what == "image":
        return f'<img src="{uri}" alt="{label}">'
    if what == "audio":
        return f'<audio controls preload="metadata" src="{uri}" aria-label="{label}"></audio>'
    raise InputError(f"media_type={media_type} must begin with image/, audio/ or text/")


def grid(images: Tensor, columns: int) -> Tensor:
    """Tile uint8 images [N, C, H, W] row by row into one image [C, H', W']."""
    # make_grid repeats a gray channel three times, which would change the mode of the file
    return make_grid(images, nrow=columns, padding=2, pad_value=255)[: images.shape[1]]


def enlarged(images: Tensor, scale: int) -> Tensor:
    """Repeat every pixel of images [..., H, W] `scale` times in both directions."""
    if scale == 1:
        return images
    return images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Samples for loggers and pages.

    Attributes:
        image: grid of all previews, uint8 [C, H, W].
        media: some single samples, if they are not images.
        media_type: of these.
    """

    image: Tensor
    media: tuple[bytes, ...]
    media_type: str


def sheet(kind: SampleKind, stored: Tensor, columns: int) -> Sheet:
    """Draw stored samples [N, ...] as a grid, and pick some single ones, evenly."""
    most = _MOST_SINGLE[kind.media_type.partition("/")[0]]
    chosen = stored[:: ceil(len(stored) / most)] if most else stored[:0]
    return Sheet(
        image=grid(kind.preview(stored), columns),
        media=tuple(kind.media(one) for one in chosen),
        media_type=kind.media_type,
    )


class ShownTensor(Tensor):
    """A tensor of samples [N, ...] in the networks' range, which a notebook can show.

    Indexing, `torch.cat` and moving keep the type; all other operations return plain tensors, and so do saving and
    copying to other processes.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute with plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
        if func in _KEPT and isinstance(found, Tensor):
            given = args[0] if isinstance(args[0], Sequence) else [args[0]]
            shown = next((one for one in given if isinstance(one, ShownTensor)), None)
            return found if shown is None else shown._like(found)
        return found

    def _like(self, values: Tensor) -> Self:
        """Return other values as the same kind of tensor."""
        return values.as_subclass(type(self))

    def _pixels(self) -> Tensor:
        """Draw the samples, or the one sample, as uint8 images [N, C, H, W] on the CPU."""
        raise NotImplementedError

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Self:
        return self._like(deepcopy(self.as_subclass(Tensor), memo))

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return self.as_subclass(Tensor).__repr__()

    def __format__(self, format_spec: str) -> str:
        return self.as_subclass(Tensor).__format__(format_spec)

    def grid(self, columns: int | None = None, *, scale: int = 1) -> Image.Image:
        """Tile the samples into one Pillow image, row by row.

        Args:
            columns: of the grid; by default about the number of rows.
            scale: every pixel becomes `scale` x `scale` pixels.

        Raises:
            InputError: for values that are not images, or an invalid number of columns.
        """
        pixels = self._pixels()
        columns = ceil(sqrt(len(pixels))) if columns is None else columns
        if columns < 1 or scale < 1:
            raise InputError(f"columns={columns} and scale={scale} must be at least 1")
        return to_pil(grid(enlarged(pixels, scale), min(columns, len(pixels))))


class Samples(ShownTensor):
    """A tensor of samples of any kind, which a notebook can play or show.

        clips = gan.sample(4)
        clips.grid(columns=2).save("sheet.png")

    Args:
        values: floats [N, ...], or one sample [...], as networks make them.
        spec: what they are.
    """

    spec: SampleSpec

    def __new__(cls, values: Tensor, spec: SampleSpec) -> "Samples":
        """View a tensor as samples; they share memory."""
        found = values.as_subclass(cls)
        found.spec = spec
        return found

    def _like(self, values: Tensor) -> Self:
        found = values.as_subclass(type(self))
        found.spec = self.spec
        return found

    def stored(self) -> Tensor:
        """Return the samples [N, ...] as they are stored, such as int16 sound, on the CPU.

        Raises:
            InputError: for parts of a sample.
        """
        values, shape = self.as_subclass(Tensor).detach(), self.spec.encoded_shape
        if tuple(values.shape[-len(shape) :]) != shape or values.ndim > len(shape) + 1:
            raise InputError(
                f"a tensor of shape {tuple(values.shape)} is no {self.spec.kind.name}: [N, "
                f"{', '.join(map(str, shape))}]"
            )
        return self.spec.decode(values.reshape(-1, *shape)).cpu()

    def _pixels(self) -> Tensor:
        return self.spec.kind.preview(self.stored())

    def _repr_html_(self) -> str | None:
        """Return HTML for notebooks; None if the values are not samples."""
        try:
            stored = self.stored()
        except InputError:
            return None
        kind = self.spec.kind
        parts = [
            fragment(kind.media(one), kind.media_type, name=f"{kind.name} {number}")
            for number, one in enumerate(stored[:_MOST_SHOWN])
        ]
        left = len(stored) - len(parts)
        return "\n".join(parts + ([f"<p>and {left} more</p>"] if left else []))


_KEPT = (
    Tensor.__getitem__, Tensor.clone, Tensor.detach, Tensor.contiguous, Tensor.flip, Tensor.clamp,
    Tensor.to, Tensor.cpu, Tensor.float, torch.cat, torch.stack, torch.clone, torch.flip, torch.clamp,
)  # fmt: skip


# Labeled sheets


_GAP = 3

_LARGE = 96  # pixels that a small image is enlarged to


def labeled_sheet(
    cells: Tensor, *, rows: Sequence[str] = (), columns: Sequence[str] = (), side: int | None = None
) -> Image.Image:
    """Arrange images in rows and columns.

    Args:
        cells: uint8 [R, K, C, H, W] with 1 or 3 channels.
        rows: R names, at the left; or none.
        columns: K names, above; or none.
        side: enlarge small images by integer factors to about this shorter side; None for about 96 pixels.
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
    """Stack images of one mode vertically."""
    size = (max(p.width for p in images), sum(p.height for p in images))
    canvas = Image.new(images[0].mode, size, "white")
    y = 0
    for image in images:
        canvas.paste(image, (0, y))
        y += image.height
    return canvas


def on_white(pixels: Tensor) -> Tensor:
    """Return uint8 images [..., C, H, W] without transparency: RGBA over white, others as they are."""
    if pixels.shape[-3] != 4:
        return pixels
    color, alpha = pixels[..., :3, :, :].float(), pixels[..., 3:, :, :].float() / 255
    return (color * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
