"""Amplifying frequency bands of images (Karras et al. 2020, appendix B, https://arxiv.org/abs/2006.06676)."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from gan_lab.training.augment.base import Draws, where_image
from gan_lab.training.augment.wavelets import (
    BLOCK,
    band_matrix,
    block_places,
    constant,
    filter_blocks,
    octave_bands,
    reflect,
    symlet,
)

BANDS = 4

GAIN_OCTAVES = 1.0

VANISHING_MOMENTS = 2

# the share of each band in an image's power, which falls with the frequency
POWER = tuple(share / 13 for share in (10, 1, 1, 1))


def equalize(images: Tensor, draws: Draws) -> Tensor:
    """Amplify bands of images [N, C, H, W]; those that draw nothing are returned as they are."""
    if not draws.includes("imgfilter"):
        return images
    gains = draw_gains(draws)
    changed = (gains != 1).any(1)
    return where_image(changed, amplify(images, gains), images)


def draw_gains(draws: Draws) -> Tensor:
    """Draw the gains of the bands, [N, 4]; each draw keeps the power of a typical image."""
    gains = torch.ones(draws.count, BANDS, device=draws.device, dtype=draws.dtype)
    for band, share in enumerate(POWER):
        drawn = draws.apply("imgfilter", draws.lognormal(GAIN_OCTAVES), 1)
        # without a sum of shares, which rounding would keep from being 1 where nothing is drawn
        power = 1 + share * (drawn.square() - 1)
        gains = gains / power.sqrt().unsqueeze(1)
        gains[:, band] *= drawn
    return gains


def amplify(images: Tensor, gains: Tensor) -> Tensor:
    """Multiply the bands of images [N, C, H, W] by `gains` [N, 4], lowest first, along rows and along columns."""
    bands = constant(band_matrices(), images)
    matrix = torch.einsum("nb,bkm->nkm", gains, bands)
    return amplify_lines(amplify_lines(images, matrix).mT, matrix).mT


def amplify_lines(lines: Tensor, matrix: Tensor) -> Tensor:
    """Filter lines [N, C, H, W] by `matrix` [N, K, BLOCK]."""
    length, width = lines.shape[-1], matrix.shape[-2]
    places = block_places(
        -(-length // BLOCK),
        step=BLOCK,
        first=(BLOCK - width) // 2,
        width=width,
        device=lines.device,
    )
    return filter_blocks(lines, reflect(places, length), matrix)[..., :length]


@cache
def band_matrices() -> np.ndarray:
    """Return what filters BLOCK pixels, with those around them, by each of the bands: [4, K, BLOCK]."""
    filters = octave_bands(symlet(VANISHING_MOMENTS), BANDS)
    sources = np.arange(BLOCK + filters.shape[1] - 1)
    return band_matrix(filters, sources[:, None] - np.arange(BLOCK))
