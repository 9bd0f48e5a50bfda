"""A micro-batch for losses and penalties."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gan_lab.data.sample import Batch
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    Role,
    map_tensors,
    tensors_of,
)
from gan_lab.seeding import random_state, set_random_state


class Hooks(Protocol):
    """The hooks of `AdversarialModule` that a discriminator step uses."""

    discriminator: DiscriminatorNetwork

    def fake(self, z: Tensor, batch: Batch) -> DiscriminatorInput:
        """Make D's fake input."""
        ...

    def real(self, batch: Batch) -> DiscriminatorInput:
        """Make D's real input."""
        ...

    def discriminate(
        self, x: DiscriminatorInput, batch: Batch, role: Role | None
    ) -> DiscriminatorOutput:
        """Return D's output."""
        ...


@dataclass(kw_only=True)
class DiscriminatorStep:
    """One micro-batch in the discriminator's step.

    Attributes:
        network: the discriminator.
        batch: the data.
        real: D's real input; requires grad if a penalty differentiates with respect to it.
        make_fake: makes D's fake input without the generator's graph; called at first use.
        z: latents [N, Z] of the fake samples.
        generate: `z -> fake samples`, with the generator's graph.
        discriminate: `(x, role) -> output`: augmentations and D; role None gives logits only.
        states: of torch's generators before each role's pass.
    """

    network: nn.Module
    batch: Batch
    real: DiscriminatorInput
    make_fake: Callable[[], DiscriminatorInput]
    z: Tensor
    generate: Callable[[Tensor], DiscriminatorInput]
    discriminate: Callable[[DiscriminatorInput, Role | None], DiscriminatorOutput]
    states: dict[Role, tuple[Tensor, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, hooks: Hooks, batch: Batch, z: Tensor, penalties: Iterable[Any], *, logits_only: bool
    ) -> "DiscriminatorStep":
        """Build the step of a micro-batch from an architecture's hooks, without the generator's graph.

        Args:
            hooks: of the architecture.
            batch: the data.
            z: latents [N, Z].
            penalties: regularizers of the step; in full precision they differentiate its own passes.
            logits_only: whether to leave out D's further losses, such as class losses.
        """
        # in mixed precision each penalty has its own passes, see `in_full_precision`
        penalties = [] if mixed_precision(z.device) else list(penalties)
        by_real = any(penalty.differentiates_real for penalty in penalties)
        by_fake = any(penalty.differentiates_fake for penalty in penalties)

        def make_fake() -> DiscriminatorInput:
            with torch.no_grad():
                fake = hooks.fake(z, batch)
            return requiring_grad(fake) if by_fake else fake

        with torch.no_grad():
            real = hooks.real(batch)
        return cls(
            network=hooks.discriminator,
            batch=batch,
            real=requiring_grad(real) if by_real else real,
            make_fake=make_fake,
            z=z,
            generate=lambda z: hooks.fake(z, batch),
            discriminate=lambda x, role: hooks.discriminate(
                x, batch, None if logits_only else role
            ),
        )

    def in_full_precision(self, *, by_real: bool, by_fake: bool) -> "DiscriminatorStep":
        """Return the same step in single precision, with its own passes through D.

        Args:
            by_real: whether real logits will be differentiated by real samples.
            by_fake: whether fake logits will be differentiated by fake samples.
        """
        real, fake = (
            requiring_grad(map_tensors(Tensor.float, x)) if by else map_tensors(Tensor.float, x)
            for x, by in ((self.real, by_real), (self.fake, by_fake))
        )
        return replace(
            self,
            real=real,
            make_fake=lambda: fake,
            discriminate=lambda x, role: self.discriminate(x, None),
            states={},
        )

    @cached_property
    def fake(self) -> DiscriminatorInput:
        """D's fake input, computed when first used."""
        return self.make_fake()

    @cached_property
    def real_output(self) -> DiscriminatorOutput:
        """D's output for the real samples, shared by the loss and the penalties."""
        return self._recorded("real", self.real)

    @cached_property
    def fake_output(self) -> DiscriminatorOutput:
        """D's output for the fake samples, shared by the loss and the penalties."""
        return self._recorded("fake", self.fake)

    def _recorded(self, role: Role, x: DiscriminatorInput) -> DiscriminatorOutput:
        """Return D's output in a role, and record the random state of its augmentations and noise."""
        self.states[role] = random_state(tensors_of(x)[0].device)
        return self.discriminate(x, role)

    def replayed(self, x: DiscriminatorInput, role: Role) -> Tensor:
        """Return D's logits for other samples with the same augmentations and noise as in a role, "real" or "fake"."""
        output = self.real_output if role == "real" else self.fake_output
        assert output is not None
        device = tensors_of(x)[0].device
        now = random_state(device)
        set_random_state(device, self.states[role])
        logits = self.logits(x)
        set_random_state(device, now)
        return logits

    @property
    def real_logits(self) -> Tensor:
        """D's logits [N] or [N, K] for the real samples."""
        return self.real_output.logits

    @property
    def fake_logits(self) -> Tensor:
        """D's logits [N] or [N, K] for the fake samples."""
        return self.fake_output.logits

    def logits(self, x: DiscriminatorInput) -> Tensor:
        """Return D's logits [N] or [N, K] for any samples with the labels of this batch."""
        return self.discriminate(x, None).logits


@dataclass
class GeneratorStep:
    """One micro-batch in the generator's step.

    Attributes:
        network: the generator.
        batch: the data.
        z: latents [N, Z].
        generate: `z -> D's fake input`.
    """

    network: nn.Module
    batch: Batch
    z: Tensor
    generate: Callable[[Tensor], DiscriminatorInput]

    @cached_property
    def fake(self) -> DiscriminatorInput:
        """Fake samples with the generator's graph, made when first used."""
        return self.generate(self.z)


def mixed_precision(device: torch.device) -> bool:
    """Whether autocast is on, so that penalties must not differentiate the loss's own forward pass."""
    return torch.is_autocast_enabled(device.type)


def requiring_grad(x: DiscriminatorInput) -> DiscriminatorInput:
    """Detach an input and make it require gradients."""
    return map_tensors(lambda part: part.detach().requires_grad_(), x)
