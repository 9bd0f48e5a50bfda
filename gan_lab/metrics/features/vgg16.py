"""VGG16 trained on ImageNet: the features of improved precision and recall.

Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556, with torchvision's weights, shown images as
torch-fidelity does (https://github.com/toshas/torch-fidelity); precision and recall: Kynkaanniemi et al. 2019,
https://arxiv.org/abs/1904.06991.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16

from gan_lab.metrics.features.base import Extractor
from gan_lab.metrics.features.weights import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PublishedWeights,
    no_such_weights,
    read_state,
    shown,
)

WEIGHTS = PublishedWeights(
    of="VGG16's",
    url=VGG16_Weights.IMAGENET1K_V1.url,
    sha256=VGG16_Weights.IMAGENET1K_V1.url.rsplit("-", 1)[1].removesuffix(".pth"),
)

_SIZE = 224


class VGG16(Extractor):
    """VGG16.

    Outputs: `features` [4096], the second fully connected layer behind its rectifier, and `features_fc2` before it.

    Args:
        weights: path of torchvision's file; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.
    """

    name = "vgg16"
    transform = f"uint8, TensorFlow 1 bilinear to {_SIZE}x{_SIZE}, ImageNet's mean and deviation"

    def __init__(
        self,
        *,
        weights: str | None = None,
        sha256: str | None = None,
        batch_size: int | None = None,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, mixed_precision=mixed_precision)
        self.short = "vgg16_bf16" if mixed_precision else "vgg16"
        self.outputs = {"features": 4096, "features_fc2": 4096}
        self._path = weights
        self._expected = sha256
        self._network: nn.Module = nn.Module()

    def prefetch(self) -> str:
        path = WEIGHTS.find(self._path)
        WEIGHTS.check(path, self._expected)
        return str(path)

    def _load(self, device: torch.device) -> str:
        path = WEIGHTS.find(self._path)
        sha256 = WEIGHTS.check(path, self._expected)
        network = read_vgg16(path)
        network.classifier = network.classifier[:4]  # type: ignore[index]
        self._network = network.to(device)
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        before = self._network(shown(images, _SIZE, IMAGENET_MEAN, IMAGENET_STD))
        return {"features_fc2": before, "features": F.relu(before)}


def read_vgg16(path: Path) -> nn.Module:
    """Build torchvision's VGG16 of a file of its weights, for evaluation.

    Raises:
        InputError: when the file holds something else.
    """
    state = read_state(path, WEIGHTS)
    with torch.device("meta"):  # half a gigabyte of random numbers would be thrown away
        network = vgg16()
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise no_such_weights(path, WEIGHTS, str(error).splitlines()[0]) from error
    return network.eval().requires_grad_(False)
