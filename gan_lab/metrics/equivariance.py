"""Equivariance: how well a generator's image follows transforms of its input, as PSNR in dB.

    EQ = 10 log10( 4 / E[ (g(t[z0]; w) - t[g(z0; w)])^2 ] ),  images in [-1, 1], over pixels known in both

t is a translation (EQ-T, by whole pixels or fractions of them) or a rotation (EQ-R). Karras et al. 2021, section 2 and
appendix E, https://arxiv.org/abs/2106.12423: shifts are uniform within an eighth of the image, angles over the circle,
and images are moved by Lanczos-windowed filters of size a = 3.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, in_thousands
from gan_lab.metrics.generator_metrics import GeneratorMetric
from gan_lab.metrics.sources import GanImages
from gan_lab.seeding import Stream, derive_seed

_A = 3  # lobes of a Lanczos window
_REACH = 2 * _A  # of a filter that is limited by two grids, pixels
_PHASES = 4  # positions between two pixels at which images are known exactly; linear between these
_TABLE = 64  # half the width of the table that filters are made in, pixels
_LARGEST_SHIFT = 0.125  # of the image's side
_KINDS = {"translation": "int", "fractional": "frac", "rotation": ""}


class Equivariance(GeneratorMetric):
    """EQ-T by whole pixels (`eqt50k_int`), by fractions (`eqt50k_frac`) and EQ-R (`eqr50k`), of StyleGAN3.

    Args:
        kinds: any of "translation", "fractional" and "rotation".
        num_images: number of images; None for the protocol's number of generated images.

    Raises:
        InputError: for an unknown kind.
    """

    kind, short = "equivariance", "eq"
    size = 16

    def __init__(
        self,
        *,
        kinds: Sequence[str] = ("translation", "fractional", "rotation"),
        num_images: int | None = None,
    ) -> None:
        super().__init__()
        if not kinds or not set(kinds) <= _KINDS.keys():
            raise InputError(
                f"metrics.equivariance.kinds={list(kinds)}: any of {', '.join(_KINDS)}"
            )
        self._kinds = list(kinds)
        self._num_images = num_images

    def key(self, context: MetricContext) -> str:
        return self._key_of(self._kinds[-1], context)

    def check_generator(self, images: GanImages) -> None:
        if not images.gan.generator.supports_transform:
            raise InputError(
                f"metrics.equivariance: {images.gan.kind} has no input that could be moved; leave it out, it is "
                "for stylegan3"
            )

    def num(self, context: MetricContext) -> int:
        return self._num_images or context.num_fake

    def summary(self, found: Tensor, context: MetricContext) -> list[MetricValue]:
        return [
            MetricValue(key=self._key_of(kind, context), value=decibels(found[:, i]))
            for i, kind in enumerate(self._kinds)
        ]

    def _key_of(self, kind: str, context: MetricContext) -> str:
        number = in_thousands(self.num(context))
        which = "eqr" if kind == "rotation" else "eqt"
        return "_".join(filter(None, (f"{which}{number}", _KINDS[kind])))

    def outcomes(self, images: GanImages, context: MetricContext, start: int, stop: int) -> Tensor:
        """Return (sum of squared errors, number of values) [n, kinds, 2] of images `start` to `stop`, float64."""
        gan = images.gan
        seed = int(images.description["seed"])
        truncation = images.description["truncation"]
        count = stop - start
        latents = gan.latents(count, seed=seed, start=start, truncation=truncation)
        originals = gan.synthesize(latents, batch_size=count)
        draws = torch.Generator().manual_seed(derive_seed(seed, start, Stream.EQUIVARIANCE))
        side = originals.shape[-1]
        found = []
        for kind in self._kinds:
            shifts, angle = drawn(kind, count, side, draws)
            moved = gan.synthesize(
                latents, transform=motions(shifts / side, angle), batch_size=count
            )
            found.append(errors(originals, moved, shifts, angle))
        return torch.stack(found, dim=1).cpu()


def drawn(
    kind: str, count: int, side: int, generator: torch.Generator
) -> tuple[Tensor, float | None]:
    """Draw shifts [N, 2] in pixels, whole ones for "translation"; or an angle, in radians, for "rotation"."""
    if kind == "rotation":
        angle = (2 * torch.rand((), generator=generator, dtype=torch.float64) - 1) * math.pi
        return torch.zeros(count, 2, dtype=torch.float64), float(angle)
    shares = 2 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1
    shifts = shares * _LARGEST_SHIFT * side
    return (shifts.round() if kind == "translation" else shifts), None


def motions(shifts: Tensor, angle: float | None) -> Tensor:
    """Return transforms for `synthesize` [N, 3, 3], from moved to unmoved images, shifts in image sides."""
    found = torch.eye(3, dtype=torch.float64).repeat(len(shifts), 1, 1)
    found[:, :2, 2] = shifts
    if angle is not None:
        found[:, :2, :2] = rotation(angle)
    return found


def rotation(angle: float) -> Tensor:
    """Return the matrix [2, 2] that turns (x, y)."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


