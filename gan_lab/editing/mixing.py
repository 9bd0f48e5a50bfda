"""Style mixing: some layers take the style of one image, the others that of another.

Karras et al. 2019, section 3.1 and figure 3, https://arxiv.org/abs/1812.04948.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lab.editing.layers import Layers, pick_layers
from gan_lab.editing.sources import Source, as_points
from gan_lab.images import Images
from gan_lab.labels import Labels
from gan_lab.rendering import Rendering, check_rendering
from gan_lab.sampling import Gan


@dataclass(frozen=True)
class Mixture:
    """Images of rows and columns, and what they make together.

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
    gan: Gan,
    rows: Source,
    columns: Source,
    *,
    layers: Layers,
    row_labels: Labels | None = None,
    column_labels: Labels | None = None,
    truncation: float | None = None,
    center: str = "mean",
    noise: str = "const",
) -> Mixture:
    """Mix styles; arguments as in `Gan.mix`. Images are on the CPU."""
    chosen = pick_layers(gan.styled, layers)
    check_rendering(gan.generator, Rendering(truncation, center, noise), styles=True)
    styles = [
        as_points(gan, source, labels=labels).styles(gan, truncation=truncation, center=center)
        for source, labels in ((rows, row_labels), (columns, column_labels))
    ]
    of_rows, of_columns = (w.to(gan.device) for w in styles)
    mixed = mixed_styles(of_rows, of_columns, chosen)
    every = torch.cat([of_rows, of_columns, mixed.flatten(0, 1)])
    # one count for all: with random noise, two images differ in what they are mixed from and in nothing else
    seeds = [0] * len(every)
    images = gan.synthesize(every, noise=noise, seed=seeds).cpu()
    first, second, rest = images.split([len(of_rows), len(of_columns), len(mixed.flatten(0, 1))])
    return Mixture(first, second, rest)


def mixed_styles(rows: Tensor, columns: Tensor, layers: list[int]) -> Tensor:
    """Return w [R, K, L, D] of rows [R, L, D] with the `layers` of columns [K, L, D]."""
    mixed = rows[:, None].repeat(1, len(columns), 1, 1)
    mixed[:, :, layers] = columns[None, :, layers]
    return mixed


def mix(
    gan: Gan,
    rows: Source,
    columns: Source,
    *,
    layers: Layers,
    row_labels: Labels | None = None,
    column_labels: Labels | None = None,
    truncation: float | None = None,
    center: str = "mean",
    noise: str = "const",
    sheet: bool = False,
) -> Images:
    """Mix styles; see `Gan.mix`."""
    made = mixture(
        gan,
        rows,
        columns,
        layers=layers,
        row_labels=row_labels,
        column_labels=column_labels,
        truncation=truncation,
        center=center,
        noise=noise,
    )
    return Images(made.sheet() if sheet else made.mixed)
