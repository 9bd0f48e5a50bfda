"""Noise maps of style generators as unknowns of a projection, kept from carrying the picture.

Karras et al. 2020 (StyleGAN2), section 5 and appendix D, https://arxiv.org/abs/1912.04958.
"""

import torch
from torch import Tensor

from gan_lab.layers.noise import Noise
from gan_lab.models.networks import GeneratorNetwork
from gan_lab.seeding import derive_seed

_STREAM = 9  # of a seed
_SMALLEST = 8  # side to which maps are halved


class NoiseMaps:
    """Noise of every layer, a map for each image.

    Attributes:
        maps: [N, 1, H, W] by the name of the layer's buffer.

    Args:
        maps: as above.
    """

    def __init__(self, maps: dict[str, Tensor]) -> None:
        self.maps = maps

    @classmethod
    def drawn(cls, generator: GeneratorNetwork, count: int, *, seed: int) -> "NoiseMaps":
        """Draw maps from N(0, 1): the same ones for every image, so that none depends on how many there are."""
        source = torch.Generator().manual_seed(derive_seed(seed, _STREAM))
        return cls(
            {
                name: torch.randn(1, 1, *constant.shape, generator=source)
                .to(constant)
                .repeat(count, 1, 1, 1)
                for name, constant in noise_buffers(generator).items()
            }
        )

    def given_to(self, generator: GeneratorNetwork) -> Noise:
        """Return these maps as `synthesis` takes noise."""
        names = {id(constant): name for name, constant in noise_buffers(generator).items()}
        return lambda constant: self.maps[names[id(constant)]]

    def tensors(self) -> list[Tensor]:
        """Return all maps."""
        return list(self.maps.values())

    def cpu(self) -> "NoiseMaps":
        """Return them on the CPU."""
        return NoiseMaps({name: m.detach().cpu() for name, m in self.maps.items()})

    def __getitem__(self, rows: Tensor) -> "NoiseMaps":
        return NoiseMaps({name: m[rows] for name, m in self.maps.items()})

    def penalty(self) -> Tensor:
        """Return the sum of all maps' `correlation` [N]."""
        return torch.stack([correlation(m) for m in self.tensors()]).sum(0)

    @torch.no_grad()
    def normalize(self) -> None:
        """Bring every map to mean 0 and variance 1, in place."""
        for m in self.tensors():
            variance, mean = torch.var_mean(m, dim=(1, 2, 3), correction=0, keepdim=True)
            m.sub_(mean).mul_((variance + 1e-8).rsqrt())


def noise_buffers(generator: GeneratorNetwork) -> dict[str, Tensor]:
    """Return the constant noise [H, W] of every layer by its name, from the lowest resolution on."""
    return {
        name: buffer
        for name, buffer in generator.named_buffers()
        if name.rpartition(".")[2] == "noise"
    }


def correlation(noise: Tensor) -> Tensor:
    """Return how far noise maps [N, 1, H, W] resemble themselves one pixel further, [N].

    Equation of appendix D: squares of the means of n(x, y) n(x - 1, y) and of n(x, y) n(x, y - 1), wrapping at the
    edges, summed over the map and the maps that result of halving it down to 8 pixels. Halving takes means over 2x2
    pixels times 2, which keeps the variance of independent ones.
    """
    total = noise.new_zeros(len(noise))
    while True:
        for dim in (2, 3):
            total = total + (noise * noise.roll(1, dim)).mean((1, 2, 3)).square()
        height, width = noise.shape[2:]
        if min(height, width) <= _SMALLEST or height % 2 or width % 2:
            return total
        noise = 2 * torch.nn.functional.avg_pool2d(noise, 2)
