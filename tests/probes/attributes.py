"""A generator that is given attributes: boxes of a width and a brightness, each from -1 to 1."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gan_lab.data.base import MissingSplit, SampleDataset, digest
from gan_lab.data.images import ImageKind
from gan_lab.data.sample import SampleSpec
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.features import Extractor
from gan_lab.training.module import AdversarialModule

SIDE = 8


class Boxes(SampleDataset):
    """Gray images of boxes with vectors [width, brightness] in place of a class."""

    in_memory = True

    def __init__(self, *, split: str, count: int = 96) -> None:
        if split == "val":
            raise MissingSplit("boxes are for training")
        vectors = np.random.default_rng(0).uniform(-1, 1, (count, 2)).astype(np.float32)
        spec = SampleSpec(
            kind=ImageKind(), shape=(1, SIDE, SIDE), attributes=("width", "brightness")
        )
        super().__init__(split=split, spec=spec, labels=vectors)

    @property
    def fingerprint(self) -> str:
        return digest("boxes", self.labels.tobytes())

    def load(self, index: int) -> Tensor:
        width, brightness = self.labels[index].tolist()
        image = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        image[:, 2:6, : round((width + 1) / 2 * SIDE)] = round((brightness + 1) / 2 * 255)
        return image


class Generator(GeneratorNetwork):
    """z [N, Z], vectors [N, K] -> images."""

    def __init__(self, *, sample_shape: Sequence[int], num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.z_dim, self.num_classes = 4, num_classes
        self.layers = nn.Sequential(
            nn.Linear(self.z_dim + num_classes, width),
            nn.ReLU(),
            nn.Linear(width, torch.Size(sample_shape).numel()),
            nn.Tanh(),
            nn.Unflatten(1, tuple(sample_shape)),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return self.layers(torch.cat([z, labels], dim=1))


class Discriminator(DiscriminatorNetwork):
    """Images, vectors [N, K] -> logits [N]."""

    def __init__(self, *, sample_shape: Sequence[int], num_classes: int, width: int = 16) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Linear(torch.Size(sample_shape).numel() + num_classes, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return self.layers(torch.cat([x.flatten(1), labels], dim=1)).squeeze(1)


class AttributeGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""


class Ink(Extractor):
    """Mean and deviation of an image's pixels."""

    name, short = "ink", "ink"
    transform = "uint8"
    outputs: Mapping[str, int] = {"features": 2}

    def _load(self, device: torch.device) -> str:
        return hashlib.sha256(b"ink").hexdigest()

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        x = images.flatten(1).float() / 255
        return {"features": torch.stack([x.mean(1), x.std(1)], dim=1)}
