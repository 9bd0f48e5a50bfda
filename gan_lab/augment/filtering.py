"""Amplifying frequency bands of images (Karras et al. 2020, appendix B, https://arxiv.org/abs/2006.06676)."""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gan_lab.augment.draws import Draws, where_image
from gan_lab.augment.geometry import reflect
from gan_lab.augment.wavelets import octave_bands, symlet

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
    rows, columns = (
        torch.einsum("nb,bij->nij", gains, band_matrices(length, images.dtype, images.device))
        for length in images.shape[2:]
    )
    return rows.unsqueeze(1) @ images @ columns.unsqueeze(1).mT


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def band_matrices(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the bands' filters on a side of `length` pixels (at least 2) and its reflections, [4, length, length]."""
    filters = octave_bands(symlet(VANISHING_MOMENTS), BANDS)
    reach = filters.shape[1] // 2
    matrices = np.zeros((BANDS, length, length))
    for offset in range(-reach, reach + 1):
        pixels = np.arange(length)
        sources = reflect(torch.from_numpy(pixels + offset), length).numpy()
        matrices[:, pixels, sources] += filters[:, offset + reach, None]
    assert math.isclose(matrices.sum(), length, abs_tol=1e-6)
    return torch.from_numpy(matrices).to(device, dtype)
