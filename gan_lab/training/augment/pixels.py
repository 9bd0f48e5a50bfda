"""Changes of pixel values: colors, noise, cutout and amplified frequency bands as in ADA, and Gaussian blur.

Karras et al. 2020, appendix B, https://arxiv.org/abs/2006.06676. Images with 3 channels are RGB, with 4 RGBA, whose
opacity is unchanged. One channel is treated as gray RGB: on the luma axis, so hue and saturation change nothing.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from gan_lab.errors import InputError
from gan_lab.training.augment import Augmentation, Draws, where_image

COLORS = ("brightness", "contrast", "lumaflip", "hue", "saturation")

BRIGHTNESS = 0.2  # standard deviation, images being in [-1, 1]

CONTRAST_OCTAVES = 0.5

SATURATION_OCTAVES = 1.0


def recolor(images: Tensor, draws: Draws) -> Tensor:
    """Recolor images [N, C, H, W]; those that draw nothing are unchanged."""
    if not draws.includes(*COLORS):
        return images
    matrix = draw_colors(draws, gray=images.shape[1] == 1)
    changed = (matrix != torch.eye(4, device=matrix.device)).flatten(1).any(1)
    return where_image(changed, apply_colors(images, matrix), images)


def draw_colors(draws: Draws, *, gray: bool) -> Tensor:
    """Draw affine maps [N, 4, 4] of RGB: brightness, contrast, luma flip and, but for gray, hue and saturation."""
    matrix = brightness(draws.apply("brightness", draws.normal(BRIGHTNESS), 0))
    matrix = contrast(draws.apply("contrast", draws.lognormal(CONTRAST_OCTAVES), 1)) @ matrix
    flipped = (draws.uniform() < 0.5).to(draws.dtype)
    matrix = luma_flip(draws.apply("lumaflip", flipped, 0)) @ matrix
    if gray:
        return matrix
    matrix = hue(draws.apply("hue", draws.angle(), 0)) @ matrix
    return saturation(draws.apply("saturation", draws.lognormal(SATURATION_OCTAVES), 1)) @ matrix


def apply_colors(images: Tensor, matrix: Tensor) -> Tensor:
    """Apply affine maps [N, 4, 4] of RGB to images [N, C, H, W] with 1, 3 or 4 channels."""
    count, channels, height, width = images.shape
    if channels == 1:
        # every row gives the same gray, up to rounding
        gain, offset = matrix[:, 0, :3].sum(1), matrix[:, 0, 3]
        return images * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)
    colors = images[:, :3].flatten(2)
    changed = torch.baddbmm(matrix[:, :3, 3:], matrix[:, :3, :3], colors)
    changed = changed.view(count, 3, height, width)
    return torch.cat([changed, images[:, 3:]], 1) if channels > 3 else changed


def brightness(offset: Tensor) -> Tensor:
    """Add `offset` [N] to every channel."""
    matrix = torch.eye(4, device=offset.device, dtype=offset.dtype).repeat(len(offset), 1, 1)
    matrix[:, :3, 3] = offset.unsqueeze(1)
    return matrix


def contrast(factor: Tensor) -> Tensor:
    """Multiply every channel by `factor` [N]."""
    return torch.diag_embed(torch.stack([factor, factor, factor, torch.ones_like(factor)], 1))


def luma_flip(flip: Tensor) -> Tensor:
    """Mirror colors in the plane through black-and-white's middle, across the luma axis, where `flip` [N] is 1."""
    luma, chroma = axes(flip)
    return split(luma, chroma, along=1 - 2 * flip, across=torch.ones_like(flip))


def saturation(factor: Tensor) -> Tensor:
    """Scale the distance from the luma axis by `factor` [N]."""
    luma, chroma = axes(factor)
    return split(luma, chroma, along=torch.ones_like(factor), across=factor)


def hue(angle: Tensor) -> Tensor:
    """Turn colors about the luma axis by `angle` [N]: Rodrigues' formula."""
    luma, chroma = axes(angle)
    matrix = split(luma, chroma, along=torch.ones_like(angle), across=angle.cos())
    turn = math.sqrt(1 / 3) * angle.sin()
    for row, column in ((0, 1), (1, 2), (2, 0)):
        matrix[:, row, column] -= turn
        matrix[:, column, row] += turn
    return matrix


