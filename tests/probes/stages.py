"""A generator with two stages: images of half the size, and whole ones; D sees both."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from gan_lab.data.sample import Batch
from gan_lab.layers.networks import DiscriminatorInput, DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.features import Extractor
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """z -> (images of half the size, images)."""

    def __init__(self, *, channels: int, image_size: Sequence[int], width: int = 8) -> None:
        super().__init__()
        self.z_dim, self.num_classes = 8, 0
        height, width_px = (side // 2 for side in image_size)
        self.first = nn.Sequential(
            nn.Linear(self.z_dim, width * height * width_px),
            nn.ReLU(),
            nn.Unflatten(1, (width, height, width_px)),
        )
        self.small = nn.Conv2d(width, channels, 3, padding=1)
        self.large = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.first(z)
        return self.small(x).tanh(), self.large(x).tanh()


class Discriminator(DiscriminatorNetwork):
    """(images of half the size, images) -> logits [N, 2], one a stage."""

    def __init__(self, *, sample_shape: Sequence[int], width: int = 8) -> None:
        super().__init__()
        self.num_classes = 0
        size = torch.Size(sample_shape).numel()
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Flatten(), nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
            )
            for inputs in (size // 4, size)
        )

    def forward(self, x: tuple[Tensor, ...], labels: Tensor | None = None) -> Tensor:
        return torch.cat([stage(part) for stage, part in zip(self.stages, x, strict=True)], dim=1)


class StageGAN(AdversarialModule):
    """D sees real images at the sizes of the generator's stages."""

    def real(self, batch: Batch) -> DiscriminatorInput:
        return avg_pool2d(batch.real, 2), batch.real


class Brightness(Extractor):
    """Mean and deviation of an image's pixels."""

    name, short = "brightness", "brightness"
    transform = "uint8"
    outputs: Mapping[str, int] = {"features": 2}

    def _load(self, device: torch.device) -> str:
        return hashlib.sha256(b"brightness").hexdigest()

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        x = images.flatten(1).float() / 255
        return {"features": torch.stack([x.mean(1), x.std(1)], dim=1)}
