"""The sample grid of a model card."""

import torch
from torch import Tensor

from gan_lab.images import grid, to_uint8
from gan_lab.sampling import Gan

COLUMNS = 8
CLASSES_IN_ROWS = 12
SHOWN_SIDE = 64  # pixels that an image has in the grid at least


def sample_grid(gan: Gan, *, seed: int, truncation: float | None) -> tuple[Tensor, str]:
    """Draw a grid, a class a row where they are few, and say what it shows.

    Returns:
        (uint8 image [C, H, W], a sentence).
    """
    rows = gan.num_classes if 0 < gan.num_classes <= CLASSES_IN_ROWS else COLUMNS
    labels = None
    of = "classes as in the data" if gan.num_classes else ""
    if 0 < gan.num_classes <= CLASSES_IN_ROWS:
        labels = torch.arange(gan.num_classes).repeat_interleave(COLUMNS)
        of = "one class a row"
    images = to_uint8(gan.sample(rows * COLUMNS, labels=labels, seed=seed, truncation=truncation))
    factor = -(-SHOWN_SIDE // min(images.shape[2:]))
    large = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    facts = [
        f"The first {rows * COLUMNS} images of seed {seed}, none left out",
        *([of] if of else []),
        "no truncation" if truncation is None else f"truncation {truncation:g}",
        *([f"shown {factor} times as large"] if factor > 1 else []),
    ]
    return grid(large, COLUMNS), ", ".join(facts) + "."