def errors(originals: Tensor, moved: Tensor, shifts: Tensor, angle: float | None) -> Tensor:
    """Compare images moved by the generator with unmoved ones that are moved here.

    Args:
        originals: images [N, C, H, H].
        moved: images at `x + shift`, or at x rotated by `angle`, where the unmoved ones are at x.
        shifts: [N, 2], x and y, in pixels; ignored with an angle.
        angle: in radians; None for a shift.

    Returns:
        Sum of squared errors and number of values compared, [N, 2], float64.
    """
    if angle is None:
        parts = [
            shifted(image[None], float(x), float(y))
            for image, (x, y) in zip(originals, shifts.tolist(), strict=True)
        ]
        expected, known = (torch.cat(part) for part in zip(*parts, strict=True))
    else:
        expected, known = turned(originals, angle)
        moved, also = limited(moved, angle)
        known = known & also
    squared = (moved - expected).double().square() * known
    count = known.expand_as(squared).flatten(1).sum(1).double()
    return torch.stack([squared.flatten(1).sum(1), count], dim=1)


def decibels(found: Tensor) -> float:
    """Return the peak signal to noise ratio of `errors` [N, 2] together."""
    squared, count = found.sum(0).tolist()
    return 10 * math.log10(4 * count / squared) if squared else math.inf


def shifted(images: Tensor, x: float, y: float) -> tuple[Tensor, Tensor]:
    """Shift images by (x, y) pixels.

    Between pixels, with a Lanczos filter along each axis (appendix E.2); integer shifts move pixels (E.1).

    Returns:
        Images [N, C, H, W] and where they are known, bool [1, 1, H, W].
    """
    moved, known = images, torch.ones(1, 1, *images.shape[2:], dtype=torch.bool)
    for dim, amount in ((3, x), (2, y)):
        whole = math.floor(amount)
        taps = _lanczos_taps(amount - whole)
        size = images.shape[dim]
        # one row of indices a tap: which pixel it looks at
        at = torch.arange(size) + whole + torch.arange(1 - _A, _A + 1)[:, None]  # [2 a, size]
        at = at[taps != 0]
        inside = ((at >= 0) & (at < size)).all(0)
        known = known & inside.view([-1 if d == dim else 1 for d in range(4)])
        index = at.clamp(0, size - 1).to(images.device)
        moved = sum(
            (
                float(tap) * moved.index_select(dim, row)
                for tap, row in zip(taps[taps != 0], index, strict=True)
            ),
            start=torch.zeros_like(moved),
        )
    return moved, known.to(images.device)


