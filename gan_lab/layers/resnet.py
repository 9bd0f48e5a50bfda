"""The residual networks of WGAN-GP, SNGAN, SAGAN and BigGAN: generator, discriminator, blocks, self-attention.

Miyato et al. 2018, https://arxiv.org/abs/1802.05957, appendix B.4; Brock et al. 2019,
https://arxiv.org/abs/1809.11096, appendix B, figure 15.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import (
    ConditionedDiscriminator,
    ConditioningFactory,
    Projection,
    ProjectionLogit,
)
from gan_lab.layers.networks import ClassEmbedding, GeneratorNetwork, check_labels, index_from_end
from gan_lab.layers.resolutions import ImageSize, resolution_pyramid

# Self-attention


class SelfAttention(nn.Module):
    """Self-attention: x + gamma * o(softmax(theta(x)^T phi(x)) g(x)), gamma starting at 0.

    Zhang et al. 2019, https://arxiv.org/abs/1805.08318, equations 1 to 3. As in the authors' and BigGAN's networks,
    queries and keys have an eighth of the channels and values a half; keys and values are max-pooled over 2x2
    positions.

    Args:
        width: channels, 8 or more.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        if width < 8:
            raise InputError(
                f"attention over {width} channels; at least 8 are needed: raise the width"
            )
        self.theta = nn.Conv2d(width, width // 8, 1, bias=False)
        self.phi = nn.Conv2d(width, width // 8, 1, bias=False)
        self.g = nn.Conv2d(width, width // 2, 1, bias=False)
        self.o = nn.Conv2d(width // 2, width, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W], H and W even, to the same shape."""
        queries = self.theta(x).flatten(2)  # [N, C/8, HW]
        keys = max_pool2d(self.phi(x), 2).flatten(2)  # [N, C/8, HW/4]
        values = max_pool2d(self.g(x), 2).flatten(2)  # [N, C/2, HW/4]
        # no 1/sqrt(d): published weights were trained without
        # equation 1
        shares = torch.bmm(queries.transpose(1, 2), keys).softmax(dim=2)  # [N, HW, HW/4]
        # in this order the backward pass reads `shares` row by row, in half the time
        mixed = torch.bmm(shares, values.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.gamma * self.o(mixed)  # equations 2 and 3


def attention_stages(attention: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[bool]:
    """Return for each stage whether self-attention follows it.

    Args:
        attention: resolutions (shorter side) with self-attention. Those above all of `sizes` are ignored, so that one
            setting serves many image sizes.
        sizes: (height, width) of each stage's output.

    Raises:
        InputError: for a resolution that no stage has.
    """
    shorter = [min(size) for size in sizes]
    for size in attention:
        if size not in shorter and size <= max(shorter, default=0):
            raise InputError(
                f"attention={list(attention)}: the network has resolutions of {sorted(set(shorter))} pixels; "
                "choose among these, or attention=[]"
            )
    # of several stages with one size, attention follows the first
    return [size in attention and size not in shorter[:i] for i, size in enumerate(shorter)]


def attentions(
    attention: Sequence[int], sizes: Sequence[tuple[int, int]], widths: Sequence[int]
) -> nn.ModuleList:
    """Return the module after each block: self-attention at the given resolutions, else the identity."""
    wanted = attention_stages(attention, sizes)
    return nn.ModuleList(
        SelfAttention(width=width) if here else nn.Identity()
        for here, width in zip(wanted, widths, strict=True)
    )


# Residual networks

# channels -> batch norm `(x [N, C, H, W], y) -> ` the same shape, where y conditions a block
NormFactory = Callable[[int], nn.Module]


class ResNetGenerator(GeneratorNetwork):
    """Residual generator: a linear layer, upsampling blocks, self-attention after some, and the output layers.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        width: base number of channels.
        norm: builds the blocks' norms.
        multiples: number of upsamplings -> channels at each resolution, coarsest first, in units of `width`.
        depth: blocks at each resolution, of which the last upsamples.
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.
        embedding: of labels, if `conditions` uses one.
        start_dim: input size of the first layer; None for that of z.
        norm_eps: added to the variance in the last norm.

    Raises:
        InputError: for an unsupported image size.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int,
        z_dim: int,
        width: int,
        norm: NormFactory,
        multiples: Callable[[int], Sequence[int]] | None = None,
        depth: int = 1,
        attention: Sequence[int] = (),
        embedding: nn.Module | None = None,
        start_dim: int | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        self.depth = depth
        self.embedding = embedding
        self.coarsest, doublings = resolution_pyramid(image_size)
        height, columns = self.coarsest
        widths = [width * multiple for multiple in (multiples or generator_multiples)(doublings)]
        self.start = nn.Linear(start_dim or z_dim, widths[0] * height * columns)
        self.blocks = nn.ModuleList(
            self.block(inputs, outputs if i == depth - 1 else inputs, i == depth - 1, norm)
            for inputs, outputs in pairwise(widths)
            for i in range(depth)
        )
        sizes = [(height << i, columns << i) for i in range(1, doublings + 1)]
        self.attentions = attentions(attention, sizes, widths[1:])
        self.norm = nn.BatchNorm2d(widths[-1], eps=norm_eps)
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def block(self, inputs: int, outputs: int, double: bool, norm: NormFactory) -> nn.Module:
        """Build a block `(x [N, inputs, H, W], y) -> [N, outputs, 2H, 2W]`, or [N, outputs, H, W] without `double`."""
        return UpBlock(inputs=inputs, outputs=outputs, norm1=norm(inputs), norm2=norm(outputs))

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return the first layer's input [N, start_dim] and each block's condition; by default z and the labels."""
        return z, [labels] * len(self.blocks)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W]."""
        check_labels(labels, self.num_classes)
        start, conditions = self.conditions(z, labels)
        x = self.start(start).unflatten(1, (-1, *self.coarsest))
        for i, (block, y) in enumerate(zip(self.blocks, conditions, strict=True), start=1):
            x = block(x, y)
            if i % self.depth == 0:
                x = self.attentions[i // self.depth - 1](x)
        return self.to_image(relu(self.norm(x))).tanh()


class ResNetDiscriminator(ConditionedDiscriminator):
    """Residual discriminator: downsampling blocks, self-attention after some, blocks at the coarsest size, sum pooling.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: base number of channels.
        multiples: number of halvings down to 4 pixels -> channels of each stage, finest first, in units of `width`.
        halvings: number of halvings down to 4 pixels -> number of stages that downsample.
        depth: blocks in each stage, of which the first downsamples.
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.
        conditioning: how labels are used; `(features=, num_classes=) -> Conditioning`.

    Raises:
        InputError: for an unsupported image size, or a conditioning that needs classes.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int,
        width: int,
        multiples: Callable[[int], Sequence[int]] | None = None,
        halvings: Callable[[int], int] | None = None,
        depth: int = 1,
        attention: Sequence[int] = (),
        conditioning: ConditioningFactory = Projection,
    ) -> None:
        super().__init__()
        self.depth = depth
        (height, columns), count = resolution_pyramid(image_size)
        widths = [width * multiple for multiple in (multiples or discriminator_multiples)(count)]
        halved = (halvings or number_of_halvings)(count)
        self.from_image = self.image_layer(channels, widths[0])
        stages = list(pairwise(widths if self.from_image else [channels, *widths]))
        self.blocks = nn.ModuleList(
            self.block(
                inputs=outputs if i else inputs,
                outputs=outputs,
                halve=i == 0 and stage < halved,
                first=i == stage == 0 and self.from_image is None,
            )
            for stage, (inputs, outputs) in enumerate(stages)
            for i in range(depth)
        )
        left = [max(count - min(stage + 1, halved), 0) for stage in range(len(stages))]
        sizes = [(height << n, columns << n) for n in left]
        self.attentions = attentions(attention, sizes, [outputs for _, outputs in stages])
        projected = self.condition(conditioning, features=widths[-1], num_classes=num_classes)
        self.logit = ProjectionLogit(features=widths[-1], num_classes=projected, table=True)

    def image_layer(self, channels: int, outputs: int) -> nn.Module | None:
        """Build a layer before the first block, or return None if the first block reads the image."""
        return None

    def block(self, *, inputs: int, outputs: int, halve: bool, first: bool) -> nn.Module:
        """Build a block `[N, inputs, H, W] -> [N, outputs, H, W]`, or half of H and W; the first one reads images."""
        return DownBlock(inputs=inputs, outputs=outputs, hidden=outputs, halve=halve, first=first)

    def pool(self, x: Tensor) -> Tensor:
        """Pool features [N, F, H, W] to [N, F]: ReLU, then the sum over pixels."""
        return relu(x).sum((2, 3))

    def resolution_keys(self) -> dict[str, str]:
        return index_from_end(blocks=self.blocks, attentions=self.attentions)

    def extract(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to features [N, F]."""
        x = images if self.from_image is None else self.from_image(images)
        for i, block in enumerate(self.blocks, start=1):
            x = block(x)
            if i % self.depth == 0:
                x = self.attentions[i // self.depth - 1](x)
        return self.pool(x)

    def score(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""
        return self.logit(features, labels)


class UpBlock(nn.Module):
    """Upsampling block: (norm, ReLU, nearest upsampling, 3x3) and (norm, ReLU, 3x3), with a 1x1 shortcut.

    Args:
        inputs: input channels.
        outputs: output channels.
        norm1: `(x [N, inputs, H, W], y) -> ` the same shape; y is the block's condition.
        norm2: likewise with `outputs` channels.
    """

    def __init__(self, *, inputs: int, outputs: int, norm1: nn.Module, norm2: nn.Module) -> None:
        super().__init__()
        self.norm1 = norm1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = norm2
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, 2H, 2W]."""
        x = channels_last_on_cpu(x)
        residual = self.conv1(interpolate(relu(self.norm1(x, y)), scale_factor=2))
        residual = self.conv2(relu(self.norm2(residual, y)))
        # a 1x1 convolution commutes with nearest upsampling and costs a quarter before it
        return residual + interpolate(self.shortcut(x), scale_factor=2)


class DownBlock(nn.Module):
    """Residual block: two 3x3 convolutions, each after a ReLU, and optionally 2x2 average pooling.

    The shortcut is a 1x1 convolution where the shape changes, else the identity.

    Args:
        inputs: input channels.
        outputs: output channels.
        hidden: channels between the convolutions.
        halve: whether to downsample.
        first: whether the input is an image, to which no ReLU is applied.
    """

    def __init__(
        self, *, inputs: int, outputs: int, hidden: int, halve: bool, first: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if halve or inputs != outputs else None
        self.halve = halve
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H, W], or half of H and W."""
        x = channels_last_on_cpu(x)
        residual = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        if self.halve:
            # a 1x1 convolution commutes with average pooling and costs a quarter after it
            x, residual = avg_pool2d(x, 2), avg_pool2d(residual, 2)
        return residual + (x if self.shortcut is None else self.shortcut(x))


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Return images [N, C, H, W] in channels_last memory format on a CPU, which its convolutions are fastest with.

    Convolutions keep the format, so only the first block copies.
    """
    return x.to(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def generator_multiples(doublings: int) -> list[int]:
    """Return the channels at the coarsest resolution and after each upsampling, in units of `width`.

    From 4x4 on; Brock et al. 2019, tables 4 to 6 for 128 to 512 pixels and their CIFAR-10 networks for 32. Below, all
    are equal as there; above 512 the last repeats.
    """
    published = {4: [16, 16, 8, 4, 2], 5: [16, 16, 8, 4, 2, 1], 6: [16, 16, 8, 8, 4, 2, 1]}
    if doublings < 4:
        return [4] * (doublings + 1)
    return published.get(doublings, published[6] + [1] * (doublings - 6))


def discriminator_multiples(halvings: int) -> list[int]:
    """Return the channels of a discriminator's stages, finest first, in units of `width`.

    The same tables, by the number of halvings down to 4x4; networks for 32 pixels and less have four equal stages.
    """
    published = {4: [1, 2, 4, 8, 16], 5: [1, 2, 4, 8, 16, 16], 6: [1, 2, 4, 8, 8, 16, 16]}
    if halvings < 4:
        return [4] * (max(halvings, 1) + 1)
    return published.get(halvings, [1] * (halvings - 6) + published[6])


def number_of_halvings(count: int) -> int:
    """Return the number of downsampling blocks, if `count` lead to 4x4; networks for 32 pixels stop at 8x8."""
    return count if count > 3 else max(count - 1, min(count, 1))


def zero_biases(network: nn.Module) -> None:
    """Set the biases of all convolutions and linear layers to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def initialize_glorot(network: nn.Module) -> None:
    """Initialize by Glorot and Bengio 2010, with ReLU's gain in residual branches; biases are 0.

    Miyato et al. 2018, appendix B; tables of conditional norms keep their 0.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            branch = name.endswith(("conv1", "conv2"))
            nn.init.xavier_uniform_(layer.weight, gain=2**0.5 if branch else 1)
        elif isinstance(layer, ProjectionLogit) and layer.embedding is not None:
            nn.init.xavier_uniform_(layer.embedding.weight)  # type: ignore[arg-type]
    zero_biases(network)


# Conditional batch normalization


class ConditionalBatchNorm(nn.Module):
    """Conditional batch norm: normalize each channel, scale by 1 + gain(y) and add offset(y).

    de Vries et al. 2017, https://arxiv.org/abs/1707.00683; Brock et al. 2019, appendix B,
    https://arxiv.org/abs/1809.11096.

    Args:
        width: channels.
        gain: maps the condition to [N, width]; likewise `offset`.
        eps: added to the variance.
    """

    def __init__(
        self, *, width: int, gain: nn.Module, offset: nn.Module, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=eps, affine=False)
        self.gain = gain
        self.offset = offset

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map [N, C, H, W] and conditions y [N, ...] to [N, C, H, W]."""
        gain, offset = (made[:, :, None, None] for made in (1 + self.gain(y), self.offset(y)))
        return torch.addcmul(offset, self.norm(x), gain)


class UnconditionalBatchNorm(nn.Module):
    """Batch norm that ignores the condition, with the interface of `ConditionalBatchNorm`."""

    def __init__(self, *, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=eps)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Map [N, C, H, W] to the same shape, whatever y."""
        return self.norm(x)


def class_norm(width: int, *, num_classes: int, eps: float = 1e-5) -> nn.Module:
    """Return batch norm with a scale and an offset for each class, or unconditional batch norm without classes.

    The condition is labels int64 [N] or vectors [N, num_classes]. Every class starts with scale 1 and offset 0.
    """
    if not num_classes:
        return UnconditionalBatchNorm(width=width, eps=eps)
    gain, offset = (ClassEmbedding(num_classes=num_classes, width=width) for _ in range(2))
    for table in (gain, offset):
        nn.init.zeros_(table.weight)
    return ConditionalBatchNorm(width=width, gain=gain, offset=offset, eps=eps)
