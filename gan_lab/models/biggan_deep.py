"""BigGAN-deep: twice as deep as BigGAN and cheaper, with bottleneck blocks and nearly parameter-free shortcuts.

Brock et al. 2019, https://arxiv.org/abs/1809.11096, appendix B (tables 7 to 9, figure 16): the generator's shortcuts
drop channels, the discriminator's add new ones beside the old. All of z, concatenated to the class embedding,
conditions the first layer and every block.
"""

from collections.abc import Sequence

from torch import Tensor, cat, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import ConditioningFactory, Projection
from gan_lab.layers.networks import ClassEmbedding
from gan_lab.layers.resnet import NormFactory, ResNetDiscriminator, ResNetGenerator
from gan_lab.layers.resolutions import ImageSize
from gan_lab.layers.spectral_norm import spectrally_normalized
from gan_lab.models.biggan import concat_z_and_class, initialize, norm
from gan_lab.training.module import AdversarialModule

BOTTLENECK = 4  # ratio of outer to inner channels


class Generator(ResNetGenerator):
    """Residual generator of bottleneck blocks, `depth` per resolution, of which the last upsamples.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z.
        shared_dim: length of the class's embedding.
        width: base number of channels (`resnet.generator_multiples`), 128 in the paper.
        depth: blocks at each resolution.
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.
        norm_eps: added to variances.
        spectral_eps: of the power method.

    Raises:
        InputError: for inconsistent sizes.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        z_dim: int = 128,
        shared_dim: int = 128,
        width: int = 128,
        depth: int = 2,
        attention: Sequence[int] = (64,),
        norm_eps: float = 1e-5,
        spectral_eps: float = 1e-12,
    ) -> None:
        condition = z_dim + (shared_dim if num_classes else 0)
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            z_dim=z_dim,
            width=width,
            norm=lambda width: norm(width, condition, 0, norm_eps),
            depth=check_depth(depth),
            attention=attention,
            embedding=ClassEmbedding(num_classes=num_classes, width=shared_dim)
            if num_classes
            else None,
            start_dim=condition,
            norm_eps=norm_eps,
        )
        initialize(self)
        spectrally_normalized(self, eps=spectral_eps, embeddings=False)

    def block(self, inputs: int, outputs: int, double: bool, norm: NormFactory) -> nn.Module:
        return GeneratorBlock(inputs=inputs, outputs=outputs, double=double, norm=norm)

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        embedded = None if self.embedding is None or labels is None else self.embedding(labels)
        y = concat_z_and_class(embedded, z)
        return y, [y] * len(self.blocks)


class GeneratorBlock(nn.Module):
    """Bottleneck block: (norm, ReLU, convolution) with kernels 1, 3, 3, 1; its shortcut drops the last channels.

    Args:
        inputs: input channels.
        outputs: output channels, at most `inputs`.
        double: whether to upsample by 2.
        norm: makes the norms.
    """

    def __init__(self, *, inputs: int, outputs: int, double: bool, norm: NormFactory) -> None:
        super().__init__()
        inner = inner_width(inputs)
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1)
        self.norm2 = norm(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.norm3 = norm(inner)
        self.conv3 = nn.Conv2d(inner, inner, 3, padding=1)
        self.norm4 = norm(inner)
        self.conv4 = nn.Conv2d(inner, outputs, 1)
        self.outputs = outputs
        self.doubles = double

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map [N, inputs, H, W] and conditions y [N, K] to [N, outputs, H, W], or twice H and W."""
        residual = relu(self.norm2(self.conv1(relu(self.norm1(x, y))), y))
        x = x[:, : self.outputs]
        if self.doubles:
            x, residual = interpolate(x, scale_factor=2), interpolate(residual, scale_factor=2)
        residual = self.conv3(relu(self.norm3(self.conv2(residual), y)))
        return x + self.conv4(relu(self.norm4(residual, y)))


class Discriminator(ResNetDiscriminator):
    """Residual discriminator of bottleneck blocks, `depth` per resolution, of which the first downsamples.

    Args:
        image_size: side, or [height, width]; 4 to 7 pixels times a power of two.
        channels: of the image.
        num_classes: 0 for an unconditional discriminator.
        width: base number of channels (`resnet.discriminator_multiples`), 128 in the paper.
        depth: blocks at each resolution.
        attention: resolutions (shorter side) with self-attention; those above the image's are ignored.
        spectral_eps: of the power method.
        conditioning: how labels are used; `(features=, num_classes=) -> Conditioning`.

    Raises:
        InputError: for an unsupported image size, or a conditioning that needs classes.
    """

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        width: int = 128,
        depth: int = 2,
        attention: Sequence[int] = (64,),
        spectral_eps: float = 1e-12,
        conditioning: ConditioningFactory = Projection,
    ) -> None:
        super().__init__(
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            width=width,
            depth=check_depth(depth),
            attention=attention,
            conditioning=conditioning,
        )
        initialize(self)
        spectrally_normalized(self, eps=spectral_eps)

    def image_layer(self, channels: int, outputs: int) -> nn.Module:
        return nn.Conv2d(channels, outputs, 3, padding=1)

    def block(self, *, inputs: int, outputs: int, halve: bool, first: bool) -> nn.Module:
        return DiscriminatorBlock(inputs=inputs, outputs=outputs, halve=halve)


class DiscriminatorBlock(nn.Module):
    """Bottleneck block: (ReLU, convolution) with kernels 1, 3, 3, 1; its shortcut computes only the added channels.

    Args:
        inputs: input channels.
        outputs: output channels, at least `inputs`.
        halve: whether to downsample by 2x2 average pooling before the last convolution.
    """

    def __init__(self, *, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        inner = inner_width(outputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv3 = nn.Conv2d(inner, inner, 3, padding=1)
        self.conv4 = nn.Conv2d(inner, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs - inputs, 1) if outputs > inputs else None
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H, W], or half of H and W."""
        residual = relu(self.conv3(relu(self.conv2(relu(self.conv1(relu(x)))))))
        if self.halve:
            x, residual = avg_pool2d(x, 2), avg_pool2d(residual, 2)
        if self.shortcut is not None:
            x = cat([x, self.shortcut(x)], dim=1)
        return x + self.conv4(residual)


def inner_width(outer: int) -> int:
    """Return the inner channels of a bottleneck.

    Raises:
        InputError: when fewer than 4 outer channels leave none.
    """
    if outer < BOTTLENECK:
        raise InputError(
            f"a block of {outer} channels are too few for a bottleneck of a quarter; set width to at least {BOTTLENECK}"
        )
    return outer // BOTTLENECK


def check_depth(depth: int) -> int:
    """Return the number of blocks at each resolution.

    Raises:
        InputError: when it is not positive.
    """
    if depth < 1:
        raise InputError(f"depth={depth} must be at least 1")
    return depth


class BigGANDeep(AdversarialModule):
    """The training loop with these networks; it overrides no hook."""
