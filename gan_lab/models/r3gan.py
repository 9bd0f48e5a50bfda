"""R3GAN: a relativistic loss with R1 and R2, and residual networks without normalization.

Huang et al. 2024, https://arxiv.org/abs/2501.05441, section 4 (config E) and appendix: stages of bottleneck blocks
with grouped 3x3 convolutions, initialized so that every block starts as the identity (Zhang et al. 2019,
https://arxiv.org/abs/1901.09321), connected by binomial resampling and, where the width changes, a 1x1 convolution. The
generator starts from learned 4x4 maps scaled by a linear map of z, the discriminator ends in a 4x4 depthwise
convolution. With classes, z is concatenated to a linear embedding of the label, and the logit is the inner
product of the discriminator's output with another embedding.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import ConditionedDiscriminator, ConditioningFactory, Projection
from gan_lab.layers.convolutions import Convolution, Geometry, by_inputs_alone
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
    index_from_end,
    label_vectors,
)
from gan_lab.layers.resolutions import (
    ImageSize,
    downsample,
    fir_filter,
    resolution_pyramid,
    upsample,
)
from gan_lab.training.module import AdversarialModule

LRELU_SLOPE = 0.2  # of the leaky ReLU
PerStage = int | Sequence[int]


class Generator(GeneratorNetwork):
    """Learned 4x4 maps scaled by z (and the label), then stages of residual blocks.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        label_dim: length of the label's embedding.
        widths: channels of each stage, coarsest first; one number is the width of the first four, which is halved for
            every further one (the published FFHQ networks).
        cardinalities: groups of each stage's 3x3 convolutions, coarsest first; one number holds for the first
            four stages, and its channels per group for all.
        blocks: residual blocks of each stage, coarsest first, or one number for all.
        expansion: ratio of a block's inner to its outer channels.

    Raises:
        InputError: for inconsistent sizes.
    """

    resample_filter: Tensor

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 64,
        label_dim: int = 64,
        widths: PerStage = 768,
        cardinalities: PerStage = 96,
        blocks: PerStage = 2,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        coarsest, doublings = resolution_pyramid(image_size)
        plan = Plan(doublings + 1, widths, cardinalities, blocks, expansion)
        self.embedding = nn.Linear(num_classes, label_dim, bias=False) if num_classes else None
        self.scale = nn.Linear(
            z_dim + (label_dim if num_classes else 0), plan.widths[0], bias=False
        )
        self.basis = nn.Parameter(torch.randn(plan.widths[0], *coarsest))
        self.stages = nn.ModuleList(plan.stage(i) for i in range(doublings + 1))
        self.transitions = nn.ModuleList(transition(*pair) for pair in pairwise(plan.widths))
        self.to_image = nn.Conv2d(plan.widths[-1], channels, 1, bias=False)
        self.register_buffer("resample_filter", fir_filter(), persistent=False)
        initialize(self, num_blocks=sum(plan.blocks))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        vectors = label_vectors(labels, self.num_classes, z)
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(vectors)], dim=1)
        x = self.stages[0](self.basis * self.scale(z)[:, :, None, None])
        for widen, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(upsample(widen(x), self.resample_filter))
        return self.to_image(x)


class Discriminator(ConditionedDiscriminator):
    """Stages of residual blocks, a depthwise convolution over the whole coarsest map, and the logit.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        label_dim: length of the label's embedding and of the features that it is multiplied with.
        widths: channels of each stage, coarsest first, as the generator's; likewise `cardinalities` and `blocks`.
        cardinalities: groups of each stage's 3x3 convolutions.
        blocks: residual blocks of each stage.
        expansion: ratio of a block's inner to its outer channels.
        conditioning: how labels are used; `(features=, num_classes=) -> Conditioning`. Without projection the logit is
            a linear map of the features, as without classes.

    Raises:
        InputError: for inconsistent sizes, or a conditioning that needs classes.
    """

    resample_filter: Tensor

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        label_dim: int = 768,
        widths: PerStage = 768,
        cardinalities: PerStage = 96,
        blocks: PerStage = 2,
        expansion: int = 2,
        conditioning: ConditioningFactory = Projection,
    ) -> None:
        super().__init__()
        coarsest, count = resolution_pyramid(image_size)
        plan = Plan(count + 1, widths, cardinalities, blocks, expansion)
        fine_to_coarse = plan.widths[::-1]
        self.register_buffer("resample_filter", fir_filter(), persistent=False)
        self.from_image = nn.Conv2d(channels, fine_to_coarse[0], 1, bias=False)
        self.stages = nn.ModuleList(plan.stage(i) for i in reversed(range(count + 1)))
        self.transitions = nn.ModuleList(transition(*pair) for pair in pairwise(fine_to_coarse))
        width = plan.widths[0]
        self.basis = nn.Conv2d(width, width, coarsest, groups=width, bias=False)
        self.projected = self.condition(conditioning, features=width, num_classes=num_classes)
        self.features = nn.Linear(width, label_dim if self.projected else 1, bias=False)
        self.embedding = (
            nn.Linear(self.projected, label_dim, bias=False) if self.projected else None
        )
        initialize(self, num_blocks=sum(plan.blocks))
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0, 1 / sqrt(num_classes * label_dim))

    def resolution_keys(self) -> dict[str, str]:
        return index_from_end(stages=self.stages, transitions=self.transitions)

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        """Return logits [N] and, in roles that have one, the weighted class loss [N].

        Where a penalty can differentiate by the images, logits are computed as <x, dD/dx> + b dD/db of each image,
        with biases b. This equals D, which is piecewise linear in images and biases, and so do its derivatives by
        weights (Euler's theorem). A loss of these logits and R1 then have the backward pass in common.
        """
        assert isinstance(x, Tensor), "a discriminator of one tensor of images"
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
        trained = torch.is_grad_enabled() and self.from_image.weight.requires_grad
        if plain or not trained or not x.requires_grad:
            return super().discriminate(x, labels, role)
        scale = x.new_ones(len(x), 1, 1, 1).requires_grad_()
        output = self.output_of(self.extract(x, scale), labels, role)
        with by_inputs_alone():
            by_x, by_scale = torch.autograd.grad(output.logits.sum(), (x, scale), create_graph=True)
        return replace(output, logits=(x * by_x).flatten(1).sum(1) + by_scale.flatten())

    def extract(self, images: Tensor, scale: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] to features [N, F], with biases times `scale` [N, 1, 1, 1]."""
        x = convolved(self.from_image, images, scale)
        for i, stage in enumerate(self.stages):
            if i:
                x = downsample(x, self.resample_filter)
                x = convolved(self.transitions[i - 1], x, scale)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, scale)
        return convolved(self.basis, x, scale).flatten(1)

    def score(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""
        features = self.features(features)
        vectors = label_vectors(labels, self.projected, features)
        if self.embedding is not None:
            features = features * self.embedding(vectors)
        return features.sum(1)


class ResidualBlock(nn.Module):
    """Inverted bottleneck without normalization: 1x1 to more channels, grouped 3x3, 1x1 back.

    Args:
        width: input and output channels.
        inner: channels in between.
        groups: of the 3x3 convolution.
    """

    def __init__(self, *, width: int, inner: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.conv3 = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Map [N, C, H, W] to the same shape, with biases times `scale` [N, 1, 1, 1]."""
        residual = x
        for conv in (self.conv1, self.conv2):
            residual = convolved(conv, residual, scale)
            if scale is None:
                residual = leaky_relu(residual, LRELU_SLOPE, inplace=True)
            else:
                residual = LeakyReLU.apply(residual)
        return x + convolved(self.conv3, residual, scale)


def convolved(layer: nn.Module, x: Tensor, scale: Tensor | None) -> Tensor:
    """Return what a convolution, or the identity, makes of x, with biases times `scale` [N, 1, 1, 1]."""
    if scale is None or not isinstance(layer, nn.Conv2d):
        made: Tensor = layer(x)
        return made
    geometry = Geometry(layer.stride, layer.padding, layer.groups)  # type: ignore[arg-type]
    made = Convolution.apply(x, layer.weight, geometry)
    return made if layer.bias is None else made.add_(layer.bias[:, None, None] * scale)


class LeakyReLU(torch.autograd.Function):
    """The leaky ReLU in place. Its second derivative is no tensor of zeros, which would go through all layers again."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Return `x`."""
        return leaky_relu(x, LRELU_SLOPE, inplace=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(output)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Tensor | None:
        (output,) = ctx.saved_tensors
        (gradient,) = gradients
        return None if gradient is None else Slope.apply(gradient, output.detach())


class Slope(torch.autograd.Function):
    """The gradient of the leaky ReLU, from that of its output; linear, and so its own derivative."""

    @staticmethod
    def forward(gradient: Tensor, output: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        found: Tensor = torch.ops.aten.leaky_relu_backward(gradient, output, LRELU_SLOPE, True)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return Slope.apply(gradients[0], *ctx.saved_tensors), None


class Plan:
    """Widths, cardinalities and blocks of every stage, coarsest first; each may be given as one number for all.

    Raises:
        InputError: when a list does not have one number per stage, or groups do not divide channels.
    """

    def __init__(
        self,
        stages: int,
        widths: PerStage,
        cardinalities: PerStage,
        blocks: PerStage,
        expansion: int,
    ) -> None:
        halved = [max(stage - 3, 0) for stage in range(stages)]
        self.widths = per_stage("widths", widths, halved)
        self.cardinalities = per_stage("cardinalities", cardinalities, halved)
        self.blocks = per_stage("blocks", blocks, [0] * stages)
        self.expansion = expansion
        for width, groups in zip(self.widths, self.cardinalities, strict=True):
            if groups < 1 or width * expansion % groups:
                raise InputError(
                    f"widths={self.widths}, cardinalities={self.cardinalities}: {groups} groups do not divide "
                    f"{width} * expansion={expansion} channels; choose cardinalities that do"
                )

    def stage(self, index: int) -> nn.Sequential:
        """Return a stage's residual blocks."""
        width = self.widths[index]
        return nn.Sequential(
            *(
                ResidualBlock(
                    width=width, inner=width * self.expansion, groups=self.cardinalities[index]
                )
                for _ in range(self.blocks[index])
            )
        )


def per_stage(name: str, given: PerStage, halved: Sequence[int]) -> list[int]:
    """Return one number per stage: the list given, or the number given, halved as often as `halved` says."""
    numbers = [given >> times for times in halved] if isinstance(given, int) else list(given)
    if len(numbers) != len(halved) or min(numbers) < 1:
        raise InputError(
            f"{name}={given}: give one positive number, or one for each of the {len(halved)} resolutions of this "
            "image size, coarsest first"
        )
    return numbers


def transition(inputs: int, outputs: int) -> nn.Module:
    """Return the 1x1 convolution between two stages, the identity where their widths are equal."""
    return nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)


@torch.no_grad()
def initialize(network: nn.Module, *, num_blocks: int) -> None:
    """Initialize with Fixup: weights preserve variance, and residual branches start at 0, scaled by their number.

    With L blocks of m = 3 convolutions, the first two of each are scaled by L^(-1 / (2m - 2)) and the last is 0
    (Zhang et al. 2019, section 2.3). Biases start at 0.
    """
    gain = nn.init.calculate_gain("leaky_relu", LRELU_SLOPE) * num_blocks ** (-1 / 4)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            factor = gain if name.endswith(("conv1", "conv2")) else 1.0
            nn.init.normal_(module.weight, 0, factor / sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith("conv3"):
                nn.init.zeros_(module.weight)


class R3GAN(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
