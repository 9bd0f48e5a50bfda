"""Inception-v3 with the weights of the TensorFlow graph that FID, KID, IS and sFID were defined with.

The graph is `classify_image_graph_def.pb` of 2015-12-05; torch-fidelity's port of it normalizes and pools as that does
(https://github.com/toshas/torch-fidelity). torchvision's Inception and other resizers give other metrics, so there is
no fallback to them.
"""

import io
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    BasicConv2d,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x,
)

from gan_lab.errors import InputError
from gan_lab.metrics.features import PublishedExtractor, PublishedWeights

WEIGHTS = PublishedWeights(
    of="Inception's",
    url=URL_INCEPTION_V3,
    sha256=URL_INCEPTION_V3.rsplit("-", 1)[1].removesuffix(".pth"),
)

_SIZE = 299

_SPATIAL_CHANNELS = 7

_LAYERS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2",
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
    "Mixed_7a", "Mixed_7b", "Mixed_7c",
)  # fmt: skip

# layer -> output, its mean over the image
_POOLED = {
    "MaxPool_1": "features64",
    "MaxPool_2": "features192",
    "Mixed_6e": "features768",
    "Mixed_7c": "features",
}


class Inception(PublishedExtractor):
    """Inception-v3 of FID.

    Outputs: `features` [2048] (pool_3), `logits` [1008] without bias (as the Inception Score takes them), `spatial`
    [2023]: the first 7 channels of mixed_6/conv at 17x17 positions, those of sFID (OpenAI's guided-diffusion), and the
    means of earlier layers, `features64`, `features192`, `features768`.

    Args:
        resizer: "tensorflow", bilinear without antialiasing as in the graph; or "clean", antialiased bicubic without
            rounding, that of clean-fid (Parmar et al. 2022, https://arxiv.org/abs/2104.11222).
        weights: path of torch-fidelity's file; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16. The metrics are then not called FID.

    Raises:
        InputError: for an unknown resizer.
    """

    name = "inception-v3-compat"
    published = WEIGHTS

    def __init__(
        self,
        *,
        resizer: Literal["tensorflow", "clean"] = "tensorflow",
        weights: str | None = None,
        sha256: str | None = None,
        batch_size: int | None = None,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__(
            weights=weights, sha256=sha256, batch_size=batch_size, mixed_precision=mixed_precision
        )
        if resizer not in ("tensorflow", "clean"):
            raise InputError(f"features.resizer={resizer}: choose tensorflow or clean")
        self._resizer = resizer
        self.outputs = {
            "features": 2048,
            "logits": 1008,
            "spatial": _SPATIAL_CHANNELS * 17 * 17,
            "features768": 768,
            "features192": 192,
            "features64": 64,
        }
        self.short = "inception" if resizer == "tensorflow" else "inception_clean"
        self.short += "_bf16" if mixed_precision else ""
        how = {
            "tensorflow": "TensorFlow 1 bilinear to 299x299",
            "clean": "antialiased bicubic to 299x299 without rounding",
        }
        self.transform = f"uint8, {how[resizer]}"
        self.names = {} if mixed_precision else _names(resizer)

    def _load(self, device: torch.device) -> str:
        path, sha256 = self.find_weights()
        self._network = _folded(_build(path)).to(device)
        if device.type == "cpu":
            # 1.4 times as fast; changes the last bits
            self._network.to(memory_format=torch.channels_last)
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        missing = set(outputs)
        found: dict[str, Tensor] = {}
        x = (self._resized(images.expand(-1, 3, -1, -1).float()) - 128) / 128
        for name in _LAYERS:
            x = getattr(self._network, name)(x)
            if name in _POOLED:
                found[_POOLED[name]] = F.adaptive_avg_pool2d(x, 1).flatten(1)
            if name == "Mixed_6d" and "spatial" in missing:
                # the block begins with the channels of its 1x1 branch, which is mixed_6/conv
                found["spatial"] = x[:, :_SPATIAL_CHANNELS].flatten(1)
            missing -= found.keys()
            if not missing:
                return found
        weight: Tensor = self._network.fc.weight  # type: ignore[union-attr,assignment]
        found["logits"] = found["features"] @ weight.T
        return found

    def _resized(self, images: Tensor) -> Tensor:
        size = (_SIZE, _SIZE)
        with torch.autocast(images.device.type, enabled=False):
            if self._resizer == "tensorflow":
                return interpolate_bilinear_2d_like_tensorflow1x(
                    images, size=size, align_corners=False
                )
            # Pillow's filter on floats, to 0.01 gray levels; clean-fid cuts its overshoot off
            return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 255)


def _names(resizer: str) -> dict[tuple[str, str], str]:
    clean = "clean_" if resizer == "clean" else ""
    names = {("frechet", "features"): f"{clean}fid", ("kernel", "features"): f"{clean}kid"}
    if clean:
        return names
    return names | {
        ("frechet", "spatial"): "sfid",
        ("class_frechet", "features"): "class_fid",
        ("score", "logits"): "is",
    }


def _folded(network: nn.Module) -> nn.Module:
    """Fold batch norms into their convolutions, which saves a pass over memory each."""
    for block in network.modules():
        if isinstance(block, BasicConv2d):
            block.conv = fuse_conv_bn_eval(block.conv, block.bn)
            block.bn = nn.Identity()
    return network


def _build(weights: Path) -> nn.Module:
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # torch-fidelity unpickles its file, which may run code: it gets bytes written here
        safe = io.BytesIO()
        torch.save(dict(state), safe)
        safe.seek(0)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=safe,
        )
    except Exception as error:  # torch may raise anything for other files
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{weights} is not a state dict of torch-fidelity's Inception ({reason}); features.weights takes "
            f"{WEIGHTS.file_name} from {WEIGHTS.url}"
        ) from error
