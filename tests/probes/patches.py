"""A discriminator of patches and, from real images alone, learns to reconstruct them as well."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
)
from gan_lab.metrics.features import Extractor
from gan_lab.training.module import AdversarialModule


class Generator(GeneratorNetwork):
    """z -> images [N, C, 8, 8]."""

    def __init__(self, *, channels: int, image_size: Sequence[int], width: int = 8) -> None:
        super().__init__()
        self.z_dim, self.num_classes = 8, 0
        height, width_px = image_size
        self.layers = nn.Sequential(
            nn.Linear(self.z_dim, width * height * width_px // 4),
            nn.ReLU(),
            nn.Unflatten(1, (width, height // 2, width_px // 2)),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(z)


class Discriminator(DiscriminatorNetwork):
    """Images [N, C, H, W] -> logits [N, K] of K patches; for real images also the error of a reconstruction."""

    def __init__(self, *, channels: int, width: int = 8) -> None:
        super().__init__()
        self.num_classes = 0
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)
        )
        self.head = nn.Conv2d(width, 1, 1)
        self.decoder = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.head(self.features(x)).flatten(1)

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        assert isinstance(x, Tensor)
        features = self.features(x)
        logits = self.head(features).flatten(1)  # [N, K]
        if role != "real":
            return DiscriminatorOutput(logits)
        rebuilt = interpolate(self.decoder(features), x.shape[2:])
        error = (rebuilt - x).square().flatten(1).mean(1)  # [N]
        return DiscriminatorOutput(logits, losses={"reconstruction": error})


class PatchGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""


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
