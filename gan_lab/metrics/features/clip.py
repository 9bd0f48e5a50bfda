"""CLIP's image encoders: features beyond ImageNet's classes.

Radford et al. 2021, https://arxiv.org/abs/2103.00020, with OpenAI's weights, as torch-fidelity runs them
(https://github.com/toshas/torch-fidelity): resized as TensorFlow 1 did, in float32.
"""

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, build_model

from gan_lab.errors import InputError, first_line
from gan_lab.metrics.features import (
    PublishedExtractor,
    PublishedWeights,
    no_such_weights,
    read_state,
    shown,
)

# published encoder -> (width of its features, side of the images that it sees)
MODELS = {
    "clip-rn50": (1024, 224),
    "clip-rn101": (512, 224),
    "clip-rn50x4": (640, 288),
    "clip-rn50x16": (768, 384),
    "clip-rn50x64": (1024, 448),
    "clip-vit-b-32": (512, 224),
    "clip-vit-b-16": (512, 224),
    "clip-vit-l-14": (768, 224),
    "clip-vit-l-14-336px": (768, 336),
}

_MEAN = (0.48145466, 0.4578275, 0.40821073)

_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class _Archive(PublishedWeights):
    """A file that torch-fidelity stores under another name."""

    stored_as: str

    @property
    def file_name(self) -> str:
        return self.stored_as


class CLIP(PublishedExtractor):
    """The image encoder of CLIP; the output `features` is its embedding, not normalized.

    Args:
        model: "clip-vit-b-32", or another of `MODELS`.
        weights: path of OpenAI's file, or of its state dict; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.

    Raises:
        InputError: for an unknown model.
    """

    def __init__(
        self,
        *,
        model: str = "clip-vit-b-32",
        weights: str | None = None,
        sha256: str | None = None,
        batch_size: int | None = None,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__(
            weights=weights, sha256=sha256, batch_size=batch_size, mixed_precision=mixed_precision
        )
        if model not in MODELS:
            raise InputError(f"features.model={model}: choose one of {', '.join(MODELS)}")
        width, self._size = MODELS[model]
        self.name = model
        self.short = model.replace("-", "_") + ("_bf16" if mixed_precision else "")
        self.outputs = {"features": width}
        self.transform = (
            f"uint8, TensorFlow 1 bilinear to {self._size}x{self._size}, CLIP's mean and deviation"
        )
        sha256_published = MODEL_METADATA[model]["hash"]
        self.published = _Archive(
            of=f"{model}'s",
            url=MODEL_URLS[model],
            sha256=sha256_published,
            stored_as=f"{model}-{sha256_published}.pt",
        )

    def _load(self, device: torch.device) -> str:
        path, sha256 = self.find_weights()
        state = self._read(path, known=sha256 == self.published.sha256 or bool(self._expected))
        try:
            network = build_model(state, torch.float32).visual
        except (KeyError, RuntimeError, ValueError, ZeroDivisionError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise no_such_weights(path, self.published, reason) from error
        found = (network.output_dim, network.input_resolution)
        if found != MODELS[self.name]:
            raise no_such_weights(path, self.published, f"width and image size are {found}")
        self._network = network.to(device)
        return sha256

    def _read(self, path: Path, *, known: bool) -> dict[str, Tensor]:
        if not _is_torchscript(path):
            return read_state(path, self.published)
        if not known:
            # such an archive is a program
            raise InputError(
                f"{path} is a TorchScript archive, which may run anything, and not the published one; if you trust it, "
                "set features.sha256 to its SHA-256"
            )
        try:
            with warnings.catch_warnings():
                # torch deprecates the format of the published file
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
        except RuntimeError as error:
            raise no_such_weights(path, self.published, first_line(error)) from error

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return {"features": self._network(shown(images, self._size, _MEAN, _STD))}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
