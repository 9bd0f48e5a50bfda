"""What a regularizer is, and what it may look at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import Judgement

Player = Literal["generator", "discriminator"]


@dataclass
class DiscriminatorStep:
    """One micro-batch as the discriminator meets it.

    Attributes:
        network: the discriminator.
        judge: `(images [N, C, H, W], labels [N] or None) -> (logits [N], class losses [N] or None)`, with whatever
            stands before D.
        real: real images; they require grad where a penalty differentiates by its input.
        make_fake: gives generated images, cut off from the generator; called when they are first asked for.
        labels: of both, or None.
        z: latents [N, Z] of the generated images.
        generate: `(z, labels) -> images`, the generator.
    """

    network: nn.Module
    judge: Callable[[Tensor, Tensor | None], Judgement]
    real: Tensor
    make_fake: Callable[[], Tensor]
    labels: Tensor | None
    z: Tensor
    generate: Callable[[Tensor, Tensor | None], Tensor]

    def critic(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Return logits [N] of any images."""
        return self.judge(images, labels)[0]

    @cached_property
    def fake(self) -> Tensor:
        """Generated images [N, C, H, W]; a penalty on real images alone does not pay for them."""
        return self.make_fake()

    @cached_property
    def real_judgement(self) -> Judgement:
        """What D says of the real images: computed when asked for, then shared by the loss and the penalties."""
        return self.judge(self.real, self.labels)

    @cached_property
    def fake_judgement(self) -> Judgement:
        """What D says of the generated images, likewise."""
        return self.judge(self.fake, self.labels)

    @property
    def real_logits(self) -> Tensor:
        """Logits [N] of the real images."""
        return self.real_judgement[0]

    @property
    def fake_logits(self) -> Tensor:
        """Logits [N] of the generated images."""
        return self.fake_judgement[0]


@dataclass
class GeneratorStep:
    """One micro-batch as the generator makes it.

    Attributes:
        network: the generator.
        z: latents [N, Z].
        labels: [N] or None.
        fake: images [N, C, H, W] with their graph, or None where a penalty has a step of its own.
    """

    network: nn.Module
    z: Tensor
    labels: Tensor | None
    fake: Tensor | None = None


class Regularizer(nn.Module):
    """A penalty on one player; a module, so that what it keeps is saved with the run.

    Attributes:
        player: whose parameters it acts on.
        needs_input_gradient: whether it differentiates `real_logits` or `fake_logits` by the images.
        penalizes: whether `forward` returns anything; False for those that act in `after_step` only.

    Args:
        weight: coefficient of the penalty in the player's loss.
        interval: steps of the player between two penalties. At 1 the penalty joins the loss; above, it is lazy:
            it has an optimizer step of its own every `interval` steps with `interval` times the weight
            (Karras et al. 2020, appendix B, https://arxiv.org/abs/1912.04958).
    """

    player: Player = "discriminator"
    needs_input_gradient = False
    penalizes = True

    def __init__(self, *, weight: float, interval: int = 1) -> None:
        super().__init__()
        if weight < 0 or interval < 1:
            raise InputError(
                f"{type(self).__name__}: weight={weight}, interval={interval}; weight must be >= 0 and interval >= 1"
            )
        self.weight = weight
        self.interval = interval

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        """Return the penalty per image [N] (or one number for a penalty on weights), without its coefficient."""
        raise AssertionError(f"{type(self).__name__} has no penalty")

    def check(self, network: nn.Module) -> None:
        """Refuse the player's network before training, where the penalty cannot be computed for it.

        Raises:
            InputError: with the reason.
        """

    def select(self, losses: Tensor, fake_logits: Tensor) -> Tensor:
        """Return those of the generator's losses [N], one an image, that count in this step."""
        return losses

    def after_step(self, network: nn.Module) -> None:
        """Act on the player's network after each of its optimizer steps."""


def squared_gradient_norm(logits: Tensor, images: Tensor) -> Tensor:
    """Return the squared L2 norm of d logits / d images per image, [N], differentiable once more.

    The logits are summed first: without coupling between images (batch norm couples them), each image's gradient is
    that of its own logit.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)


def gradient_norm(logits: Tensor, images: Tensor) -> Tensor:
    """Return the L2 norm of d logits / d images per image, [N]; its own gradient is 0, not NaN, where it is 0."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return torch.linalg.vector_norm(gradient.float().flatten(1), dim=1)
