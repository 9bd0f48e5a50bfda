"""LPIPS: how far apart two images look, by weighted differences of a network's features.

    d(a, b) = sum_l mean_hw sum_c w_lc (f_lc(a) - f_lc(b))^2,  f normalised over channels at each place

Zhang et al. 2018, https://arxiv.org/abs/1801.03924, equation 1; the version of VGG16 that torch-fidelity and StyleGAN
measure path lengths with.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.metrics.features.base import Extractor
from gan_lab.metrics.features.vgg16 import WEIGHTS as VGG16_WEIGHTS
from gan_lab.metrics.features.vgg16 import read_vgg16
from gan_lab.metrics.features.weights import PublishedWeights, file_sha256, read_state

_LINEAR = PublishedWeights(
    of="LPIPS's linear",
    url="https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth",
    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
)

_ENDS = (4, 9, 16, 23, 30)  # of the five parts of VGG16's features, each behind a rectifier

_MEAN = (-0.030, -0.088, -0.188)  # of images in [-1, 1]

_STD = (0.458, 0.448, 0.450)


class ImageDistance(Extractor):
    """A network that tells how far apart two images are, without quantising them."""

    @abstractmethod
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the squared distance [N] of float images [N, C, H, W] in [-1, 1], on their device."""


class LPIPS(ImageDistance):
    """LPIPS of VGG16. It has no output of its own: what it makes of one image depends on the image's size.

    Args:
        weights: path of torchvision's VGG16; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        linear: path of the weights w, LPIPS version 0.1; None takes the file that torchmetrics has.
    """

    name = "lpips-vgg16"
    short = "lpips"
    transform = "float, not resized"
    outputs: Mapping[str, int] = {}
    names: Mapping[tuple[str, str], str] = {("path", "features"): "ppl"}

    def __init__(
        self, *, weights: str | None = None, sha256: str | None = None, linear: str | None = None
    ) -> None:
        super().__init__()
        self._path = weights
        self._expected = sha256
        self._linear = linear
        self._network: VGG16Distance | None = None

    def prefetch(self) -> str:
        path = VGG16_WEIGHTS.find(self._path)
        VGG16_WEIGHTS.check(path, self._expected)
        return str(path)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        assert self._network is not None, "load() comes first"
        return self._network(a, b)

    def _load(self, device: torch.device) -> str:
        path = VGG16_WEIGHTS.find(self._path)
        linear = linear_weights(self._linear)
        parts = (VGG16_WEIGHTS.check(path, self._expected), file_sha256(linear))
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
    """The distance itself.

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
        """Return the distance [N] of images [N, 1 or 3, H, W] in [-1, 1]; grey ones are repeated."""
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
        InputError: when it is not there.
    """
    own = files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"
    found = Path(str(own)) if path is None else Path(path).expanduser()
    if not found.is_file():
        raise InputError(
            f"LPIPS's weights are not at {found}; get {_LINEAR.url} and set features.linear=PATH"
        )
    return found
