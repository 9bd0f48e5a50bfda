"""Random weights of DINOv2."""

import numpy as np
import torch

from gan_lab.metrics.features.dinov2 import VisionTransformer


def dinov2_state(*, width=384, depth=2, hidden=96, gated=False, grid=37, seed=0):
    """Random weights in the published layout, whose activations do not vanish."""
    network = VisionTransformer(width=width, depth=depth, hidden=hidden, gated=gated, grid=grid)
    random = np.random.RandomState(seed)
    state = {}
    for name, value in network.state_dict().items():
        scale = 0.05 if value.ndim > 1 and "token" not in name and "pos" not in name else 0.5
        drawn = random.standard_normal(tuple(value.shape)) * scale
        state[name] = torch.from_numpy(drawn).float()
    return state | {"mask_token": torch.zeros(1, width)}
