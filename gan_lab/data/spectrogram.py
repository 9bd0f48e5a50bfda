"""SpecGAN's representation of sound: images of log magnitudes, from which any model of images learns.

Donahue et al. 2019, https://arxiv.org/abs/1802.04208, section 3.2: magnitudes of the short-time Fourier transform,
their logarithm, each frequency standardised over the data and clipped at three deviations. Sound comes back by
estimating phases (Griffin and Lim 1984).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gan_lab.data.sample import Representation, SampleSpec
from gan_lab.errors import InputError

_SILENCE = 1e-6  # added to magnitudes before the logarithm, as in the authors' code


class Spectrogram(Representation):
    """Sound [N, C, T] as images [N, C, window / 2, T / hop] in [-1, 1]; the lowest frequency is the first row.

    The highest frequency is left out, so that the sizes are powers of two. 16,384 samples give 128x128.

    Args:
        window: of the transform, in samples; an even number.
        hop: samples from one to the next; at most half of the window, and it divides the length.
        deviations: where standardised log magnitudes are clipped.
        iterations: of Griffin and Lim's algorithm.
        momentum: of its iterations (Perraudin et al. 2013, the fast variant); 0 for the published one.

    Raises:
        InputError: for numbers that do not go together.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        window: int = 256,
        hop: int = 128,
        deviations: float = 3.0,
        iterations: int = 32,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        if window < 4 or window % 2 or not 1 <= hop <= window // 2:
            raise InputError(
                f"representation: window={window} must be even and at least 4, hop={hop} from 1 to {window // 2}"
            )
        if deviations <= 0 or iterations < 1 or not 0 <= momentum < 1:
            raise InputError(
                f"representation: deviations={deviations} must be positive, iterations={iterations} at least 1 and "
                f"momentum={momentum} from 0 to below 1"
            )
        self.window, self.hop, self.deviations = window, hop, deviations
        self.iterations, self.momentum = iterations, momentum
        self.register_buffer("mean", torch.zeros(window // 2, 1))
        self.register_buffer("std", torch.ones(window // 2, 1))
        self.register_buffer("hann", torch.hann_window(window), persistent=False)

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "hop": self.hop,
            "deviations": self.deviations,
            "iterations": self.iterations,
            "momentum": self.momentum,
        }

    def check(self, spec: SampleSpec) -> None:
        if len(spec.shape) != 2 or spec.kind.axes[-1] != "time":
            raise InputError(
                f"representation=spectrogram is of sound, and the data are {spec.kind.name}; leave it out"
            )
        if spec.shape[1] % self.hop or spec.shape[1] < self.window:
            raise InputError(
                f"representation: clips have {spec.shape[1]} samples, which must be at least window={self.window} "
                f"and a multiple of hop={self.hop}"
            )

    @torch.no_grad()
    def measure(self, samples: Iterable[Tensor]) -> None:
        """Take the mean and deviation of each frequency's log magnitudes over sounds [N, C, T]."""
        total = torch.zeros(2, self.window // 2, dtype=torch.float64)
        count = 0
        for batch in samples:
            levels = self._levels(batch).double()
            total += torch.stack([x.sum((0, 1, 3)) for x in (levels, levels.square())])
            count += levels.numel() // levels.shape[2]
        mean = total[0] / count
        variance = (total[1] / count - mean.square()).clamp_min(1e-12)
        self.mean.copy_(mean[:, None])
        self.std.copy_(variance.sqrt()[:, None])

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        channels, length = stored
        return channels, self.window // 2, length // self.hop

    def encode(self, samples: Tensor) -> Tensor:
        standardised = (self._levels(samples) - self.on(samples, "mean")) / self.on(samples, "std")
        return (standardised / self.deviations).clamp(-1, 1)

    def decode(self, values: Tensor) -> Tensor:
        """Estimate sounds [N, C, T] of images [N, C, F, T / hop]."""
        values = values.float().clamp(-1, 1)
        levels = values * self.deviations * self.on(values, "std") + self.on(values, "mean")
        magnitudes = (levels.exp() - _SILENCE).clamp_min(0).flatten(0, 1)
        # the frequency that was left out, and the last frame, of which half lies behind the end
        magnitudes = torch.nn.functional.pad(magnitudes, (0, 0, 0, 1))
        magnitudes = torch.cat([magnitudes, magnitudes[:, :, -1:] / 2], dim=2)
        sound = self._griffin_lim(magnitudes, length=values.shape[3] * self.hop)
        return sound.unflatten(0, values.shape[:2])

    def _levels(self, samples: Tensor) -> Tensor:
        """Log magnitudes [N, C, F, T / hop] of sounds [N, C, T]."""
        found = self._transform(samples.float().flatten(0, 1))[:, :-1, :-1]
        return (found.abs() + _SILENCE).log().unflatten(0, samples.shape[:2])

    def _transform(self, sound: Tensor) -> Tensor:
        return torch.stft(
            sound,
            self.window,
            self.hop,
            window=self.on(sound, "hann"),
            pad_mode="constant",
            return_complex=True,
        )

    def _griffin_lim(self, magnitudes: Tensor, *, length: int) -> Tensor:
        """Find sounds [N, T] whose transforms have these magnitudes [N, F + 1, T / hop + 1]; always the same ones."""
        source = torch.Generator().manual_seed(0)
        turns = torch.rand(magnitudes.shape[1:], generator=source).to(magnitudes) * 2 * torch.pi
        phases = torch.polar(torch.ones_like(turns), turns)
        before = torch.zeros_like(phases)
        for _ in range(self.iterations):
            sound = self._inverse(magnitudes * phases, length)
            found = self._transform(sound)
            moved = found - before * (self.momentum / (1 + self.momentum))
            phases = moved / moved.abs().clamp_min(1e-16)
            before = found
        return self._inverse(magnitudes * phases, length)

    def _inverse(self, transform: Tensor, length: int) -> Tensor:
        window = self.on(transform, "hann")
        return torch.istft(transform, self.window, self.hop, window=window, length=length)

    def on(self, values: Tensor, name: str) -> Tensor:
        """Return a buffer where values are: a generator may lie on another device than the data."""
        return getattr(self, name).to(values.device)
