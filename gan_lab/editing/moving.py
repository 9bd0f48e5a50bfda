"""Pictures along directions."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from gan_lab.editing.directions import Directions
from gan_lab.editing.points import Points
from gan_lab.editing.sheet import on_white, sheet
from gan_lab.errors import InputError
from gan_lab.images import to_uint8
from gan_lab.rendering import Rendering, is_finite_number
from gan_lab.sampling import Gan


def check_amounts(amounts: Sequence[float]) -> list[float]:
    """Return amounts as floats.

    Raises:
        InputError: for none, and for what is no finite number.
    """
    if not amounts or not all(is_finite_number(amount) for amount in amounts):
        raise InputError(f"amounts={list(amounts)} must be numbers, such as [-2,-1,0,1,2]")
    return [float(amount) for amount in amounts]


def along(
    gan: Gan,
    found: Directions,
    points: Points,
    amounts: Sequence[float],
    rendering: Rendering,
) -> Tensor:
    """Move points along each direction alone.

    Args:
        gan: the generator.
        found: directions of it.
        points: to move; truncation acts on them before.
        amounts: how far, in deviations.
        rendering: how images are made.

    Returns:
        Images [K, N, A, C, H, W] for K directions, N points and A amounts, on the CPU.
    """
    found.check(gan)
    values = points.values
    if found.space == "w":
        values = points.styles(gan, truncation=rendering.truncation, center=rendering.center)
    steps = torch.tensor(check_amounts(amounts)).repeat(len(values))
    repeated = values.repeat_interleave(len(amounts), 0)
    labels = None if points.labels is None else points.labels.repeat_interleave(len(amounts), 0)
    images = []
    for k in range(len(found)):
        each = torch.zeros(len(steps), len(found))
        each[:, k] = steps
        moved = found.apply(repeated, each)
        if found.space == "z":
            made = gan.render(moved, labels, rendering)
        else:
            # the same random noise whatever the amount
            seeds = list(range(len(values)))
            own = [seed for seed in seeds for _ in amounts]
            made = gan.synthesize(moved, noise=rendering.noise, seed=own)
        images.append(made.cpu().unflatten(0, (len(values), len(amounts))))
    return torch.stack(images)


def direction_sheets(
    images: Tensor, found: Directions, amounts: Sequence[float], names: Sequence[str]
) -> tuple[Image.Image, list[Image.Image]]:
    """Return a sheet of the first point, a direction a row, and one of each direction, a point a row.

    Args:
        images: [K, N, A, C, H, W], as `along` makes them.
        found: the directions.
        amounts: A.
        names: of the points.
    """
    columns = [f"{amount:+g}" if amount else "0" for amount in amounts]
    pixels = on_white(to_uint8(images))
    rows = [f"{k} ({share:.0%})" for k, share in enumerate(found.shares.tolist())]
    whole = sheet(pixels[:, 0], rows=rows, columns=columns, side=64)
    return whole, [sheet(each, rows=list(names), columns=columns, side=64) for each in pixels]
