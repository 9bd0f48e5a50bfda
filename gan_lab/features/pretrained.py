"""What networks share that see images as torch-fidelity shows them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x,
)

from gan_lab.errors import InputError
from gan_lab.features.weights import PublishedWeights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def shown(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize as TensorFlow 1 did (bilinear, without antialiasing), then normalise.

    Args:
        images: uint8 [N, 1 or 3, H, W]; grey ones are repeated.
        size: side of the result.
        mean: of each channel, in [0, 1].
        std: of each channel.

    Returns:
        float32 [N, 3, size, size].
    """
    with torch.autocast(images.device.type, enabled=False):
        x = interpolate_bilinear_2d_like_tensorflow1x(
            images.expand(-1, 3, -1, -1).float(), size=(size, size), align_corners=False
        )
        middle, spread = (x.new_tensor(values)[:, None, None] * 255 for values in (mean, std))
        return (x - middle) / spread


def read_state(path: Path, weights: PublishedWeights) -> dict[str, Tensor]:
    """Read a state dict; nothing else in the file is run.

    Raises:
        InputError: when the file holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if all(isinstance(value, Tensor) for value in state.values()):
            return dict(state)
        reason = "it holds more than tensors"
    except Exception as error:  # whatever a file that is something else makes torch raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise no_such_weights(path, weights, reason)


def no_such_weights(path: Path, weights: PublishedWeights, reason: str) -> InputError:
    """Return the error for a file that holds something else, with the remedy."""
    return InputError(
        f"{path} does not hold {weights.of} weights ({reason}); features.weights takes {weights.file_name} from "
        f"{weights.url}"
    )
