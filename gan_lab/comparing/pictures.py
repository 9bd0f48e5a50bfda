"""A picture of what each run generates, all at the same latents, small enough for a page of many."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

import gan_lab
from gan_lab.comparing.reading import Run, one_line
from gan_lab.config import Count, take
from gan_lab.data.decoding import open_image, regular_file
from gan_lab.data.images import grid, to_pil, to_uint8
from gan_lab.data.scan import DECODE_ERRORS
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import checkpoint_path

_LARGEST_SIDE = 640  # of a picture, pixels
_LARGEST_PNG = 60_000  # bytes, beyond which it becomes a WebP
_WEBP_QUALITY = 88
# pixels of an image -> columns; a CPU draws a few large images a second at most
_COLUMNS = ((64, 10), (256, 6), (1 << 30, 4))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What stands for a run's images.

    Attributes:
        image: the grid; None where there is nothing to show.
        origin: what it is, or why there is none.
        same: whether it was drawn at the latents of this comparison.
        z_dim: of the generator; grids of one seed have the same latents where this is the same, too.
    """

    image: Image.Image | None
    origin: str
    same: bool
    z_dim: int | None = None


def columns_for(runs: Sequence[Run]) -> int:
    """Return how many columns all grids have, by the largest images among them: image i has the same latent in all."""
    largest = max((max(image_size(run)) for run in runs), default=0)
    return next(columns for limit, columns in _COLUMNS if largest <= limit)


def image_size(run: Run) -> tuple[int, int]:
    """Return how large a run's images are, as far as its configuration knows; (0, 0) where it does not."""
    try:
        return take(run.config, "images.size", tuple[Count, Count], origin=run.path)
    except InputError:
        return 0, 0


def draw(
    run: Run,
    *,
    columns: int,
    seed: int,
    checkpoint: str | None,
    weights: str,
    device: torch.device,
    trust: Sequence[str],
) -> Picture:
    """Draw a square grid from a run's checkpoint, class by class where there are classes.

    Where that cannot be, the last grid of training takes its place, and the picture says so and why.
    """
    if run.config is None:
        return of_training(run, why="it has no configuration that can be read")
    if not any((run.path / "checkpoints").glob("*.ckpt")):
        return of_training(run, why="it has no checkpoint")
    try:
        gan = gan_lab.load(
            run.path, checkpoint=checkpoint, weights=weights, device=device, trust=trust
        )
        rows, labels = columns, None
        if gan.num_classes:
            rows = min(columns, gan.num_classes)
            labels = torch.arange(rows).repeat_interleave(columns)
        pixels = to_uint8(gan.sample(rows * columns, labels=labels, seed=seed)).cpu()
    except Exception as error:  # whatever is wrong with one run, the others are compared
        return of_training(run, why=one_line(error))
    source = checkpoint_path(run.path, checkpoint)
    return Picture(
        image=shrunk(to_pil(grid(pixels, columns))),
        origin=f"{source.stem} checkpoint, {gan.kimg:g} kimg",
        same=True,
        z_dim=gan.generator.z_dim,
    )


def of_training(run: Run, *, why: str) -> Picture:
    """Return the last grid that training saved."""
    grids = sorted((run.path / "samples").glob("kimg*.png"))
    if not grids:
        return Picture(image=None, origin=why, same=False)
    try:
        with regular_file(grids[-1]) as file, open_image(file) as opened:
            image = shrunk(opened.convert("RGB"))
    except DECODE_ERRORS as error:
        return Picture(
            image=None, origin=f"{why}, and of its last grid: {one_line(error)}", same=False
        )
    kimg = float(Path(grids[-1]).stem.removeprefix("kimg"))
    origin = f"last grid of training, {kimg:g} kimg, at other latents: {why}"
    return Picture(image=image, origin=origin, same=False)


def shrunk(image: Image.Image) -> Image.Image:
    """Return a picture that is at most `_LARGEST_SIDE` wide and high."""
    side = max(image.size)
    if side <= _LARGEST_SIDE:
        return image
    size = [max(1, round(length * _LARGEST_SIDE / side)) for length in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def data_uri(image: Image.Image) -> str:
    """Return a picture as a link that holds it: a PNG, exact, where that is small, else a WebP."""
    data, kind = encoded(image, "PNG"), "png"
    if len(data) > _LARGEST_PNG:
        data, kind = encoded(image, "WEBP"), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encoded(image: Image.Image, kind: str) -> bytes:
    """Return a picture as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, quality=_WEBP_QUALITY, optimize=True)
    return file.getvalue()
