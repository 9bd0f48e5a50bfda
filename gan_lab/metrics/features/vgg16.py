"""VGG16 trained on ImageNet: features for precision and recall, LPIPS, and a distance for projection."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import VGG16_Weights, vgg16

from gan_lab.errors import InputError, first_line
from gan_lab.metrics.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Extractor,
    PublishedExtractor,
    PublishedWeights,
    WeightsUnavailable,
    file_sha256,
    no_such_weights,
    read_state,
    shown,
)
from gan_lab.sampling.targets import Distance, PyramidDistance

WEIGHTS = PublishedWeights(
    of="VGG16's",
    url=VGG16_Weights.IMAGENET1K_V1.url,
    sha256=VGG16_Weights.IMAGENET1K_V1.url.rsplit("-", 1)[1].removesuffix(".pth"),
)

_SIZE = 224


class VGG16(PublishedExtractor):
    """VGG16.

    Outputs: `features` [4096], the second fully connected layer after its ReLU, and `features_fc2` before it.

    Args:
        weights: path of torchvision's file; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.
    """

    name = "vgg16"
    published = WEIGHTS
    transform = f"uint8, TensorFlow 1 bilinear to {_SIZE}x{_SIZE}, ImageNet's mean and deviation"

    def __init__(
        self,
        *,
        weights: str | None = None,
        sha256: str | None = None,
        batch_size: int | None = None,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__(
            weights=weights, sha256=sha256, batch_size=batch_size, mixed_precision=mixed_precision
        )
        self.short = "vgg16_bf16" if mixed_precision else "vgg16"
        self.outputs = {"features": 4096, "features_fc2": 4096}

    def _load(self, device: torch.device) -> str:
        path, sha256 = self.find_weights()
        network = read_vgg16(path)
        network.classifier = network.classifier[:4]  # type: ignore[index]
        self._network = network.to(device)
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        before = self._network(shown(images, _SIZE, IMAGENET_MEAN, IMAGENET_STD))
        return {"features_fc2": before, "features": F.relu(before)}


def read_vgg16(path: Path) -> nn.Module:
    """Build torchvision's VGG16 of a file of its weights, for evaluation.

    Raises:
        InputError: when the file has other content.
    """
    state = read_state(path, WEIGHTS)
    with torch.device("meta"):  # without half a gigabyte of random initial weights
        network = vgg16()
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise no_such_weights(path, WEIGHTS, first_line(error)) from error
    return network.eval().requires_grad_(False)


# LPIPS: perceptual distance, by weighted differences of a network's features.
#
#     d(a, b) = sum_l mean_hw sum_c w_lc (f_lc(a) - f_lc(b))^2,  f normalized over channels at each position
#
# Zhang et al. 2018, https://arxiv.org/abs/1801.03924, equation 1; the VGG16 version that torch-fidelity and StyleGAN
# use for path lengths.


_LINEAR = PublishedWeights(
    of="LPIPS's linear",
    url="https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth",
    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)

_ENDS = (4, 9, 16, 23, 30)  # of the five parts of VGG16's features, each after a ReLU

_MEAN = (-0.030, -0.088, -0.188)  # of images in [-1, 1]

_STD = (0.458, 0.448, 0.450)


class ImageDistance(Extractor):
    """A network that computes the distance of two images, without quantizing them."""

    @abstractmethod
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the squared distance [N] of float images [N, C, H, W] in [-1, 1], on their device."""


class LPIPS(PublishedExtractor, ImageDistance):
    """LPIPS of VGG16. It has no outputs: its features of an image depend on the image's size.

    Args:
        weights: path of torchvision's VGG16; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        linear: path of the weights w, LPIPS version 0.1; None takes the file that torchmetrics has.
    """

    name = "lpips-vgg16"
    published = WEIGHTS
    short = "lpips"
    transform = "float, not resized"
    outputs: Mapping[str, int] = {}
    names: Mapping[tuple[str, str], str] = {("path", "features"): "ppl"}

    def __init__(
        self, *, weights: str | None = None, sha256: str | None = None, linear: str | None = None
    ) -> None:
        super().__init__(weights=weights, sha256=sha256)
        self._linear = linear

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return self._network(a, b)

    def _load(self, device: torch.device) -> str:
        path, sha256 = self.find_weights()
        linear = linear_weights(self._linear)
        parts = (sha256, file_sha256(linear))
        features = read_vgg16(path).features
        assert isinstance(features, nn.Sequential)
        state = read_state(linear, _LINEAR)
        try:
            weights = [state[f"lin{i}.model.1.weight"].float() for i in range(len(_ENDS))]
        except KeyError as error:
            raise InputError(f"{linear} holds no weights of LPIPS ({error} is missing)") from error
        self._network = VGG16Distance(features, weights).to(device).eval().requires_grad_(False)
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return {}


