"""Sample grids: what each run generates, all from the same latents, small enough for a page of many."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from gan_lab.compare.runs import Run, one_line
from gan_lab.config import Count, take
from gan_lab.data.decoding import DECODE_ERRORS, open_image, regular_file
from gan_lab.data.media import fragment, sheet
from gan_lab.data.sample import to_pil
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import checkpoint_path
from gan_lab.weights.loading import load

_MAX_SIDE = 640  # of a grid, pixels
_MIN_SIDE = 360  # smaller grids are enlarged by a whole factor, so that their pixels stay sharp
_MAX_PNG = 60_000  # bytes, beyond which it becomes a WebP
_WEBP_QUALITY = 88
# pixels of an image -> columns; a CPU draws a few large images a second at most
_COLUMNS = ((64, 10), (256, 6), (1 << 30, 4))


@dataclass(frozen=True, kw_only=True)
class SampleGrid:
    """The sample grid of a run.

    Attributes:
        image: None where there is nothing to see.
        clips: HTML that plays or shows some of the samples, where they are no images.
        origin: which checkpoint drew it, or why there is none.
        same: whether it was drawn from the shared latents of this comparison.
        z_dim: of the generator; latents of one seed agree only where this does.
    """

    image: Image.Image | None = None
    clips: tuple[str, ...] = ()
    origin: str
    same: bool = False
    z_dim: int | None = None


def columns_for(runs: Sequence[Run]) -> int:
    """Return the columns of all grids, by the largest previews among them."""
    largest = max((max(preview_size(run)) for run in runs), default=0)
    return next(columns for limit, columns in _COLUMNS if largest <= limit)


def preview_size(run: Run) -> tuple[int, int]:
    """Return the size of a run's images; (0, 0) where its config does not tell."""
    try:
        shape = take(run.config, "sample.shape", list[Count], origin=run.path)
    except InputError:
        return 0, 0
    return (shape[1], shape[2]) if len(shape) == 3 else (0, 0)


def draw(
    run: Run,
    *,
    columns: int,
    seed: int,
    checkpoint: str | None,
    weights: str,
    device: torch.device,
    trust: Sequence[str],
) -> SampleGrid:
    """Draw a square grid from a run's checkpoint, a class a row where there are classes.

    Where that fails, the last grid of training takes its place, and `origin` says so and why.
    """
    if run.config is None:
        return last_of_training(run, why="it has no configuration that can be read")
    if not any((run.path / "checkpoints").glob("*.ckpt")):
        return last_of_training(run, why="it has no checkpoint")
    try:
        gan = load(run.path, checkpoint=checkpoint, weights=weights, device=device, trust=trust)
        rows, labels = columns, None
        if gan.num_classes and not gan.spec.attributes:
            rows = min(columns, gan.num_classes)
            labels = torch.arange(rows).repeat_interleave(columns)
        stored = gan.spec.decode(gan.sample(rows * columns, labels=labels, seed=seed))
        drawn = sheet(gan.spec.kind, stored.cpu(), columns)
        clips = tuple(
            fragment(one, drawn.media_type, name=f"{run.name}, {number}")
            for number, one in enumerate(drawn.media)
        )
        is_text = drawn.media_type.startswith("text/")
    except Exception as error:  # whatever is wrong with one run, the others are compared
        return last_of_training(run, why=one_line(error))
    return SampleGrid(
        image=None if is_text else shrunk(to_pil(drawn.picture)),
        clips=clips,
        origin=f"{checkpoint_path(run.path, checkpoint).stem} checkpoint, {gan.kimg:g} kimg",
        same=True,
        z_dim=gan.generator.z_dim,
    )


def last_of_training(run: Run, *, why: str) -> SampleGrid:
    """Return the last grid that training saved."""
    grids = sorted((run.path / "samples").glob("kimg*.png"))
    if not grids:
        return SampleGrid(origin=why)
    try:
        with regular_file(grids[-1]) as file, open_image(file) as opened:
            image = shrunk(opened.convert("RGB"))
    except DECODE_ERRORS as error:
        return SampleGrid(origin=f"{why}, and of its last grid: {one_line(error)}")
    kimg = float(Path(grids[-1]).stem.removeprefix("kimg"))
    origin = f"last grid of training, {kimg:g} kimg, at other latents: {why}"
    return SampleGrid(image=image, origin=origin)


def shrunk(image: Image.Image) -> Image.Image:
    """Return an image that is at most `_MAX_SIDE` wide and high."""
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    return image


def enlarged(image: Image.Image) -> Image.Image:
    """Return an image with every pixel repeated, until it is at least `_MIN_SIDE` wide or high."""
    factor = -(-_MIN_SIDE // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def data_uri(image: Image.Image) -> str:
    """Return an image as a data URI: PNG, exact, where that is small, else WebP."""
    data, kind = encoded(image, "PNG"), "png"
    if len(data) > _MAX_PNG:
        data, kind = encoded(image, "WEBP"), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encoded(image: Image.Image, kind: str) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, quality=_WEBP_QUALITY, optimize=True)
    return file.getvalue()
