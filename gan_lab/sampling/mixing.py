"""Style mixing: some layers take the style of one image, the others that of another.

Karras et al. 2019, section 3.1 and figure 3, https://arxiv.org/abs/1812.04948.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.sampling.latents import Labels, Latents, LatentSource
from gan_lab.sampling.sampler import Sampler

Layers = str | int | range | Sequence[str | int]


def pick_layers(gan: Sampler, layers: Layers) -> list[int]:
    """Return the indices of styles, in order.

    Args:
        gan: a generator with styles.
        layers: "coarse", "middle", "fine", "all", an index, a range such as "0-3" (with its last), several of these in
            a list or with commas between them, or a `range`. An empty list means none.

    Raises:
        InputError: for unknown layers, and a level without layers at this image size.
    """
    if isinstance(layers, str):
        parts: Sequence[str | int] = layers.replace(" ", "").split(",")
    else:
        parts = [layers] if isinstance(layers, int) else list(layers)
    found = [_indices(gan, part) for part in parts]
    empty = [str(part) for part, indices in zip(parts, found, strict=True) if not indices]
    chosen = sorted({index for indices in found for index in indices})
    if empty and not chosen:
        raise InputError(
            f"layers={','.join(empty)}: images of this size have no such layers; {layer_names(gan)}"
        )
    return chosen


def _indices(gan: Sampler, part: str | int) -> Sequence[int]:
    levels = gan.style_generator.levels() | {"all": range(gan.num_ws)}
    if isinstance(part, str) and part in levels:
        return levels[part]
    first, dash, last = str(part).partition("-")
    numbers = [first, last] if dash else [first]
    if isinstance(part, bool) or not all(number.isdecimal() for number in numbers):
        raise InputError(f"layers={part}: {layer_names(gan)}")
    start, stop = int(first), int(numbers[-1])
    if start > stop or stop >= gan.num_ws:
        raise InputError(f"layers={part} is out of range: {layer_names(gan)}")
    return range(start, stop + 1)


def layer_names(gan: Sampler) -> str:
    """List the layers for messages."""
    levels = ", ".join(
        f"{name} ({span.start}-{span.stop - 1})"
        for name, span in gan.style_generator.levels().items()
        if len(span)
    )
    return f"choose from {levels}, all, or numbers from 0 to {gan.num_ws - 1}, such as 0-3"


@dataclass(frozen=True)
class Mixture:
    """Images of rows and columns, and their mixtures.

    Attributes:
        rows: [R, C, H, W].
        columns: [K, C, H, W].
        mixed: [R * K, C, H, W], row by row.
    """

    rows: Tensor
    columns: Tensor
    mixed: Tensor

    def sheet(self) -> Tensor:
        """Return [(R + 1) (K + 1), C, H, W]: the columns' images above, the rows' at the left, an empty corner."""
        empty = torch.ones_like(self.rows[:1])
        parts = [empty, self.columns]
        for row, mixed in zip(self.rows, self.mixed.split(len(self.columns)), strict=True):
            parts += [row[None], mixed]
        return torch.cat(parts)


def mixture(
    gan: Sampler,
    rows: LatentSource,
    columns: LatentSource,
    *,
    layers: Layers,
    row_labels: Labels | None = None,
    column_labels: Labels | None = None,
    truncation: float | None = None,
    truncation_center: str = "mean",
    noise: str = "const",
) -> Mixture:
    """Mix styles; arguments as in `Gan.mix`. Images are on the CPU."""
    chosen = pick_layers(gan, layers)
    gan.check(noise=noise)
    of_rows, of_columns = (
        gan.as_latents(
            source, labels=labels, truncation=truncation, truncation_center=truncation_center
        ).values.to(gan.device)
        for source, labels in ((rows, row_labels), (columns, column_labels))
    )
    mixed = mix_w(of_rows, of_columns, chosen)
    w = torch.cat([of_rows, of_columns, mixed])
    # the same random noise for all, so that images only differ in their styles
    images = gan.synthesize(Latents(w=w, seeds=[(0, 0)] * len(w)), noise=noise).cpu()
    return Mixture(*images.split([len(of_rows), len(of_columns), len(mixed)]))


def mix_w(rows: Tensor, columns: Tensor, layers: list[int]) -> Tensor:
    """Return w [R * K, L, D], row by row, of rows [R, L, D] with the `layers` of columns [K, L, D]."""
    mixed = rows[:, None].repeat(1, len(columns), 1, 1)
    mixed[:, :, layers] = columns[None, :, layers]
    return mixed.flatten(0, 1)
