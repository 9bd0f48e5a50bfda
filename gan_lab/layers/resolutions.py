"""Resolutions of a network: image sizes, progressive growing, and resampling by 2."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from gan_lab.errors import InputError
from gan_lab.layers.convolutions import Convolution, Geometry, Pair

ImageSize = int | Sequence[int]


def image_shape(image_size: ImageSize) -> tuple[int, int]:
    """Return (height, width) from one number or a pair.

    Raises:
        InputError: when it is not one positive number or two.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"image_size={image_size} must be one positive number or [height, width]")
    return int(sides[0]), int(sides[1])


def resolution_pyramid(image_size: ImageSize, *, base: int = 4) -> tuple[tuple[int, int], int]:
    """Halve an image size until its shorter side is less than twice `base`.

    Args:
        image_size: side, or [height, width].
        base: smallest side that the network starts from.

    Returns:
        (height, width) of the smallest resolution and the number of halvings down to it.

    Raises:
        InputError: when a side becomes odd too early, or the image is smaller than `base`.
    """
    height, width = image_shape(image_size)
    count = 0
    while min(height, width) >= 2 * base and height % 2 == width % 2 == 0:
        height, width, count = height // 2, width // 2, count + 1
    if not base <= min(height, width) < 2 * base:
        raise InputError(_explain(image_size, base))
    return (height, width), count


def _explain(image_size: ImageSize, base: int) -> str:
    short = min(image_shape(image_size))
    sizes = sorted(start << count for start in range(base, 2 * base) for count in range(11))
    below = max((s for s in sizes if s <= short), default=sizes[0])
    above = min((s for s in sizes if s >= short), default=sizes[-1])
    near = " or ".join(str(s) for s in sorted({below, above}))
    return (
        f"image_size={image_size}: both sides must be halved evenly until the shorter one is {base} to "
        f"{2 * base - 1} pixels; set data.image_size={near}"
    )


# Progressive growing: the resolutions in use as a function of the real images shown.
#
# Karras et al. 2018, section 2 and appendix A, https://arxiv.org/abs/1710.10196. Resolutions are counted in levels, 0
# for the lowest. A stage is a number of levels: at 2 the networks work at level 2; at 2.3 they work at level 3, whose
# output is blended with weight 0.3, and that of level 2 with 0.7.


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Schedule of progressive growing: a stable phase at `first`, then for each level a fade-in and a stable phase.

    Attributes:
        first: the initial level.
        last: the level of the full resolution.
        fade_kimg: thousands of real images over which a level is faded in.
        stable_kimg: thousands of real images between two fades.
    """

    first: int
    last: int
    fade_kimg: float
    stable_kimg: float

    def __post_init__(self) -> None:
        if min(self.fade_kimg, self.stable_kimg) < 0 or self.fade_kimg + self.stable_kimg < 0.001:
            raise InputError(
                f"fade_kimg={self.fade_kimg} and stable_kimg={self.stable_kimg} must not be negative, nor both 0; "
                "growing=false trains at full resolution from the start"
            )

    def stage(self, kimg: float) -> float:
        """Return the stage after `kimg` thousand real images."""
        # in whole images, since 4.8 // 1.6 is 2
        stable, fade = round(self.stable_kimg * 1000), round(self.fade_kimg * 1000)
        done, into = divmod(round(kimg * 1000), stable + fade)
        fading = max(into - stable, 0) / fade if fade else 0
        return float(min(self.first + done + fading, self.last))

    @property
    def end_kimg(self) -> float:
        """Thousands of real images after which the full resolution is reached."""
        return (self.last - self.first) * (self.stable_kimg + self.fade_kimg)


class GrowthStage(nn.Module):
    """Growth stage of a network: a Python number, which needs no synchronization, saved with the weights.

    Attributes:
        value: the stage.

    Args:
        first: the initial stage.
        last: the highest stage.
    """

    def __init__(self, *, first: int, last: int) -> None:
        super().__init__()
        self.last = last
        self.value = float(first)

    @property
    def level(self) -> int:
        """The highest level in use."""
        return ceil(self.value)

    @property
    def fade(self) -> float:
        """Blending weight of the highest level in use, in (0, 1]."""
        return 1 + self.value - self.level

    def get_extra_state(self) -> Tensor:
        """Return the stage for the state dict."""
        return torch.tensor(self.value, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Set the stage from a state dict, at most the last (a larger network may have more)."""
        self.value = min(float(state), float(self.last))


def grows(network: nn.Module) -> bool:
    """Whether a network has levels that are not in use yet."""
    return any(isinstance(m, GrowthStage) and m.value < m.last for m in network.modules())


