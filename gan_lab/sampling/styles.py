"""Generators with styles w: where their classes lie in w, and truncation towards that."""

import torch
from torch import Tensor

from gan_lab.layers.networks import StyleGeneratorNetwork
from gan_lab.layers.stylegan import truncated
from gan_lab.sampling.latents import in_passes
from gan_lab.seeding import derive_seed

# a class's centre is the mean w of this many z, the same ones always
CENTER_LATENTS = 4096

CENTER_SEED = 0

_CENTER = 7  # stream of that seed

_BATCH = 512


class ClassCenters:
    """The mean w of each class, measured when it is asked for: of 4096 z, drawn from seed 0.

    Args:
        generator: with classes, in evaluation mode.
    """

    def __init__(self, generator: StyleGeneratorNetwork) -> None:
        self._generator = generator
        self._known: dict[int, Tensor] = {}

    def of(self, labels: Tensor) -> Tensor:
        """Return centres [N, L, D] of labels [N]; of label vectors [N, K] the sum, weighted by them."""
        if labels.ndim == 1:
            return torch.stack([self._center(int(label), labels.device) for label in labels])
        used = labels.ne(0).any(0).nonzero().flatten()
        if not len(used):
            used = used.new_zeros(1)
        centers = torch.stack([self._center(int(label), labels.device) for label in used])
        return torch.einsum("nk,kld->nld", labels[:, used].to(centers.dtype), centers)

    @torch.no_grad()
    def _center(self, label: int, device: torch.device) -> Tensor:
        """Return the centre [L, D] of a class."""
        if label not in self._known:
            draws = torch.Generator().manual_seed(derive_seed(CENTER_SEED, _CENTER))
            z = torch.randn(CENTER_LATENTS, self._generator.z_dim, generator=draws)
            total: Tensor | None = None
            for part in z.split(_BATCH):
                y = torch.full((len(part),), label, device=device)
                w = self._generator.styles(part.to(device), y, 1.0)
                summed = w.sum(0, dtype=torch.float64 if device.type != "mps" else None)
                total = summed if total is None else total + summed
            assert total is not None
            self._known[label] = (total / CENTER_LATENTS).to(w.dtype)
        return self._known[label].to(device)


def moved_styles(
    w: Tensor, centers: Tensor, psi: float, cutoff: int | None, device: torch.device
) -> Tensor:
    """Move styles w [N, L, D] towards centres [N, L, D], in passes of the one size."""
    return in_passes(
        lambda rows, towards: truncated(rows, towards, psi, cutoff), w, centers, device=device
    )
