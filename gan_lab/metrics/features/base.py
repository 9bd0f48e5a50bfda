"""What measuring asks of a network that makes features of images."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from gan_lab.errors import InputError

FORWARD_ON_CPU = (
    8  # images, whose activations stay in a CPU's caches (1.4 times as fast as 64, with Inception)
)

FORWARD_ON_ACCELERATOR = 64


class WeightsUnavailable(InputError):
    """The usual weights are neither on this machine nor to be had from the network."""


class Extractor(ABC):
    """Makes features of stored samples; the same ones for a sample whatever else is measured with it.

    A subclass says what it is in its attributes, builds its network in `_load` and runs it in `_forward`. One that sees
    other samples than images overrides `check`.

    Attributes:
        name: of the network and its weights, as it stands in results: "inception-v3-compat".
        short: as it stands in keys: "inception".
        outputs: width of each output that there is: {"features": 2048, "logits": 1008}. "features" is what sets are
            compared by, "logits" are of classes; both may be missing.
        transform: in words, what happens between an 8-bit image and the network.
        names: (kind of metric, output) -> what others call it, as {("frechet", "features"): "fid"}; only where the
            features are those that the name was given to.
        channels: numbers of channels that images may have. Grey ones are repeated to RGB.

    Args:
        batch_size: images of a forward pass, always that many (missing ones are made up), since sums of another
            batch round differently; None takes 64, or on a CPU 8.
        mixed_precision: whether to compute in bfloat16, which is then part of `transform`.
    """

    name: str
    short: str
    outputs: Mapping[str, int]
    transform: str
    names: Mapping[tuple[str, str], str] = {}
    channels: tuple[int, ...] = (1, 3)

    def __init__(self, *, batch_size: int | None = None, mixed_precision: bool = False) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"features.batch_size={batch_size} must be at least 1, or null")
        self._given_batch_size = batch_size
        self._mixed_precision = mixed_precision
        self._device: torch.device | None = None
        self._sha256 = ""

    @property
    def device(self) -> torch.device:
        """Where it computes; known once `load` has run."""
        assert self._device is not None, "load() comes first"
        return self._device

    @property
    def sha256(self) -> str:
        """Of the weights; known once `load` has run."""
        assert self._sha256, "load() comes first"
        return self._sha256

    @property
    def batch_size(self) -> int:
        """Images of a forward pass."""
        default = FORWARD_ON_CPU if self.device.type == "cpu" else FORWARD_ON_ACCELERATOR
        return self._given_batch_size or default

    @property
    def precision(self) -> str:
        """Of the computation: float32 or bfloat16."""
        return "bfloat16" if self._mixed_precision else "float32"

    def load(self, device: torch.device) -> None:
        """Get the weights, check them, and build the network on a device; done once, before anything expensive.

        Raises:
            WeightsUnavailable: when the weights cannot be had.
            InputError: when they are not what they should be.
        """
        if self._device != device:
            self._sha256 = self._load(device)
            self._device = device

    def prefetch(self) -> str:
        """Get the weights while the machine is online, check them, and return where they lie; "" without a file."""
        return ""

    def check(self, shape: tuple[int, ...], what: str) -> None:
        """Check that the network can see samples of a shape.

        Args:
            shape: of one stored sample.
            what: which samples, for the message.

        Raises:
            InputError: with the remedy.
        """
        if len(shape) != 3:
            raise InputError(
                f"{what} have the shape {list(shape)}: {self.name} sees images [C, H, W]; choose other features="
            )
        channels = shape[0]
        if channels in self.channels:
            return
        kind = "RGBA" if channels == 4 else f"{channels}-channel"
        raise InputError(
            f"{what} are {kind} images: {self.name} sees {' or '.join(map(str, self.channels))} channels only, and a "
            "background would have to be invented; set data.channels=3, or metrics=none"
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, outputs: Collection[str]) -> dict[str, Tensor]:
        """Return the chosen outputs, float32 [N, width] on the CPU, of stored samples [N, ...].

        Raises:
            InputError: for features that are not finite.
        """
        kept: dict[str, list[Tensor]] = {name: [] for name in outputs}
        autocast = torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self._mixed_precision
        )
        for part in images.split(self.batch_size):
            missing = self.batch_size - len(part)
            whole = (
                torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
            )
            # TensorFloat-32 moves a Frechet distance by more than tools differ
            exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=self._mixed_precision)
            with autocast, exact:
                made = self._forward(whole.to(self.device), frozenset(outputs))
            for name, values in made.items():
                if name in kept:
                    kept[name].append(values[: len(part)].float().cpu())
        found = {name: torch.cat(values) for name, values in kept.items()}
        for name, values in found.items():
            if not torch.isfinite(values).all():
                raise InputError(
                    f"{self.name} makes NaN or infinity ({name}) of some images; its weights are damaged, or "
                    "mixed_precision=true is more than it bears"
                )
        return found

    @abstractmethod
    def _load(self, device: torch.device) -> str:
        """Build the network on a device and return the SHA-256 of its weights."""

    @abstractmethod
    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        """Return at least the chosen outputs [B, width] of stored samples [B, ...], on the device."""
