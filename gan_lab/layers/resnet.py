"""Residual blocks of the SNGAN family: nearest doubling in generators, mean over 2x2 in discriminators.

Miyato et al. 2018, https://arxiv.org/abs/1802.05957, appendix B.4; Brock et al. 2019,
https://arxiv.org/abs/1809.11096, appendix B, figure 15.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from gan_lab.layers.labels import ClassEmbedding, check_labels


class UpBlock(nn.Module):
    """Doubles the resolution: (norm, rectifier, doubling, 3x3) and (norm, rectifier, 3x3), beside a 1x1 shortcut.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        norm1: `(x [N, inputs, H, W], y) -> ` the same shape; y is what conditions the block.
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
        # a 1x1 convolution commutes with nearest doubling and costs a quarter before it
        return residual + interpolate(self.shortcut(x), scale_factor=2)


class DownBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, each after a rectifier; then, to halve, a mean over 2x2.

    The shortcut is a 1x1 convolution where the shape changes, else nothing.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        hidden: channels between the convolutions.
        halve: whether to halve the resolution.
        first: whether the input is an image, which no rectifier may cut.
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
            # a 1x1 convolution commutes with the mean and costs a quarter after it
            x, residual = avg_pool2d(x, 2), avg_pool2d(residual, 2)
        return residual + (x if self.shortcut is None else self.shortcut(x))


def pooled(x: Tensor) -> Tensor:
    """Return features [N, C] of maps [N, C, H, W]: the rectifier, then the sum over pixels."""
    return relu(x).sum((2, 3))


class ProjectedLogit(nn.Module):
    """Affine map of features, plus their inner product with the class's embedding.

    Miyato and Koyama 2018, equation 3, https://arxiv.org/abs/1802.05637.

    Args:
        width: length of the features.
        num_classes: 0 leaves the affine map alone.
    """

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.affine = nn.Linear(width, 1)
        self.embedding = (
            ClassEmbedding(num_classes=num_classes, width=width) if num_classes else None
        )

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, C] (and labels [N]) to logits [N]."""
        check_labels(labels, self.num_classes)
        logits = self.affine(features).squeeze(1)
        if self.embedding is not None and labels is not None:
            logits = logits + (self.embedding(labels) * features).sum(1)
        return logits


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Return images [N, C, H, W] in the order of memory that a CPU's convolutions need no copy for.

    They keep it, so that only a network's first block copies.
    """
    return x.to(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def generator_multiples(doublings: int) -> list[int]:
    """Return the channels at the coarsest resolution and after each doubling, in units of a network's width.

    From 4x4 on; Brock et al. 2019, tables 4 to 6 for 128 to 512 pixels and their CIFAR-10 networks for 32. Below, all
    are equal as there; above 512 the last repeats.
    """
    published = {4: [16, 16, 8, 4, 2], 5: [16, 16, 8, 4, 2, 1], 6: [16, 16, 8, 8, 4, 2, 1]}
    if doublings < 4:
        return [4] * (doublings + 1)
    return published.get(doublings, published[6] + [1] * (doublings - 6))


def discriminator_multiples(halvings: int) -> list[int]:
    """Return the channels of a discriminator's stages, finest first, in units of its width.

    `halvings` lead to 4x4. The same tables; networks for 32 pixels and less have four equal stages.
    """
    published = {4: [1, 2, 4, 8, 16], 5: [1, 2, 4, 8, 16, 16], 6: [1, 2, 4, 8, 8, 16, 16]}
    if halvings < 4:
        return [4] * (max(halvings, 1) + 1)
    return published.get(halvings, [1] * (halvings - 6) + published[6])


def number_of_halvings(count: int) -> int:
    """Return how many of a discriminator's blocks halve, where `count` lead to 4x4; those for 32 pixels stop at 8x8."""
    return count if count > 3 else max(count - 1, min(count, 1))


def zero_biases(network: nn.Module) -> None:
    """Set the biases of all convolutions and linear layers to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def initialize_glorot(network: nn.Module) -> None:
    """Draw weights as Glorot and Bengio 2010 do, with the rectifier's gain in residual branches; biases are 0.

    Miyato et al. 2018, appendix B; tables of conditional norms keep their 0.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            branch = name.endswith(("conv1", "conv2"))
            nn.init.xavier_uniform_(layer.weight, gain=2**0.5 if branch else 1)
        elif isinstance(layer, ProjectedLogit) and layer.embedding is not None:
            nn.init.xavier_uniform_(layer.embedding.weight)
    zero_biases(network)


# Batch normalisation whose scale and offset depend on a condition.


class ConditionalBatchNorm(nn.Module):
    """Normalise each channel over the batch, then scale by 1 + gain(y) and add offset(y).

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
    """Batch norm with a learned scale and offset for all, in the place of a conditional one."""

    def __init__(self, *, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=eps)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Map [N, C, H, W] to the same shape, whatever y."""
        return self.norm(x)


def class_norm(*, width: int, num_classes: int, eps: float = 1e-5) -> nn.Module:
    """Return batch norm with a scale and an offset for each class, or for all where there are no classes.

    The condition is labels int64 [N] or vectors [N, num_classes]. Every class begins with scale 1 and offset 0.
    """
    if not num_classes:
        return UnconditionalBatchNorm(width=width, eps=eps)
    gain, offset = (ClassEmbedding(num_classes=num_classes, width=width) for _ in range(2))
    for table in (gain, offset):
        nn.init.zeros_(table.weight)
    return ConditionalBatchNorm(width=width, gain=gain, offset=offset, eps=eps)
