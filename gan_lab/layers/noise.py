"""Noise inputs of style generators: drawn, constant, left out, or given.

Karras et al. 2019, section 3.2, https://arxiv.org/abs/1812.04948.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gan_lab.errors import InputError

NOISE = ("random", "const", "none")
# the last: from a layer's constant noise [H, W], of which it takes shape, type and device, to noise [N, 1, H, W]
Noise = str | Callable[[Tensor], Tensor]


def check_noise(noise: Noise) -> None:
    """Refuse a kind of noise that there is not.

    Raises:
        InputError: naming those that there are.
    """
    if not callable(noise) and noise not in NOISE:
        raise InputError(f"noise={noise!r} must be one of {', '.join(NOISE)}")


def noise_of(kind: Noise, constant: Tensor, count: int) -> Tensor:
    """Return a layer's noise for `count` images, [N, 1, H, W] or, where it is constant, [H, W].

    Args:
        kind: anything but "none".
        constant: the layer's own, [H, W].
        count: N.
    """
    if callable(kind):
        return kind(constant)
    if kind == "const":
        return constant
    return torch.randn(count, 1, *constant.shape, device=constant.device, dtype=constant.dtype)