def turned(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Rotate images around the center, limited to frequencies that both grids have (appendix E.3).

    Returns:
        Images [N, C, H, H] and where they are known, bool [1, 1, H, H].
    """
    size = images.shape[-1]
    kernel = filter_of(angle, _PHASES).to(images)  # [phases^2, 2 reach, 2 reach]
    channels = images.shape[1]
    # between pixels i and i + 1, at phases of a quarter
    finer = F.conv2d(images.flatten(0, 1)[:, None], kernel[:, None], padding=_REACH)
    finer = F.pixel_shuffle(finer, _PHASES)[:, 0].unflatten(0, (-1, channels))
    middle = (size - 1) / 2
    line = torch.arange(size, dtype=torch.float64) - middle
    y, x = torch.meshgrid(line, line, indexing="ij")
    looked_at = torch.stack([x, y], dim=-1) @ rotation(angle).T  # [H, H, 2], pixels from the middle
    known = (looked_at.abs() <= middle - _REACH).all(-1)[None, None].to(images.device)
    # pixel 0 is `_PHASES` * 1 samples behind the first that the padded convolution gives
    position = (looked_at + middle + 1) * _PHASES
    grid = (2 * position / (finer.shape[-1] - 1) - 1).to(images)
    found = F.grid_sample(
        finer, grid.expand(len(images), -1, -1, -1), mode="bilinear", align_corners=True
    )
    return found, known


def limited(images: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Apply the low-pass filter of `turned` without rotating.

    Returns:
        Images [N, C, H, H] and where they are known, bool [1, 1, H, H].
    """
    kernel = filter_of(-angle, 1).to(images)[0]
    channels = images.shape[1]
    found = F.conv2d(images.flatten(0, 1)[:, None], kernel[None, None], padding=_REACH)
    found = found[:, 0].unflatten(0, (-1, channels))[..., 1:, 1:]
    known = torch.zeros(1, 1, *images.shape[2:], dtype=torch.bool, device=images.device)
    known[..., _REACH:-_REACH, _REACH:-_REACH] = True
    return found, known


def filter_of(angle: float, phases: int) -> Tensor:
    """Return the low-pass filter for the band that a grid and one rotated by `angle` share.

    The filter is the convolution of both grids' sincs, windowed by that of both grids' Lanczos windows, normalized at
    every phase.

    Returns:
        Correlation kernels [phases^2, 2 reach, 2 reach], float64: kernel (j, i) gives the image at (i, j) / phases
        pixels behind the pixel `reach` - 1 of the window, in x and y.
    """
    line = (torch.arange(2 * _TABLE * phases, dtype=torch.float64) / phases) - _TABLE
    y, x = torch.meshgrid(line, line, indexing="ij")
    turned_x, turned_y = (torch.stack([x, y], dim=-1) @ rotation(angle)).unbind(-1)
    grids = ((x, y), (turned_x, turned_y))
    sincs = [torch.sinc(u) * torch.sinc(v) for u, v in grids]
    windows = [_window(u) * _window(v) for u, v in grids]
    table = _convolved(*sincs) * _convolved(*windows)
    # f(offset - p) for windows of pixels p = 1 - reach .. reach around an offset from 0 to 1
    pixels = torch.arange(1 - _REACH, _REACH + 1)
    offsets = torch.arange(phases)
    at = (_TABLE - pixels) * phases + offsets[:, None]  # [phases, 2 reach]
    kernels = table[at[:, None, :, None], at[None, :, None, :]]  # [phases, phases, 2 r, 2 r]
    kernels = kernels / kernels.sum((2, 3), keepdim=True)
    return kernels.flatten(0, 1)


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    """Circular convolution of tables whose origin is in the middle."""
    spectra = [torch.fft.fft2(torch.fft.ifftshift(v)) for v in (a, b)]
    return torch.fft.fftshift(torch.fft.ifft2(spectra[0] * spectra[1]).real)


def _window(x: Tensor) -> Tensor:
    return torch.where(x.abs() < _A, torch.sinc(x / _A), 0)


def _lanczos_taps(fraction: float) -> Tensor:
    """Return the filter [2 a] that looks `fraction` of a pixel behind the pixel a - 1 of its window."""
    x = fraction - torch.arange(1 - _A, _A + 1, dtype=torch.float64)
    taps = torch.sinc(x) * _window(x)
    taps = torch.where(taps.abs() < 1e-12, 0, taps)
    return taps / taps.sum()
