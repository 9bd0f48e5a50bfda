"""How latents become images, besides generator and label: truncation, noise inputs, motion of the image plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, isfinite, radians, sin

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.layers.stylegan import NOISE, check_noise
from gan_lab.sampling.latents import Number
from gan_lab.seeding import derive_seed

CENTERS = ("mean", "class")

_NOISE = 8  # stream of a seed


@dataclass(frozen=True)
class Rendering:
    """How latents become images.

    Attributes:
        truncation: psi of generators with styles, threshold of z of others; None for neither.
        center: what psi moves w towards: the "mean" of all images, or that of the image's "class".
        noise: of StyleGAN and StyleGAN2: "const" takes the stored one, "none" leaves it out, "random" draws it for each
            image from its seed.
        translate: (x, y), by which shares of its sides StyleGAN3 moves an image to the right and down.
        rotate: degrees by which StyleGAN3 turns an image counter-clockwise around its middle, before it is moved.
    """

    truncation: float | None = None
    center: str = "mean"
    noise: str = "const"
    translate: tuple[float, float] = (0.0, 0.0)
    rotate: float = 0.0

    @property
    def psi(self) -> float:
        """Truncation of styles."""
        return 1.0 if self.truncation is None else self.truncation

    def transform(self) -> Tensor | None:
        """Return where in the unmoved image the moved one looks, [3, 3]; None where nothing moves."""
        if not any(self.translate) and not self.rotate:
            return None
        return look_up(self.translate, self.rotate)


def look_up(translate: tuple[float, float], rotate: float) -> Tensor:
    """Return the transform [3, 3], float64, that a picture moved like this looks through.

    Positions (x, y) are in shares of the side from the middle, y down. What is at p moves to R p + t, so at p there is
    what was at R^-1 (p - t).
    """
    angle = radians(rotate)
    # with y down, this turns clockwise: the inverse of counter-clockwise
    back = torch.tensor([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]], dtype=torch.float64)
    found = torch.eye(3, dtype=torch.float64)
    found[:2, :2] = back
    found[:2, 2] = -back @ torch.tensor(translate, dtype=torch.float64)
    return found


def noise_seeds(drawn: Sequence[Number]) -> Tensor:
    """Return seeds int64 [N] of images' noise."""
    # without the lowest bit they fit into int64
    return torch.tensor([derive_seed(seed, index, _NOISE) >> 1 for seed, index in drawn])


class ImageNoise:
    """Noise of each image, from a generator of its own: the same one in any batch, on any device.

    Args:
        seeds: `noise_seeds` of the images.
    """

    def __init__(self, seeds: Tensor) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]

    def __call__(self, constant: Tensor) -> Tensor:
        """Return noise [N, 1, H, W] for the next layer, whose constant noise is [H, W]."""
        drawn = [torch.randn(1, *constant.shape, generator=one) for one in self._generators]
        return torch.stack(drawn).to(constant)


def kind_of(generator: GeneratorNetwork) -> str:
    """Return what a user calls a generator's architecture."""
    return type(generator).__module__.rpartition(".")[2]


def check_rendering(generator: GeneratorNetwork, rendering: Rendering, *, styles: bool) -> None:
    """Refuse what means nothing to a generator.

    Args:
        generator: to be drawn from.
        rendering: as asked for.
        styles: whether the generator has styles.

    Raises:
        InputError: with the reason.
    """
    kind = kind_of(generator)
    check_truncation(generator, rendering.truncation, styles=styles)
    if rendering.center not in CENTERS:
        raise InputError(f"center={rendering.center!r} must be one of {', '.join(CENTERS)}")
    if rendering.center == "class":
        if not styles:
            raise InputError(
                f"center=class moves styles towards their class's mean, and {kind} has no styles; leave it out"
            )
        if not generator.num_classes:
            raise InputError("center=class: the model has no classes; leave it out")
    check_noise_mode(generator, rendering.noise)
    check_motion(kind, generator.supports_transform, rendering.translate, rendering.rotate)


def check_noise_mode(generator: GeneratorNetwork, noise: str) -> None:
    """Refuse noise that a generator has not.

    Raises:
        InputError: naming what there is.
    """
    check_noise(noise)
    if noise != "const" and not generator.has_noise_inputs:
        raise InputError(
            f"noise={noise}: {kind_of(generator)} has no noise inputs ({', '.join(NOISE)} are for stylegan and "
            "stylegan2); leave it out"
        )


def check_motion(kind: str, supports_transform: bool, translate: object, rotate: object) -> None:
    """Refuse motions that are none, or that a generator cannot do.

    Raises:
        InputError: with the reason.
    """
    pair = list(translate) if isinstance(translate, Sequence) else []
    if len(pair) != 2 or not all(is_finite_number(value) for value in pair):
        raise InputError(
            f"translate={translate!r} must be two numbers, [x, y] in shares of the image's side"
        )
    if not is_finite_number(rotate):
        raise InputError(f"rotate={rotate!r} must be a number of degrees")
    if (any(pair) or rotate) and not supports_transform:
        raise InputError(
            f"translate and rotate move the input of stylegan3's layers, and {kind} has none; leave them out"
        )


def is_finite_number(value: object) -> bool:
    """Whether a value is a finite number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def check_truncation(
    generator: GeneratorNetwork, truncation: float | None, *, styles: bool
) -> None:
    """Refuse a truncation that means nothing to a generator.

    Raises:
        InputError: with the reason.
    """
    if truncation is None:
        return
    kind = kind_of(generator)
    if isinstance(truncation, bool) or not isinstance(truncation, int | float):
        raise InputError(f"truncation={truncation!r} must be a number, or null for none")
    if not isfinite(truncation):
        raise InputError(f"truncation={truncation} must be finite, or null for none")
    if styles:
        return
    if not generator.supports_z_truncation:
        raise InputError(
            f"truncation={truncation} means nothing to {kind}, which scales every z to one length; leave it out"
        )
    if truncation <= 0:
        raise InputError(
            f"truncation={truncation}: of {kind} it is the threshold beyond which components of z are drawn again; "
            "give a positive number, such as 0.5"
        )
