"""A generator of words: one-hot letters [V, L], written as .txt; networks see probabilities of letters."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gan_lab.data.base import MissingSplit, SampleDataset, digest
from gan_lab.data.sample import SampleKind, SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.features import Extractor
from gan_lab.training.module import AdversarialModule


class Letters1Hot(SampleKind):
    """Text of a fixed length as one-hot letters, uint8 [V, L]."""

    name = "text"
    suffix = ".txt"
    axes = ("letters", "length")

    def __init__(self, *, vocabulary: str) -> None:
        self.vocabulary = vocabulary

    @property
    def arguments(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary}

    def to_float(self, stored: Tensor) -> Tensor:
        return stored.float()

    def to_stored(self, values: Tensor) -> Tensor:
        letters = values.argmax(1)  # [N, L]
        return one_hot(letters, len(self.vocabulary)).transpose(1, 2).to(torch.uint8)

    def encode(self, text: str) -> Tensor:
        """Return the stored sample [V, L] of a text."""
        letters = torch.tensor([self.vocabulary.index(letter) for letter in text])
        return one_hot(letters, len(self.vocabulary)).T.to(torch.uint8)

    def text(self, stored: Tensor) -> str:
        """Return the text of one stored sample."""
        return "".join(self.vocabulary[i] for i in stored.argmax(0).tolist())

    def encoded(self, stored: Tensor) -> bytes:
        return f"{self.text(stored)}\n".encode()

    def decoded(self, data: bytes) -> Tensor:
        text = data.decode().strip()
        if wrong := set(text) - set(self.vocabulary):
            raise InputError(f"it has the letter {wrong.pop()!r}; there are {self.vocabulary}")
        return self.encode(text)

    def preview(self, stored: Tensor) -> Tensor:
        """Draw the letters as dots, a row for each of the vocabulary."""
        return (255 * (1 - stored))[:, None].to(torch.uint8)


class Words(SampleDataset):
    """Words that alternate between consonants and vowels."""

    in_memory = True

    def __init__(self, *, split: str, length: int = 6, count: int = 64) -> None:
        if split == "val":
            raise MissingSplit("words are for training")
        kind = Letters1Hot(vocabulary="abeilmnt")
        super().__init__(
            split=split,
            spec=SampleSpec(kind=kind, shape=(len(kind.vocabulary), length)),
            labels=np.zeros(count, dtype=np.int64),
        )
        drawn = np.random.default_rng(0)
        self.words = [
            "".join(drawn.choice(list("aei" if i % 2 else "blmnt")) for i in range(length))
            for _ in range(count)
        ]
        self._stored = torch.stack([kind.encode(word) for word in self.words])

    @property
    def fingerprint(self) -> str:
        return digest("words", *self.words)

    def load(self, index: int) -> Tensor:
        return self._stored[index]


class Generator(GeneratorNetwork):
    """z [N, Z] -> probabilities of letters [N, V, L]."""

    def __init__(self, *, sample_shape: Sequence[int], width: int = 16) -> None:
        super().__init__()
        self.z_dim, self.num_classes = 8, 0
        letters, length = sample_shape
        self.layers = nn.Sequential(
            nn.Linear(self.z_dim, width),
            nn.ReLU(),
            nn.Linear(width, letters * length),
            nn.Unflatten(1, (letters, length)),
            nn.Softmax(dim=1),
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(z)


class Discriminator(DiscriminatorNetwork):
    """Probabilities of letters [N, V, L] -> logits [N]."""

    def __init__(self, *, sample_shape: Sequence[int], width: int = 16) -> None:
        super().__init__()
        self.num_classes = 0
        letters, length = sample_shape
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(letters * length, width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(x).squeeze(1)


class WordGAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""


class Letters(Extractor):
    """How often the first two letters of the vocabulary stand in a word."""

    name, short = "letters", "letters"
    transform = "one-hot"
    outputs: Mapping[str, int] = {"features": 2}

    def check(self, shape: tuple[int, ...], what: str) -> None:
        if len(shape) != 2:
            raise InputError(f"{what} have the shape {list(shape)}, and letters are [V, L]")

    def _load(self, device: torch.device) -> str:
        return hashlib.sha256(b"letters").hexdigest()

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return {"features": images[:, :2].float().mean(2)}
