"""Amplifying frequency bands of images by orthogonal wavelets."""

from collections.abc import Iterable
from functools import cache
from itertools import product
from math import comb, pi

import numpy as np
import torch
from torch import Tensor

from gan_lab.training.augment.base import Draws, where_image

# Orthogonal low-pass filters of Daubechies' family, computed from their definition, and octave bands made of them.
#
# A filter h with N vanishing moments has 2N taps and |H(w)|^2 = 2 cos^2N(w/2) P(sin^2(w/2)), with
# P(y) = sum_{k < N} binom(N - 1 + k, k) y^k. Its square roots differ by which zero of each pair z, 1/z they keep; the
# symlet keeps those that make it least asymmetric (Daubechies 1992, Ten Lectures on Wavelets, sections 6.1 and 8.1.1).


@cache
def symlet(moments: int) -> np.ndarray:
    """Return the taps [2 * moments] of the symlet's low-pass filter, with sum sqrt(2) and norm 1, float64.

    Of a filter and its mirror image, which are equally good, it is the one whose centre comes first.
    """
    filters = [from_zeros(moments, chosen) for chosen in product(*zero_pairs(moments))]
    best = min(filters, key=lambda taps: (round(asymmetry(taps), 9), centre(taps)))
    best.setflags(write=False)
    return best


def zero_pairs(moments: int) -> list[tuple[list[complex], list[complex]]]:
    """Return, for each zero y of P in the upper half plane, z inside the unit circle or outside, with conjugates."""
    trigonometric = [comb(moments - 1 + k, k) for k in range(moments)]
    pairs = []
    for y in np.roots(trigonometric[::-1]):
        if y.imag < -1e-9:
            continue
        # y = (2 - z - 1/z) / 4
        choices = sorted(np.roots([1, 4 * y - 2, 1]), key=abs)
        inside, outside = (
            [complex(z)] if abs(y.imag) < 1e-9 else [complex(z), complex(z).conjugate()]
            for z in choices
        )
        pairs.append((inside, outside))
    return pairs


def from_zeros(moments: int, groups: Iterable[list[complex]]) -> np.ndarray:
    """Return the filter with these zeros and `moments` more at -1."""
    taps = np.poly([-1.0] * moments + [z for group in groups for z in group]).real
    return taps * np.sqrt(2) / taps.sum()


def asymmetry(taps: np.ndarray) -> float:
    """Return how far the phase is from that of a symmetric filter: its squared deviation, weighted by the gain."""
    frequencies = np.linspace(0, pi, 257)
    response = np.exp(-1j * np.outer(frequencies, np.arange(len(taps)))) @ taps
    halves = np.arange(2 * len(taps)) / 2
    turned = response * np.exp(1j * np.outer(halves, frequencies))
    return float(((turned / np.sqrt(2)).imag ** 2).sum(1).min())


def centre(taps: np.ndarray) -> float:
    """Return the centre of mass of a filter: the shift of low frequencies, in taps."""
    return float(np.arange(len(taps)) @ taps / taps.sum())


def octave_bands(taps: np.ndarray, number: int) -> np.ndarray:
    """Return `number` symmetric band-pass filters [number, T] that add up to a single 1 in the middle.

    With L(z) = H(z) H(1/z) / 2, for which L(z) + L(-z) = 1, the highest band is L(-z) and holds the upper half of the
    frequencies; what it leaves, L(z), is split again an octave lower, by L(z^2), and so on. The lowest comes first.
    """
    low = np.convolve(taps, taps[::-1]) / 2
    middle = len(low) // 2
    high = low * (-1.0) ** (np.arange(len(low)) - middle)
    rest = np.ones(1)
    bands = []
    for octave in range(number - 1):
        bands.append(np.convolve(rest, stretch(high, 2**octave)))
        rest = np.convolve(rest, stretch(low, 2**octave))
    bands.append(rest)
    return np.stack([np.pad(band, (len(rest) - len(band)) // 2) for band in reversed(bands)])


def stretch(taps: np.ndarray, factor: int) -> np.ndarray:
    """Put `factor - 1` zeros between the taps."""
    stretched = np.zeros(factor * (len(taps) - 1) + 1)
    stretched[::factor] = taps
    return stretched


# Filtering the lines of an image, which go on as their own reflections.

BLOCK = 16  # pixels

SHORT = 64  # pixels


def filter_blocks(lines: Tensor, source: Tensor, matrix: Tensor) -> Tensor:
    """Gather blocks of lines [N, C, H, L] at `source` [B, K] and multiply them by `matrix`: [N, C, H, B * M].

    Args:
        matrix: [K, M], or [N, K, M] for one of each image.
    """
    length = lines.shape[-1]
    if length > SHORT:
        blocks = lines.index_select(-1, source.flatten()).unflatten(-1, source.shape)
        return (blocks @ matrix.unsqueeze(-3).unsqueeze(-3)).flatten(-2)
    # gathering costs more than it saves: leave it to one matrix for whole lines
    places = torch.arange(length, device=lines.device)
    gather = (source.unsqueeze(1) == places.unsqueeze(1)).to(lines.dtype)  # [B, L, K]
    whole = (gather @ matrix.unsqueeze(-3)).movedim(-3, -2).flatten(-2)  # [..., L, B * M]
    return lines @ whole.unsqueeze(-3)


def block_places(number: int, *, step: int, first: int, width: int, device: torch.device) -> Tensor:
    """Return the places [number, width] of blocks that begin at `first` and every `step` after it."""
    starts = torch.arange(number, device=device) * step + first
    return starts.unsqueeze(1) + torch.arange(width, device=device)


def reflect(index: Tensor, length: int) -> Tensor:
    """Fold indices outside [0, length) back into it, about the centres of the first and the last pixel."""
    period = 2 * (length - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def band_matrix(taps: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return taps[..., places] for integers `places` of any shape, 0 where there is no such tap."""
    inside = (places >= 0) & (places < taps.shape[-1])
    return np.where(inside, taps[..., places.clip(0, taps.shape[-1] - 1)], 0)


def constant(values: np.ndarray, like: Tensor) -> Tensor:
    """Copy numbers to where `like` is, in its type.

    Not kept from one call to the next: a tensor that was made under one of torch's function transforms is of no use
    outside. The copy is small, and the host does not wait for it.
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


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
