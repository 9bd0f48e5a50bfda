"""Paired images: outlines are translated to filled boxes, by a GAN with an L1 term (pix2pix, arXiv:1611.07004)."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gan_lab.data.base import MissingSplit, SampleDataset, digest
from gan_lab.data.images import ImageKind
from gan_lab.data.sample import Batch, SampleSpec
from gan_lab.layers.networks import DiscriminatorInput, DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.features import Extractor
from gan_lab.training.module import AdversarialModule
from gan_lab.training.steps import GeneratorStep

SIDE = 8


class Outlines(SampleDataset):
    """Filled boxes with their outlines as sources."""

    in_memory = True

    def __init__(self, *, split: str, count: int = 96) -> None:
        if split == "val":
            raise MissingSplit("outlines are for training")
        image = SampleSpec(kind=ImageKind(), shape=(1, SIDE, SIDE))
        spec = SampleSpec(kind=ImageKind(), shape=(1, SIDE, SIDE), source=image)
        super().__init__(split=split, spec=spec, labels=np.zeros(count, dtype=np.int64))
        self.corners = np.random.default_rng(0).integers(0, SIDE - 3, (count, 2))

    @property
    def fingerprint(self) -> str:
        return digest("outlines", self.corners.tobytes())

    def load(self, index: int) -> Tensor:
        top, left = self.corners[index]
        image = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        image[:, top : top + 4, left : left + 4] = 255
        return image

    def load_source(self, index: int) -> Tensor:
        image = self.load(index)
        top, left = self.corners[index]
        image[:, top + 1 : top + 3, left + 1 : left + 3] = 0
        return image


class Generator(GeneratorNetwork):
    """z [N, Z] and sources [N, C, H, W] -> images [N, C, H, W]."""

    translates = True

    def __init__(
        self, *, sample_shape: Sequence[int], source_shape: Sequence[int], width: int = 8
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes = 2, 0
        self.layers = nn.Sequential(
            nn.Conv2d(source_shape[0] + self.z_dim, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, sample_shape[0], 3, padding=1),
            nn.Tanh(),
        )

    def forward(
        self, z: Tensor, labels: Tensor | None = None, source: Tensor | None = None
    ) -> Tensor:
        assert source is not None
        planes = z[:, :, None, None].expand(-1, -1, *source.shape[2:])
        return self.layers(torch.cat([source, planes], dim=1))


class Discriminator(DiscriminatorNetwork):
    """(sources, images) -> logits [N, K] of patches."""

    def __init__(
        self, *, sample_shape: Sequence[int], source_shape: Sequence[int], width: int = 8
    ) -> None:
        super().__init__()
        self.num_classes = 0
        self.layers = nn.Sequential(
            nn.Conv2d(source_shape[0] + sample_shape[0], width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 1, 1),
            nn.Flatten(),
        )

    def forward(self, x: tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:
        return self.layers(torch.cat(x, dim=1))


class PairGAN(AdversarialModule):
    """D sees sources beside images; G's loss has an L1 term."""

    l1_weight = 10.0

    def fake(self, z: Tensor, batch: Batch) -> DiscriminatorInput:
        assert batch.source is not None
        return batch.source, self.generator(z, batch.labels, batch.source)

    def real(self, batch: Batch) -> DiscriminatorInput:
        assert batch.source is not None
        return batch.source, batch.real

    def generator_loss(
        self, step: GeneratorStep, fake_logits: Tensor, real_logits: Tensor | None
    ) -> Tensor:
        losses = super().generator_loss(step, fake_logits, real_logits)
        l1 = (step.fake[1] - step.batch.real).abs().flatten(1).mean(1)  # [N], equation 3
        self.stats.add("loss/g_l1", l1)
        return losses + self.l1_weight * l1


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