def first_level(shape: tuple[int, int], levels: int, start_size: int) -> int:
    """Return the lowest level at which the shorter side has `start_size` pixels, or else the last.

    Args:
        shape: height and width at level 0.
        levels: the last level.
        start_size: pixels.

    Raises:
        InputError: when it is not positive.
    """
    if start_size < 1:
        raise InputError(f"start_size={start_size} must be a positive number of pixels")
    return next((i for i in range(levels) if min(shape) << i >= start_size), levels)


def upsample_nearest(images: Tensor, factor: int = 2) -> Tensor:
    """Repeat every pixel of images [N, C, H, W] `factor` times in both directions."""
    return images if factor == 1 else interpolate(images, scale_factor=factor, mode="nearest")


def avg_pool(images: Tensor, factor: int = 2) -> Tensor:
    """Average blocks of `factor` times `factor` pixels of images [N, C, H, W]."""
    return images if factor == 1 else avg_pool2d(images, factor)


def resized(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize images [N, C, H, W] by a power of two, by nearest upsampling or average pooling.

    Raises:
        ValueError: when the sizes are not whole multiples of each other.
    """
    height, width = images.shape[2:]
    up, down = max(shape[0] // height, 1), max(height // shape[0], 1)
    if (height * up, width * up) != (shape[0] * down, shape[1] * down):
        raise ValueError(
            f"images of {height} x {width} do not become {shape[0]} x {shape[1]} by doubling"
        )
    return avg_pool(upsample_nearest(images, up), down)


def resize_to_stage(images: Tensor, stage: GrowthStage, shape: tuple[int, int]) -> Tensor:
    """Downsample real images [N, C, H, W] to the resolution of a stage, blended with the next lower one as in D.

    Args:
        images: at full size.
        stage: of the networks.
        shape: height and width at level 0.
    """
    images = resized(images, (shape[0] << stage.level, shape[1] << stage.level))
    if stage.fade == 1:
        return images
    return torch.lerp(upsample_nearest(avg_pool(images)), images, stage.fade)


# Up- and downsampling by 2 with a low-pass filter, as depthwise convolutions.
#
# Zhang 2019, https://arxiv.org/abs/1904.11486; Karras et al. 2019, appendix C: the filter is [1, 2, 1] there and
# [1, 3, 3, 1], which suits even strides, since Karras et al. 2020, https://arxiv.org/abs/1912.04958.
#
# Pixels outside the image count as 0. Everything here is linear in the image and differentiable any number of times.


BINOMIAL = (1.0, 3.0, 3.0, 1.0)


def fir_filter(taps: Sequence[float] = BINOMIAL) -> Tensor:
    """Return a low-pass filter [T, T]: the outer product of `taps` with themselves, normalized to sum 1.

    Args:
        taps: an even number of taps, symmetric.
    """
    line = torch.tensor(taps)
    assert len(taps) % 2 == 0
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


def convolve(x: Tensor, kernel: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Tensor:
    """Correlate every channel of [N, C, H, W] with `kernel` [K, L]; the stride must divide the size evenly."""
    return filtered(x, kernel, Geometry(stride, padding))


def convolve_transposed(
    x: Tensor, kernel: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0)
) -> Tensor:
    """Apply the adjoint of `convolve`, a transposed convolution."""
    return filtered(x, kernel, Geometry(stride, padding, transposed=True))


def filtered(x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    """Apply a `Convolution`; in compiled code, which is not differentiated twice, its plain operations."""
    weight = kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)
    geometry = geometry._replace(groups=x.shape[1])
    if torch.compiler.is_compiling():
        return Convolution.forward(x, weight, geometry)
    convolved: Tensor = Convolution.apply(x, weight, geometry)
    return convolved


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Upsample [N, C, H, W] to [N, C, 2H, 2W]: insert zeros, then apply the filter times 4."""
    margin = len(kernel) // 2 - 1
    return convolve_transposed(x, kernel * 4, stride=(2, 2), padding=(margin, margin))


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Downsample [N, C, H, W] to [N, C, H / 2, W / 2]: apply the filter, then take every other pixel."""
    margin = len(kernel) // 2 - 1
    return convolve(x, kernel, stride=(2, 2), padding=(margin, margin))


def smooth(x: Tensor, kernel: Tensor, *, grow: int) -> Tensor:
    """Apply the filter: [N, C, H, W] -> [N, C, H + grow, W + grow], with `grow` 1 or -1.

    Growing by one goes before a 3x3 convolution of stride 2, shrinking by one after a transposed one.
    """
    margin = (len(kernel) - 1 + grow) // 2
    return convolve(x, kernel, padding=(margin, margin))
