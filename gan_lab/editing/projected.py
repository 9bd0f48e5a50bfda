"""What a projection has found."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_lab.editing.distances import mean_squared_error, psnr
from gan_lab.editing.noise import NoiseMaps
from gan_lab.editing.points import Points
from gan_lab.editing.recording import Recording
from gan_lab.images import Images
from gan_lab.sampling import Gan


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Pictures, and where a generator has them; tensors are on the CPU.

    Attributes:
        gan: that makes `images`: the given one, or the tuned one.
        targets: [N, C, H, W], as the generator makes pictures.
        images: [N, C, H, W], the nearest that were found: of `points` and, where there are such maps, `noise`.
        points: the latents.
        noise: maps that were found along with w; None where the constant noise stayed.
        plain: images [N, C, H, W] of `points` alone, with the constant noise, as all else makes them.
        before_tuning: `images` as they were before the generator was tuned, or None.
        loss: distance [N] of `images`.
        names: of the pictures.
        space: "w", "w+" or "z".
        distance: what was made small.
        why: it was that.
        steps: of each search.
        tuned: steps of the tuning.
        seconds: that it took.
        finished: False after Ctrl-C.
        recording: of the way, or None.
    """

    gan: Gan
    targets: Images
    images: Images
    points: Points
    noise: NoiseMaps | None
    plain: Images
    before_tuning: Images | None
    loss: Tensor
    names: list[str]
    space: str
    distance: str
    why: str
    steps: int
    tuned: int
    seconds: float
    finished: bool
    recording: Recording | None

    @property
    def mse(self) -> Tensor:
        """Mean squared error [N] of images in [-1, 1]."""
        return mean_squared_error(self.images, self.targets)

    def results(self) -> list[dict[str, Any]]:
        """Return the errors of each picture: `mse` and `psnr` (dB) of images in [-1, 1], `loss` the distance.

        `mse_plain` is that of the latents alone, with the constant noise.
        """
        columns = {
            "name": self.names,
            "label": None if self.points.labels is None else self.points.labels.tolist(),
            "mse": self.mse.tolist(),
            "psnr": psnr(self.mse).tolist(),
            "loss": self.loss.tolist(),
            "mse_plain": mean_squared_error(self.plain, self.targets).tolist(),
        }
        there = {name: column for name, column in columns.items() if column is not None}
        return [dict(zip(there, row, strict=True)) for row in zip(*there.values(), strict=True)]

    def _repr_png_(self) -> bytes | None:
        pairs = torch.stack([self.targets, self.images], dim=1).flatten(0, 1)
        return Images(pairs)._repr_png_()
