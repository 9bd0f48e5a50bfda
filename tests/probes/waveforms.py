"""A generator of sound: waveforms int16 [1, T], written as .wav, with a transposed convolution in one dimension."""

import hashlib
import wave
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gan_lab.data.base import MissingSplit, SampleDataset, digest
from gan_lab.data.sample import SampleKind, SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.features import Extractor
from gan_lab.training.module import AdversarialModule

HEIGHT = 16  # pixels of a preview


class Waveform(SampleKind):
    """Sound as int16 [C, T]."""

    name = "audio"
    suffix = ".wav"
    axes = ("channels", "time")

    def __init__(self, *, rate: int) -> None:
        self.rate = rate

    @property
    def arguments(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def to_float(self, stored: Tensor) -> Tensor:
        return stored.float() / 32767

    def to_stored(self, values: Tensor) -> Tensor:
        return (values.float() * 32767).round().clamp(-32767, 32767).to(torch.int16)

    def encoded(self, stored: Tensor) -> bytes:
        content = BytesIO()
        with wave.open(content, "wb") as file:
            file.setnchannels(stored.shape[0])
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes(stored.T.contiguous().numpy().astype("<i2").tobytes())
        return content.getvalue()

    def decoded(self, data: bytes) -> Tensor:
        try:
            with wave.open(BytesIO(data), "rb") as file:
                frames, channels = file.readframes(file.getnframes()), file.getnchannels()
        except wave.Error as error:
            raise InputError(f"it is not a .wav ({error})") from error
        values = np.frombuffer(frames, dtype="<i2").astype(np.int16)
        return torch.from_numpy(values.reshape(-1, channels).T.copy())

    def preview(self, stored: Tensor) -> Tensor:
        """Draw the curve of the first channel, black on white."""
        rows = ((1 - self.to_float(stored[:, 0])) / 2 * (HEIGHT - 1)).round().long()  # [N, T]
        there = torch.arange(HEIGHT)[:, None] == rows.cpu()[:, None]  # [N, HEIGHT, T]
        return torch.where(there, 0, 255).to(torch.uint8)[:, None]


class Sines(SampleDataset):
    """Sines of random phase and loudness."""

    in_memory = True

    def __init__(
        self, *, split: str, length: int = 32, count: int = 64, flip: bool = False
    ) -> None:
        if split == "val":
            raise MissingSplit("sines are for training")
        kind = Waveform(rate=8000)
        super().__init__(
            split=split,
            spec=SampleSpec(kind=kind, shape=(1, length)),
            labels=np.zeros(count, dtype=np.int64),
            flip=flip,
        )
        drawn = torch.Generator().manual_seed(0)
        phase, loudness = torch.rand(2, count, 1, generator=drawn)
        time = torch.arange(length) / length
        waves = (0.2 + 0.7 * loudness) * torch.sin(2 * torch.pi * (2 * time + phase))
        self.waves = kind.to_stored(waves[:, None])  # [count, 1, length]

    @property
    def fingerprint(self) -> str:
        return digest("sines", self.waves.numpy().tobytes())

    def load(self, index: int) -> Tensor:
        return self.waves[index]


class Generator(GeneratorNetwork):
    """z [N, Z] -> waveforms [N, C, T]."""

    def __init__(self, *, sample_shape: Sequence[int], z_dim: int = 8, width: int = 8) -> None:
        super().__init__()
        self.z_dim, self.num_classes = z_dim, 0
        channels, length = sample_shape
        self.first = nn.Linear(z_dim, width * length // 4)
        self.width = width
        self.layers = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose1d(width, channels, 8, stride=4, padding=2), nn.Tanh()
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(self.first(z).unflatten(1, (self.width, -1)))


class Discriminator(DiscriminatorNetwork):
    """Waveforms [N, C, T] -> logits [N]."""

    def __init__(self, *, sample_shape: Sequence[int], width: int = 8) -> None:
        super().__init__()
        self.num_classes = 0
        channels, length = sample_shape
        self.layers = nn.Sequential(
            nn.Conv1d(channels, width, 8, stride=4, padding=2),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(width * length // 4, 1),
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(x).squeeze(1)


class WaveGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""


class Loudness(Extractor):
    """Root mean square and peak of a waveform."""

    name, short = "loudness", "loudness"
    transform = "int16 / 32767"
    outputs: Mapping[str, int] = {"features": 2}

    def check(self, shape: tuple[int, ...], what: str) -> None:
        if len(shape) != 2:
            raise InputError(f"{what} have the shape {list(shape)}, and loudness is of [C, T]")

    def _load(self, device: torch.device) -> str:
        return hashlib.sha256(b"loudness").hexdigest()

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        x = images.flatten(1).float() / 32767
        return {"features": torch.stack([x.square().mean(1).sqrt(), x.abs().amax(1)], dim=1)}
