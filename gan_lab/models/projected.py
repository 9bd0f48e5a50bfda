"""Projected GANs: discriminators on a frozen network's features, mixed at random over channels and scales.

Sauer et al. 2021, https://arxiv.org/abs/2111.01007; what the paper leaves open is as in the authors' code (MIT),
https://github.com/autonomousvision/projected-gan. Random 1x1 convolutions mix the channels of four feature maps, then
each with the upsampled next coarser one (section 3.2); each result has a small patch discriminator. The discriminator
goes with any generator of images: `discriminator=projected`. DINOv2 instead of EfficientNet is our own
addition; StyleGAN-T (Sauer et al. 2023, https://arxiv.org/abs/2301.09515) uses a self-supervised transformer, too.

EfficientNet was trained on ImageNet's labels, as FID's Inception was, so FID overestimates the quality
(Kynkaanniemi et al. 2023, https://arxiv.org/abs/2203.06026).
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from gan_lab.console import say
from gan_lab.errors import InputError, first_line, import_extra
from gan_lab.layers.conditioning import PatchLogits
from gan_lab.layers.networks import DiscriminatorInput, DiscriminatorNetwork, tensors_of
from gan_lab.layers.spectral_norm import stored_spectral_norm
from gan_lab.metrics.features import (
    PublishedExtractor,
    PublishedWeights,
    WeightsUnavailable,
    no_such_weights,
    read_state,
)
from gan_lab.metrics.features.dinov2 import MODELS, DINOv2Maps

EFFICIENTNET = "efficientnet-lite0"

RANDOM = "random"  # random weights of the frozen network, for tests

# EfficientNet-lite0 trained on ImageNet, the frozen network.
#
# Tan and Le 2019, https://arxiv.org/abs/1905.11946, in the version without squeeze-and-excitation; timm's network and
# weights, converted from TensorFlow's.


WEIGHTS = PublishedWeights(
    of="EfficientNet-lite0's",
    url="https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-weights/"
    "tf_efficientnet_lite0-0aa007d2.pth",
    sha256="0aa007d2",
)

LEARNED_ON = "ImageNet"

SIZE = 224

# of the four maps that `stages` returns, fine to coarse: an eighth of the image, ... at 224 pixels 56, 28, 14, 7
CHANNELS = (24, 40, 112, 320)

_ENDS = (2, 3, 5, 7)  # the block of the network that each of them ends with


class EfficientNet(nn.Module):
    """EfficientNet without its classifier; attributes as `DINOv2Maps`'.

    Raises:
        InputError: where timm is not installed.
    """

    channels, size, step, learned_on = CHANNELS, SIZE, 32, LEARNED_ON
    published, prefetch = WEIGHTS, "features=efficientnet"

    def __init__(self) -> None:
        super().__init__()
        timm = import_extra("timm", extra="projected", what="EfficientNet-lite0")
        # a fixed seed, and the random state of training is untouched
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        starts = (0, *_ENDS[:-1])
        self.blocks = nn.ModuleList(
            network.blocks[start:end] for start, end in zip(starts, _ENDS, strict=True)
        )
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "EfficientNet":
        """Stay in evaluation mode: the network is frozen."""
        return super().train(False)

    def randomize(self) -> None:
        """Keep the random weights, for tests."""

    def load(self, path: Path) -> None:
        """Load the weights from timm's file.

        Raises:
            InputError: when the file has other content.
        """
        state = read_state(path, WEIGHTS)
        names = {f"stem.{i}.": f"{name}." for i, name in enumerate(("conv_stem", "bn1"))}
        starts = (0, *_ENDS[:-1])
        for part, (start, end) in enumerate(zip(starts, _ENDS, strict=True)):
            names |= {f"blocks.{part}.{i}.": f"blocks.{i}." for i in range(start, end)}
        renamed = {}
        for own in self.state_dict():
            prefix = next(prefix for prefix in names if own.startswith(prefix))
            theirs = names[prefix] + own.removeprefix(prefix)
            if theirs in state:
                renamed[own] = state[theirs]
        try:
            self.load_state_dict(renamed)
        except RuntimeError as error:
            raise no_such_weights(path, WEIGHTS, first_line(error)) from error

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images [N, 3, H, W] in [-1, 1], as the network was trained with, to four maps, fine to coarse."""
        x = self.stem(images)
        maps = []
        for part in self.blocks:
            x = part(x)
            maps.append(x)
        return maps