def axes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projections [3, 3] on the luma axis (1, 1, 1) and on the plane across it."""
    luma = torch.full((3, 3), 1 / 3, device=like.device, dtype=like.dtype)
    return luma, torch.eye(3, device=like.device, dtype=like.dtype) - luma


def split(luma: Tensor, chroma: Tensor, *, along: Tensor, across: Tensor) -> Tensor:
    """Scale the part along the luma axis and the part across it by factors [N]: [N, 4, 4].

    Equal factors of 1 give the identity, to the bit.
    """
    matrix = torch.eye(4, device=along.device, dtype=along.dtype).repeat(len(along), 1, 1)
    change = luma * (along - 1).view(-1, 1, 1) + chroma * (across - 1).view(-1, 1, 1)
    matrix[:, :3, :3] += change
    return matrix


NOISE = 0.1

CUTOUT = 0.5  # of the image size


def add_noise(images: Tensor, draws: Draws) -> Tensor:
    """Add normal noise to every pixel and channel, its standard deviation drawn per image, half-normal."""
    if not draws.includes("noise"):
        return images
    deviation = draws.apply("noise", draws.normal(NOISE).abs(), 0)
    noisy = images + torch.randn_like(images) * deviation.view(-1, 1, 1, 1)
    return where_image(deviation > 0, noisy, images)


def cut_out(images: Tensor, draws: Draws) -> Tensor:
    """Set a rectangle of half the width and height to 0, mid-gray, anywhere, perhaps partly outside the image."""
    if not draws.includes("cutout"):
        return images
    size = draws.apply("cutout", torch.full_like(draws.uniform(), CUTOUT), 0)
    return torch.where(rectangle(images, draws.uniform(), draws.uniform(), size), 0, images)


def rectangle(images: Tensor, x: Tensor, y: Tensor, size: Tensor) -> Tensor:
    """Return the pixels [N, 1, H, W] whose centers lie in a rectangle about (x, y); all in shares of the image size."""
    inside = []
    for middle, length in ((y, images.shape[2]), (x, images.shape[3])):
        position = (torch.arange(length, device=images.device, dtype=images.dtype) + 0.5) / length
        distance = (position - middle.unsqueeze(1)).abs()
        inside.append(distance < size.unsqueeze(1) / 2)
    rows, columns = inside
    return rows[:, None, :, None] & columns[:, None, None, :]


# Taps of the low-pass filters of the symlets with 2 and 6 vanishing moments, orthogonal to their even shifts, with sum
# sqrt(2) (Daubechies 1992, Ten Lectures on Wavelets, table 6.3).
SYM2 = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / (4 * 2**0.5)
SYM6 = np.array(
    [
        0.015404109327044783, 0.003490712084222088, -0.1179901111485197, -0.04831174258569751,
        0.491055941927974, 0.7876411410286505, 0.3379294217281654, -0.07263752278637645,
        -0.021060292512370772, 0.04472490177078135, 0.0017677118642539763, -0.007800708325032381,
    ]
)  # fmt: skip


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


# Filtering lines of an image with reflection padding.

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
    # gathering costs more than it saves: use one matrix for whole lines
    positions = torch.arange(length, device=lines.device)
    gather = (source.unsqueeze(1) == positions.unsqueeze(1)).to(lines.dtype)  # [B, L, K]
    whole = (gather @ matrix.unsqueeze(-3)).movedim(-3, -2).flatten(-2)  # [..., L, B * M]
    return lines @ whole.unsqueeze(-3)


def block_positions(
    number: int, *, step: int, first: int, width: int, device: torch.device
) -> Tensor:
    """Return the positions [number, width] of blocks that begin at `first` and every `step` after it."""
    starts = torch.arange(number, device=device) * step + first
    return starts.unsqueeze(1) + torch.arange(width, device=device)


def reflect(index: Tensor, length: int) -> Tensor:
    """Fold indices outside [0, length) back into it, about the centers of the first and the last pixel."""
    period = 2 * (length - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def band_matrix(taps: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return taps[..., positions] for integers `positions` of any shape, 0 where there is no such tap."""
    inside = (positions >= 0) & (positions < taps.shape[-1])
    return np.where(inside, taps[..., positions.clip(0, taps.shape[-1] - 1)], 0)


def constant(values: np.ndarray, like: Tensor) -> Tensor:
    """Copy numbers to the device and dtype of `like`.

    Not cached: a tensor made within torch's function transforms is not usable outside. The copy is small and
    asynchronous.
    """
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


BANDS = 4

GAIN_OCTAVES = 1.0

# the share of each band in an image's power, which falls with the frequency
POWER = tuple(share / 13 for share in (10, 1, 1, 1))


def equalize(images: Tensor, draws: Draws) -> Tensor:
    """Amplify bands of images [N, C, H, W]; those that draw nothing are unchanged."""
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
    positions = block_positions(
        -(-length // BLOCK),
        step=BLOCK,
        first=(BLOCK - width) // 2,
        width=width,
        device=lines.device,
    )
    return filter_blocks(lines, reflect(positions, length), matrix)[..., :length]


@cache
def band_matrices() -> np.ndarray:
    """Return what filters BLOCK pixels, with those around them, by each of the bands: [4, K, BLOCK]."""
    filters = octave_bands(SYM2, BANDS)
    sources = np.arange(BLOCK + filters.shape[1] - 1)
    return band_matrix(filters, sources[:, None] - np.arange(BLOCK))


# Gaussian blur before the discriminator.
#
# Karras et al. 2021, appendix F, https://arxiv.org/abs/2106.12423: in configuration R, images are less and less blurred
# over the first 200 kimg, so that D does not use high frequencies before G has learned the low ones.


class Blur(Augmentation):
    """Blurs all images equally.

    Args:
        sigma: distance in pixels at which the kernel is one half of its center; 0 for none. To fade it out, schedule
            it: `schedules.blur.sigma`.
    """

    def __init__(self, *, sigma: float) -> None:
        super().__init__()
        if sigma < 0:
            raise InputError(f"blur: sigma={sigma} must not be negative")
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        return blur(images, self.sigma)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images [N, C, H, W] with a Gaussian that is one half `sigma` pixels from its center; 0 outside them."""
    radius = math.floor(3 * sigma)
    if radius < 1:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp2(-(offsets / sigma).square())
    taps = (taps / taps.sum()).expand(images.shape[1], 1, 1, -1)
    images = conv2d(images, taps, padding=(0, radius), groups=images.shape[1])
    return conv2d(images, taps.transpose(2, 3), padding=(radius, 0), groups=images.shape[1])
