"""Training steps for penalties, without a loop."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gan_lab.data.sample import Batch
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    Role,
    tensors_of,
)
from gan_lab.training.steps import DiscriminatorStep, GeneratorStep


def discriminator_step(
    network: DiscriminatorNetwork,
    real: DiscriminatorInput,
    fake: DiscriminatorInput,
    *,
    z: Tensor | None = None,
    generate: Callable[[Tensor], DiscriminatorInput] | None = None,
) -> DiscriminatorStep:
    """Return a step without labels, in which D sees the samples as they are."""
    first = tensors_of(real)[0]

    def discriminate(x: DiscriminatorInput, role: Role | None) -> DiscriminatorOutput:
        return network.discriminate(x, None, role)

    return DiscriminatorStep(
        network=network,
        batch=Batch(first),
        real=real,
        make_fake=lambda: fake,
        z=torch.zeros(len(first), 1) if z is None else z,
        generate=generate or (lambda z: fake),
        discriminate=discriminate,
    )


def generator_step(
    network: nn.Module, z: Tensor, generate: Callable[[Tensor], DiscriminatorInput] | None = None
) -> GeneratorStep:
    """Return a step without labels."""
    return GeneratorStep(network, Batch(torch.zeros(len(z), 1)), z, generate or network)
