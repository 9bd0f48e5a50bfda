"""Files of random weights in published layouts, small on disk however large the network."""

from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models import vgg16

from gan_lab.metrics.features.dinov2 import VisionTransformer


def overlapping(shape: tuple[int, ...], *, scale: float, seed: int) -> Tensor:
    """A random matrix of full rank whose rows share their numbers."""
    rows, columns = shape[0], prod(shape[1:])
    numbers = torch.randn(rows * 7 + columns, generator=torch.Generator().manual_seed(seed))
    return (scale * numbers).as_strided((rows, columns), (7, 1)).unflatten(1, shape[1:])


def save_vgg16(path: Path) -> Path:
    """Write torchvision's VGG16 whose activations neither vanish nor explode."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in vgg16().state_dict().items()}
    state = {
        name: overlapping(shape, scale=(2 / prod(shape[1:])) ** 0.5, seed=i)
        if len(shape) > 1
        else torch.rand(shape, generator=torch.Generator().manual_seed(i)) / 10
        for i, (name, shape) in enumerate(shapes.items())
    }
    torch.save(state, path)
    assert path.stat().st_size < 2e6
    return path


def dinov2_state(
    *,
    width: int = 384,
    depth: int = 2,
    hidden: int = 96,
    gated: bool = False,
    grid: int = 37,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random weights in the published layout, whose activations do not vanish."""
    network = VisionTransformer(width=width, depth=depth, hidden=hidden, gated=gated, grid=grid)
    random = np.random.RandomState(seed)
    state = {}
    for name, value in network.state_dict().items():
        scale = 0.05 if value.ndim > 1 and "token" not in name and "pos" not in name else 0.5
        drawn = random.standard_normal(tuple(value.shape)) * scale
        state[name] = torch.from_numpy(drawn).float()
    return state | {"mask_token": torch.zeros(1, width)}
