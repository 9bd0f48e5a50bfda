"""WaveGAN: DCGAN's pyramid in one dimension, with kernels of 25 samples and strides of 4.

Donahue, McAuley and Puckette 2019, https://arxiv.org/abs/1802.04208, section 3 and appendix D (tables 3 and 4); no
normalization, z uniform in [-1, 1]. What the tables leave open follows the authors' repository,
https://github.com/chrisdonahue/wavegan: padding as TensorFlow's SAME, longer sounds by a sixth layer of stride 4
(65,536 samples) or 2 (32,768). With classes, the generator gets the label concatenated to z, and the discriminator uses
it as `conditioning` says; the paper has neither.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, interpolate, leaky_relu, pad, relu

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import (
    ConditionedDiscriminator,
    ConditioningFactory,
    Projection,
    ProjectionLogit,
)
from gan_lab.layers.networks import GeneratorNetwork, label_vectors
from gan_lab.training.module import AdversarialModule

_START = 16  # samples at the coarsest resolution
_STRIDE = 4


def strides(length: int) -> list[int]:
    """Return the strides that lead from 16 samples to `length`: fours, of which the last may be a two.

    Raises:
        InputError: for another length.
    """
    found, reached = [], _START
    while reached < length:
        step = 2 if 2 * reached == length else _STRIDE
        found.append(step)
        reached *= step
    if reached != length or not found:
        lengths = sorted(_START * step * _STRIDE**k for k in range(8) for step in (2, 4))
        near = sorted(sorted(lengths, key=lambda one: abs(one - length))[:2])
        raise InputError(
            f"{length} samples: the length must be 16 or 32 times a power of 4; set data.length={near[0]} or {near[1]}"
        )
    return found


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding (before, after); an odd number has one more after."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class Upsample(nn.Module):
    """[N, C, T] -> [N, C', stride T] by a transposed convolution, or by repeating samples before a convolution.

    Args:
        inputs: C.
        outputs: C'.
        kernel: its length.
        stride: factor.
        mode: "zeros" puts zeros between samples, "nearest" repeats them (section 3.1 on checkerboard artifacts).
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, mode: str) -> None:
        super().__init__()
        self.stride, self.mode = stride, mode
        shape = (inputs, outputs, kernel) if mode == "zeros" else (outputs, inputs, kernel)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        glorot(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        kernel, length = self.weight.shape[2], x.shape[2] * self.stride
        if self.mode == "nearest":
            x = interpolate(x, scale_factor=self.stride, mode="nearest")
            return conv1d(pad(x, same_padding(length, kernel, 1)), self.weight, self.bias)
        # the gradient of a convolution with SAME padding
        before, _ = same_padding(length, kernel, self.stride)
        whole = conv_transpose1d(x, self.weight, self.bias, stride=self.stride)
        return whole[:, :, before : before + length]


class Downsample(nn.Conv1d):
    """[N, C, T] -> [N, C', T / stride] with SAME padding."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride)
        glorot(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        padded = pad(x, same_padding(x.shape[2], self.kernel_size[0], self.stride[0]))
        return super().forward(padded)


class PhaseShuffle(nn.Module):
    """Phase shuffle: shift features by up to `radius` samples with reflection padding (section 3.3).

    D can then not use the phase of upsampling artifacts.

    Args:
        radius: n in the paper; 0 shifts nothing.
        each: whether every sample has its own shift; the authors' code draws one per batch.
    """

    def __init__(self, radius: int, *, each: bool) -> None:
        super().__init__()
        self.radius, self.each = radius, each

    def forward(self, x: Tensor) -> Tensor:
        if not (self.radius and self.training):
            return x
        count = len(x) if self.each else 1
        # a tensor on the device: reading the number would synchronize
        shift = torch.randint(-self.radius, self.radius + 1, (count, 1, 1), device=x.device)
        last = x.shape[2] - 1
        positions = (torch.arange(last + 1, device=x.device) - shift).abs()
        positions = last - (last - positions).abs()
        return x.gather(2, positions.expand(len(x), x.shape[1], -1))


class Generator(GeneratorNetwork):
    """A linear layer to 16 samples, then transposed convolutions of stride 4 with ReLU, and tanh.

    Args:
        sample_shape: (channels, length); 16 * 4^k or 32 * 4^k samples.
        num_classes: 0 for an unconditional generator.
        z_dim: length of z, uniform in [-1, 1].
        width: d in the paper: channels before the last layer; each coarser one has twice as many.
        kernel: length of all kernels.
        upsample: "zeros" or "nearest"; see `Upsample`.
        filter_length: of a learned filter after the network, 512 in the paper; 0 for none (section 3.1).

    Raises:
        InputError: for invalid lengths and modes.
    """

    z_distribution = "uniform"
    supports_z_truncation = False

    def __init__(
        self,
        *,
        sample_shape: tuple[int, int] | list[int],
        num_classes: int = 0,
        z_dim: int = 100,
        width: int = 64,
        kernel: int = 25,
        upsample: str = "zeros",
        filter_length: int = 0,
    ) -> None:
        super().__init__()
        channels, length = check_shape(sample_shape)
        if upsample not in ("zeros", "nearest"):
            raise InputError(f"upsample={upsample} must be zeros or nearest")
        self.z_dim, self.num_classes = z_dim, num_classes
        steps = strides(length)
        widths = [width << i for i in reversed(range(len(steps)))]
        self.start = nn.Linear(z_dim + num_classes, _START * widths[0])
        glorot(self.start.weight)
        nn.init.zeros_(self.start.bias)
        pairs = zip(widths, [*widths[1:], channels], steps, strict=True)
        self.layers = nn.ModuleList(
            Upsample(inputs, outputs, kernel=kernel, stride=stride, mode=upsample)
            for inputs, outputs, stride in pairs
        )
        self.filter: Downsample | None = None
        if filter_length:
            self.filter = Downsample(channels, channels, kernel=filter_length, stride=1)
            self.filter.register_parameter("bias", None)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to sound [N, C, T] in [-1, 1]."""
        inputs = torch.cat([z, label_vectors(labels, self.num_classes, z)], dim=1)
        x = self.start(inputs).unflatten(1, (_START, -1)).transpose(1, 2)
        for layer in self.layers:
            x = layer(relu(x))
        x = x.tanh()
        return x if self.filter is None else self.filter(x)


class Discriminator(ConditionedDiscriminator):
    """Convolutions of stride 4 with leaky ReLU and phase shuffle, then the logit.

    Args:
        sample_shape: (channels, length); 16 * 4^k or 32 * 4^k samples.
        num_classes: 0 for an unconditional discriminator.
        width: d in the paper: channels after the first layer; each coarser one has twice as many.
        kernel: length of all kernels.
        phase_shuffle: largest shift, n in the paper; 0 for none.
        shuffle_each: whether every sample is shifted by itself; see `PhaseShuffle`.
        conditioning: how D uses classes.
    """

    def __init__(
        self,
        *,
        sample_shape: tuple[int, int] | list[int],
        num_classes: int = 0,
        width: int = 64,
        kernel: int = 25,
        phase_shuffle: int = 2,
        shuffle_each: bool = False,
        conditioning: ConditioningFactory = Projection,
    ) -> None:
        super().__init__()
        channels, length = check_shape(sample_shape)
        steps = strides(length)
        widths = [channels, *(width << i for i in range(len(steps)))]
        pairs = zip(widths, widths[1:], steps, strict=False)
        self.layers = nn.ModuleList(
            Downsample(inputs, outputs, kernel=kernel, stride=stride)
            for inputs, outputs, stride in pairs
        )
        self.shuffle = PhaseShuffle(phase_shuffle, each=shuffle_each)
        features = _START * widths[-1]
        classes = self.condition(conditioning, features=features, num_classes=num_classes)
        self.logit = ProjectionLogit(features=features, num_classes=classes)
        for module in self.logit.children():
            glorot(module.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.logit.affine.bias)

    def extract(self, sounds: Tensor) -> Tensor:
        """Map sound [N, C, T] to features [N, F], the 16 coarsest samples' one after the other."""
        x = sounds
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = leaky_relu(layer(x), 0.2)
            # as the authors: after the first four layers, never after the last
            if number < min(last, 4):
                x = self.shuffle(x)
        return x.transpose(1, 2).flatten(1)

    def score(self, features: Tensor, labels: Tensor | None) -> Tensor:
        return self.logit(features, labels)


def check_shape(sample_shape: tuple[int, int] | list[int]) -> tuple[int, int]:
    """Return channels and length.

    Raises:
        InputError: for samples that are not sound.
    """
    if len(sample_shape) != 2:
        raise InputError(
            f"wavegan makes sound [channels, samples], and samples here have the shape {list(sample_shape)}; choose "
            "data=audio or data=tones, and for representation=spectrogram a model of images"
        )
    channels, length = sample_shape
    return channels, length


def glorot(weight: Tensor) -> None:
    """Draw weights uniformly as TensorFlow's layers do by default (Glorot and Bengio 2010)."""
    nn.init.xavier_uniform_(weight)


class WaveGAN(AdversarialModule):
    """The training loop with these networks and latents that are uniform in [-1, 1]."""
