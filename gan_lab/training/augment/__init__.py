"""Augmentations of real and fake images before the discriminator."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorInput, map_samples


class Augmentation(nn.Module):
    """Base class: `forward(images [N, C, H, W]) -> images` of the same shape, differentiable twice.

    A module, so that its state (an adaptive probability) is saved with the run. Randomness comes from torch's generator
    of the images' device, which the loop seeds at each step. Its float attributes can be scheduled by name
    (`model.schedules.ada.p`).
    """

    def check(self, spec: SampleSpec) -> None:
        """Check that samples are supported; override for samples other than images.

        Raises:
            InputError: for samples that networks do not see as images.
        """
        if len(spec.encoded_shape) != 3:
            raise InputError(
                f"{type(self).__name__} augments images [C, H, W], but networks see {spec.kind.name} as "
                f"{list(spec.encoded_shape)}; set augment=[]"
            )

    def observe(self, real_logits: Tensor) -> None:
        """Observe D's logits [n] or [n, K] for a micro-batch of augmented real images, detached."""

    def adapt(self, images: int) -> None:
        """Adapt to the observed logits; `images` counts this D step's real images over all ranks."""

    def metrics(self) -> Mapping[str, Tensor]:
        """State to log, scalars on its device; the key becomes `augment/<name>_<key>`."""
        return {}

    def strengthen(self) -> None:
        """Apply every operation at full strength from now on, for benchmarks."""


class Augmentations(nn.ModuleDict):
    """Augmentations by name, applied in their order."""

    def __init__(self, augmentations: Mapping[str, Augmentation]) -> None:
        super().__init__(dict(augmentations))

    def forward(self, x: DiscriminatorInput) -> DiscriminatorInput:
        """Augment samples; of a tuple each tensor separately, but not vectors [N, Z]."""
        for augmentation in self.values():
            x = map_samples(augmentation, x)
        return x

    def observe(self, real_logits: Tensor) -> None:
        """Pass D's logits for real samples to all."""
        for augmentation in self.values():
            augmentation.observe(real_logits.detach())  # type: ignore[operator]

    def strengthen(self) -> None:
        """Apply every operation of all at full strength, for benchmarks."""
        for augmentation in self.values():
            augmentation.strengthen()  # type: ignore[operator]

    def adapt(self, images: int) -> dict[str, Tensor]:
        """Adapt all augmentations; return metrics to log."""
        logged: dict[str, Tensor] = {}
        for name, augmentation in self.items():
            augmentation.adapt(images)  # type: ignore[operator]
            metrics = augmentation.metrics()  # type: ignore[operator]
            logged |= {f"augment/{name}_{key}": value for key, value in metrics.items()}
        return logged


# Random parameters of operations for a batch.


class Draws:
    """Draws random parameters for a batch, one number per image, from torch's generator of its device.

    Args:
        images: the batch [N, C, H, W].
        p: probability of every operation, a 0-dim tensor on their device.
        strengths: operation -> multiplier of its probability; those left out are at 0.
    """

    def __init__(self, images: Tensor, p: Tensor, strengths: Mapping[str, float]) -> None:
        self.count, self.device, self.dtype = len(images), images.device, images.dtype
        self.p = p
        self._strengths = strengths

    def includes(self, *operations: str) -> bool:
        """Whether any of the operations has a positive probability."""
        return any(self._strengths.get(operation, 0) > 0 for operation in operations)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw [N] from U(low, high)."""
        return (torch.rand(self.count, device=self.device) * (high - low) + low).to(self.dtype)

    def normal(self, std: float) -> Tensor:
        """Draw [N] from N(0, std^2)."""
        return (torch.randn(self.count, device=self.device) * std).to(self.dtype)

    def lognormal(self, octaves: float) -> Tensor:
        """Draw [N] from Lognormal(0, (octaves ln 2)^2): 2 to the power of a normal variable."""
        return torch.exp2(self.normal(octaves))

    def angle(self) -> Tensor:
        """Draw [N] from U(-pi, pi)."""
        return self.uniform(-math.pi, math.pi)

    def apply(
        self, operation: str, drawn: Tensor, neutral: float, *, twice: bool = False
    ) -> Tensor:
        """Return the drawn values [N] for images that get the operation, and `neutral` for others.

        `twice`: for one of two applications whose joint probability is that of one other operation.
        """
        chance = (self.p * self._strengths.get(operation, 0)).clamp(max=1)
        if twice:
            chance = 1 - (1 - chance).sqrt()
        happens = torch.rand(self.count, device=self.device) < chance
        return torch.where(happens, drawn, neutral)


def where_image(changed: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Select images [N, ...] from `new` where `changed` [N], else from `old`, bit for bit."""
    return torch.where(changed.view(-1, *[1] * (new.dim() - 1)), new, old)