class EfficientNetLite0(PublishedExtractor):
    """EfficientNet-lite0; its output `features` is the spatial mean of its coarsest map.

    Args:
        weights: path of timm's file; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.
    """

    name = "efficientnet-lite0"
    short = "efficientnet_lite0"
    published = WEIGHTS
    transform = f"[-1, 1], bilinear to {SIZE}x{SIZE}"
    outputs = {"features": CHANNELS[-1]}  # noqa: RUF012

    def _load(self, device: torch.device) -> str:
        path, sha256 = self.find_weights()
        network = EfficientNet()
        network.load(path)
        self._network = network.to(device)
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        x = images.expand(-1, 3, -1, -1).float() / 127.5 - 1
        x = F.interpolate(x, size=SIZE, mode="bilinear")
        return {"features": self._network(x)[-1].mean((2, 3))}


# Discriminator

# feature map sizes that the small discriminators are built for, at any image size
SIDES = (128, 64, 32, 16)

END = 8  # size of a small discriminator's last feature map

WIDTHS = {8: 512, 16: 256, 32: 128, 64: 64, 128: 64}


class Mixing(nn.Module):
    """Random, frozen 1x1 convolutions: cross-channel mixing of each map, then cross-scale mixing with coarser maps.

    Attributes:
        widths: output channels, fine to coarse.
        sides: nominal sizes of the output maps.

    Args:
        channels: of the feature maps, fine to coarse.
        width: output channels of the finest map.
        expand: whether each coarser map has twice as many channels.
        scales: whether maps are mixed with upsampled coarser ones, which doubles their size.
    """

    def __init__(
        self, *, channels: tuple[int, ...], width: int, expand: bool, scales: bool
    ) -> None:
        super().__init__()
        mixed = [width << i if expand else width for i in range(len(channels))]
        self.by_channel = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(channels, mixed, strict=True)
        )
        # halves the channels of all maps but the finest
        after = [mixed[max(i - 1, 0)] for i in range(len(mixed))]
        self.by_scale = nn.ModuleList(
            nn.Conv2d(*pair, 1) for pair in zip(mixed, after, strict=True) if scales
        )
        self.widths = after if scales else mixed
        self.sides = [side if scales else side // 2 for side in SIDES]
        self.requires_grad_(False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Mix four maps [N, C, H, W], fine to coarse."""
        mixed = [layer(x) for layer, x in zip(self.by_channel, maps, strict=True)]
        if not self.by_scale:
            return mixed
        made: list[Tensor] = []
        for x, layer in zip(reversed(mixed), reversed(self.by_scale), strict=True):
            x = x + made[-1] if made else x
            x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            made.append(layer(x))
        return made[::-1]


class SmallDiscriminator(nn.Module):
    """Downsampling blocks down to 8 pixels, then patch logits.

    Args:
        channels: of the features.
        side: their nominal size.
        num_classes: 0 for no classes.
        separable: whether convolutions are depthwise separable, as for StyleGAN2.
    """

    def __init__(self, *, channels: int, side: int, num_classes: int, separable: bool) -> None:
        super().__init__()
        widths = [channels]
        while side > END:
            side //= 2
            widths.append(WIDTHS[side])
        self.blocks = nn.Sequential(*(halving(*pair, separable) for pair in pairwise(widths)))
        self.logits = PatchLogits(
            features=widths[-1], num_classes=num_classes, norm=stored_spectral_norm
        )

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, C, H, W] (and labels [N]) to logits [N, P]."""
        return self.logits(self.blocks(x), labels)


def halving(inputs: int, outputs: int, separable: bool) -> nn.Sequential:
    """Return a strided convolution, batch norm and leaky ReLU."""
    if not separable:
        conv = stored_spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))
    by_channel = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    by_place = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(
        nn.Sequential(stored_spectral_norm(by_channel), stored_spectral_norm(by_place)),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2),
        nn.AvgPool2d(2),
    )


