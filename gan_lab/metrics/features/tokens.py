"""The characters of text: metrics of text need no network."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.features.base import Extractor


class Tokens(Extractor):
    """Indices of characters, `tokens` [L], of stored lines of text."""

    name = "characters"
    short = "text"
    transform = "numbers of characters in the alphabet"

    def __init__(self) -> None:
        super().__init__(batch_size=512)
        self.outputs: Mapping[str, int] = {"tokens": 0}  # set by `check`

    def load(self, device: torch.device) -> None:
        # nothing is computed
        super().load(torch.device("cpu"))

    def check(self, shape: tuple[int, ...], what: str) -> None:
        if len(shape) != 1:
            raise InputError(
                f"{what} have the shape {list(shape)}, but lines of text are [length]; choose other metrics"
            )
        self.outputs = {"tokens": shape[0]}

    def _load(self, device: torch.device) -> str:
        return hashlib.sha256(self.transform.encode()).hexdigest()

    def _forward(self, stored: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return {"tokens": stored.float()}
