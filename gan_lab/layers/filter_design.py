"""Low-pass filters from a specification: Kaiser windows of a sinc, or of a jinc for radial symmetry.

Karras et al. 2021, appendix C, https://arxiv.org/abs/2106.12423; Kaiser 1974 for the window. Frequencies are in cycles
per image, lengths in taps.
"""

import math

import torch
from torch import Tensor


def lowpass(
    *, num_taps: int, cutoff: float, width: float, rate: float, radial: bool = False
) -> Tensor:
    """Design a filter with unit gain at frequency 0.

    Args:
        num_taps: length.
        cutoff: frequency at which the amplitude is one half.
        width: of the transition band.
        rate: sampling rate.
        radial: whether to return a filter that is the same in all directions.

    Returns:
        [T] for a separable filter, [T, T] for a radial one, in float64. One tap is the identity.
    """
    if num_taps == 1:
        return torch.ones((1, 1) if radial else 1, dtype=torch.float64)
    window = kaiser_window(num_taps, width=width, rate=rate)
    t = (torch.arange(num_taps, dtype=torch.float64) - (num_taps - 1) / 2) / rate
    if radial:
        # no tap lies at the centre, where the jinc would be 0 / 0, as the number of taps is even
        assert num_taps % 2 == 0
        r = torch.hypot(t[:, None], t[None, :])
        ideal = torch.special.bessel_j1(2 * math.pi * cutoff * r) / r
        taps = ideal * torch.outer(window, window)
    else:
        taps = torch.sinc(2 * cutoff * t) * window
    return taps / taps.sum()


def kaiser_window(num_taps: int, *, width: float, rate: float) -> Tensor:
    """Return the window [T] whose sinc has a transition band of `width` at sampling rate `rate`."""
    attenuation = 2.285 * math.pi * (num_taps - 1) * width / (rate / 2) + 7.95  # dB
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    x = torch.linspace(-1, 1, num_taps, dtype=torch.float64)
    argument = beta * (1 - x.square()).clamp(min=0).sqrt()
    return torch.special.i0(argument) / torch.special.i0(torch.tensor(beta, dtype=torch.float64))
