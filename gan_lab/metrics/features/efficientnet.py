"""EfficientNet-lite0 trained on ImageNet: what projected GANs see with.

Tan and Le 2019, https://arxiv.org/abs/1905.11946, in the version without squeeze-and-excitation; timm's network and
weights, converted from TensorFlow's.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.metrics.features.base import (
    PublishedExtractor,
    PublishedWeights,
    no_such_weights,
    read_state,
)

WEIGHTS = PublishedWeights(
    of="EfficientNet-lite0's",
    url="https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
    "tf_efficientnet_lite0-0aa007d2.pth",
    sha256="0aa007d2",
)

SIZE = 224

# of the four maps that `stages` returns, fine to coarse: an eighth of the image, ... at 224 pixels 56, 28, 14, 7
CHANNELS = (24, 40, 112, 320)

_ENDS = (2, 3, 5, 7)  # blocks of the network that each of them ends with


class EfficientNet(nn.Module):
    """The network without its classifier.

    Raises:
        InputError: where timm is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from timm import create_model
        except ModuleNotFoundError as error:
            raise InputError(
                "EfficientNet-lite0 is timm's, which is not installed; pip install 'gan_lab[projected]'"
            ) from error
        # always the same random numbers, and none of those that training is seeded with
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            network: Any = create_model("tf_efficientnet_lite0", pretrained=False)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        starts = (0, *_ENDS[:-1])
        self.blocks = nn.ModuleList(
            network.blocks[start:end] for start, end in zip(starts, _ENDS, strict=True)
        )
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EfficientNet":
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    def load(self, path: Path) -> None:
        """Take the weights of timm's file.

        Raises:
            InputError: when the file holds something else.
        """
        state = read_state(path, WEIGHTS)
        names = {f"stem.{i}.": f"{name}." for i, name in enumerate(("conv_stem", "bn1"))}
        starts = (0, *_ENDS[:-1])
        for part, (start, end) in enumerate(zip(starts, _ENDS, strict=True)):
            names |= {f"blocks.{part}.{i}.": f"blocks.{i}." for i in range(start, end)}
        renamed = {}
        for own in self.state_dict():
            prefix = next(prefix for prefix in names if own.startswith(prefix))
            theirs = names[prefix] + own.removeprefix(prefix)
            if theirs in state:
                renamed[own] = state[theirs]
        try:
            self.load_state_dict(renamed)
        except RuntimeError as error:
            raise no_such_weights(path, WEIGHTS, str(error).splitlines()[0]) from error

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images [N, 3, H, W] in [-1, 1], as the network was trained with, to four maps, fine to coarse."""
        x = self.stem(images)
        maps = []
        for part in self.blocks:
            x = part(x)
            maps.append(x)
        return maps


class EfficientNetLite0(PublishedExtractor):
    """EfficientNet-lite0; the output `features` is the mean of its coarsest map over places.

    Args:
        weights: path of timm's file; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.
    """

    name = "efficientnet-lite0"
    short = "efficientnet_lite0"
    published = WEIGHTS
    transform = f"[-1, 1], bilinear to {SIZE}x{SIZE}"
    outputs = {"features": CHANNELS[-1]}  # noqa: RUF012

    def _load(self, device: torch.device) -> str:
        path, sha256 = self.find_weights()
        network = EfficientNet()
        network.load(path)
        self._network = network.to(device)
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        x = images.expand(-1, 3, -1, -1).float() / 127.5 - 1
        x = F.interpolate(x, size=SIZE, mode="bilinear")
        return {"features": self._network(x)[-1].mean((2, 3))}