class Discriminator(DiscriminatorNetwork):
    """A frozen EfficientNet-lite0 or DINOv2, random mixing, and four small discriminators with patch logits.

    Images are resized to 224 pixels (the shorter side).

    Attributes:
        features_of: the data set that the frozen network was trained on.

    Args:
        channels: of the image, 1 or 3.
        backbone: the frozen network: "efficientnet-lite0", or "dinov2-vit-s-14", "-b-", "-l-", "-g-".
        num_classes: 0 for an unconditional discriminator.
        width: channels of the finest mixed map.
        expand: whether each coarser map has twice as many channels.
        scales: whether maps are also mixed across scales.
        num_discriminators: number of small discriminators, on the finest maps.
        separable: whether their convolutions are depthwise separable, as the authors use for StyleGAN2.
        weights: path of the frozen network's file; null takes torch's cache; "random" keeps random
            weights, for tests; this is then no projected GAN.

    Raises:
        InputError: for an unsupported number of channels, an unknown backbone, and where timm is missing.
    """

    def __init__(
        self,
        *,
        channels: int,
        num_classes: int = 0,
        backbone: str = EFFICIENTNET,
        width: int = 64,
        expand: bool = True,
        scales: bool = True,
        num_discriminators: int = 4,
        separable: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise InputError(
                f"discriminator=projected sees images of 1 or 3 channels, not {channels}; set data.channels=3"
            )
        if not 1 <= num_discriminators <= len(SIDES):
            raise InputError(f"num_discriminators={num_discriminators} must be 1 to {len(SIDES)}")
        if backbone not in (EFFICIENTNET, *MODELS):
            known = ", ".join((EFFICIENTNET, *MODELS))
            raise InputError(f"discriminator.backbone={backbone} must be one of {known}")
        self.num_classes = num_classes
        self.weights = weights
        # not a submodule: its weights are read from their file, and checkpoints stay small
        self._frozen = (EfficientNet() if backbone == EFFICIENTNET else DINOv2Maps(backbone),)
        self.features_of = self.features.learned_on
        if weights == RANDOM:
            self.features.randomize()
        self.mixing = Mixing(
            channels=self.features.channels, width=width, expand=expand, scales=scales
        )
        self.discriminators = nn.ModuleList(
            SmallDiscriminator(
                channels=outputs, side=side, num_classes=num_classes, separable=separable
            )
            for outputs, side in list(zip(self.mixing.widths, self.mixing.sides, strict=True))[
                :num_discriminators
            ]
        )

    @property
    def features(self) -> EfficientNet | DINOv2Maps:
        """The frozen network."""
        return self._frozen[0]

    def _apply(self, *args: Any, **kwargs: Any) -> "Discriminator":
        self.features._apply(*args, **kwargs)
        return super()._apply(*args, **kwargs)

    def prepare(self) -> None:
        """Load the frozen network's weights and log which.

        Raises:
            InputError: when they are not on this machine and cannot be downloaded.
        """
        if self.weights == RANDOM:
            say("projected: the frozen network has random weights; this is not a projected GAN")
            return
        published = self.features.published
        try:
            path = published.find(self.weights)
        except WeightsUnavailable as error:
            raise InputError(
                f"discriminator=projected needs {published.of} weights, {published.usual_path}, which could not be "
                f"downloaded; gan-lab prefetch {self.features.prefetch} gets them, or set discriminator.weights=PATH"
            ) from error
        published.check(path, None)
        self.features.load(path)
        say(f"projected: D sees features of {path.name}, learned on {self.features_of}")

    def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to logits [N, P]; of several stages, of the last."""
        stages = tensors_of(x)
        images = stages[-1]
        if any(part.ndim != 4 for part in stages):
            raise InputError(
                "discriminator=projected takes images only, and this model gives it tuples; choose another model"
            )
        # a multiple of the coarsest map's stride, since its size doubles
        step, cells = self.features.step, self.features.size // self.features.step
        short = min(images.shape[2:])
        sides = [round(cells * side / short) * step for side in images.shape[2:]]
        images = interpolate(images, size=sides, mode="bilinear").expand(-1, 3, -1, -1)
        return self.from_features(self.features(images), labels)

    def mix(self, maps: list[Tensor]) -> list[Tensor]:
        """Mix four maps of the frozen network, fine to coarse."""
        made: list[Tensor] = self.mixing(maps)
        return made

    def from_features(self, maps: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """Map four maps of the frozen network (and labels [N]) to logits [N, P]."""
        if labels is not None and labels.ndim == 2:
            # published embeddings have more rows than there are classes
            labels = pad(labels, (0, self.num_classes - labels.shape[1]))
        made = zip(self.discriminators, self.mix(maps), strict=False)
        return torch.cat([network(x, labels) for network, x in made], dim=1)