class VGG16Distance(nn.Module):
    """LPIPS as a module.

    Args:
        features: torchvision's VGG16, its convolutional part.
        weights: [1, C, 1, 1] for each of the five parts.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential, weights: list[Tensor]) -> None:
        super().__init__()
        starts = (0, *_ENDS[:-1])
        self.parts = nn.ModuleList(
            features[start:end] for start, end in zip(starts, _ENDS, strict=True)
        )
        self.weights = nn.ParameterList(weights)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance [N] of images [N, 1 or 3, H, W] in [-1, 1]; gray ones are repeated."""
        both = torch.cat([a, b]).expand(-1, 3, -1, -1)
        x = (both - self.mean) / self.std
        total = x.new_zeros(len(a))
        for part, weight in zip(self.parts, self.weights, strict=True):
            x = part(x)
            ours, theirs = (x / (x.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
            total = total + (weight * (ours - theirs).square()).sum(1).mean((1, 2))
        return total


def linear_weights(path: str | None) -> Path:
    """Return the file of the weights w: the given one, else the one that comes with torchmetrics.

    Raises:
        InputError: when it does not exist.
    """
    own = files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"
    found = Path(str(own)) if path is None else Path(path).expanduser()
    if not found.is_file():
        raise InputError(
            f"LPIPS's weights are not at {found}; get {_LINEAR.url} and set features.linear=PATH"
        )
    return found


KINDS = ("auto", "lpips", "pyramid")
CONFIGURED = "as configured"

_SEEN_BY_LPIPS = 256  # pixels of a side at most, as in StyleGAN2's projections ...

_SEEN_AT_LEAST = 64  # ... and at least: VGG16 halves four times


class PerceptualDistance(Distance):
    """LPIPS with VGG16, on images of 64 to 256 pixels a side (Karras et al. 2020, appendix D, for the upper bound).

    Args:
        lpips: not yet loaded.
        device: of the images.
        why: it was chosen.

    Raises:
        WeightsUnavailable: when its weights are missing and cannot be downloaded.
    """

    def __init__(self, lpips: LPIPS, device: torch.device, *, why: str) -> None:
        lpips.load(device)
        self.why = why
        self._lpips = lpips
        self.name = f"{lpips.name} ({lpips.sha256[:12]})"

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        return self._lpips.distance(resize_for_vgg16(images), resize_for_vgg16(targets))


def resize_for_vgg16(images: Tensor) -> Tensor:
    """Bring images to a size for VGG16: means over pixels downwards, bilinear upwards."""
    short, long = sorted(images.shape[2:])
    if long > _SEEN_BY_LPIPS:
        factor = _SEEN_BY_LPIPS / long
        return interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    if short < _SEEN_AT_LEAST:
        return interpolate(images, scale_factor=_SEEN_AT_LEAST / short, mode="bilinear")
    return images


def choose_distance(
    kind: str = "auto",
    *,
    channels: int,
    device: torch.device,
    weights: str | None = None,
) -> Distance:
    """Return the distance for a projection to minimize.

    Args:
        kind: "lpips" (which may download VGG16's weights), "pyramid", or "auto": LPIPS where the weights are on this
            machine.
        channels: of the images; LPIPS sees 1 or 3.
        device: of the images.
        weights: path of torchvision's VGG16; None looks into torch's cache.

    Raises:
        InputError: for another kind, missing weights, and LPIPS with other channels.
    """
    if kind not in KINDS:
        raise InputError(f"distance={kind!r} must be one of {', '.join(KINDS)}")
    if kind == "pyramid":
        return PyramidDistance(why=CONFIGURED)
    if kind == "auto":
        missing = weights is None and not WEIGHTS.usual_path.is_file()
        if missing:
            return PyramidDistance(why=f"VGG16's weights are not at {WEIGHTS.usual_path}")
        if channels not in LPIPS.channels:
            return PyramidDistance(why=f"LPIPS sees no images of {channels} channels")
    if weights is not None and not Path(weights).expanduser().is_file():
        raise InputError(f"vgg16={weights} is not a file; give {WEIGHTS.file_name}, or null")
    lpips = LPIPS(weights=weights)
    lpips.check((channels, 1, 1), "the model's")
    try:
        return PerceptualDistance(
            lpips, device, why=CONFIGURED if kind == "lpips" else "weights found"
        )
    except WeightsUnavailable as error:
        raise InputError(
            f"distance=lpips: VGG16's weights are not on this machine and could not be downloaded; get "
            f"{WEIGHTS.url} and set vgg16=PATH, or take distance=pyramid"
        ) from error
