"""Inception-v3 with the weights of the TensorFlow graph that FID and IS were defined with, from torch-fidelity.

The graph is `classify_image_graph_def.pb` of 2015-12-05; torch-fidelity resizes, normalises and pools as that does
(https://github.com/toshas/torch-fidelity). torchvision's Inception and other resizers give other figures, so there
is no falling back to them.
"""

import hashlib
import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)

from gan_lab.console import say
from gan_lab.errors import InputError

WEIGHTS_NAME = URL_INCEPTION_V3.rsplit("/", 1)[1]
SHA256_PREFIX = WEIGHTS_NAME.removesuffix(".pth").rsplit("-", 1)[1]
WIDTHS = (64, 192, 768, 2048)
_TIMEOUT_S = 20


class WeightsUnavailable(InputError):
    """The usual weights are neither in torch's cache nor to be had from the network."""


def find_weights(path: str | None) -> Path:
    """Locate the weights: the given file, else the one that torch-fidelity keeps, else a download to there.

    Args:
        path: of a file in torch-fidelity's format; None for the usual one.

    Raises:
        InputError: when the given file does not exist.
        WeightsUnavailable: when there is no usual file and it cannot be downloaded.
    """
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_file():
            raise InputError(
                f"metrics.inception_weights={path} is no file; give the path of {WEIGHTS_NAME} "
                f"(from {URL_INCEPTION_V3}), or leave it null to use the usual cache"
            )
        return given
    usual = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    if not usual.is_file():
        _download(usual)
    return usual


def check_weights(path: Path, expected: str | None) -> str:
    """Hash a file of weights, and refuse it when it is not the one that it should be.

    Args:
        path: the file; under its usual name it has to have the usual content.
        expected: SHA-256 or the beginning of it; None takes any file of another name.

    Returns:
        The SHA-256.

    Raises:
        InputError: when the hash differs.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = expected or (SHA256_PREFIX if path.name == WEIGHTS_NAME else "")
    if not sha256.startswith(wanted.lower()):
        asked_by = "metrics.inception_sha256" if expected else "its name"
        raise InputError(
            f"{path} has the SHA-256 {sha256}, but {asked_by} says {wanted}: it is damaged or another file; "
            f"delete it and get it again from {URL_INCEPTION_V3}"
        )
    return sha256


class InceptionNetwork:
    """Features and logits of images, in float32 whatever the precision around it.

    Args:
        weights: file of a state dict of torch-fidelity's network; nothing else in it is run.
        width: of the features: 2048 (FID's), or those of an earlier layer, 64, 192 or 768.
        logits: whether to go on to the logits (without bias, as the Inception Score takes them).
        device: where to compute.
        batch_size: images that go through at once, which does not change their features. None takes 64, or on a
            CPU 8, whose activations stay in its caches (1.4 times as fast as 64).

    Raises:
        InputError: when the file holds something else.
    """

    def __init__(
        self,
        weights: Path,
        *,
        width: int,
        logits: bool,
        device: torch.device,
        batch_size: int | None = None,
    ) -> None:
        layers = [str(width), "logits_unbiased"] if logits else [str(width)]
        self.device = device
        self._batch_size = batch_size or (8 if device.type == "cpu" else 64)
        self._module = _load(weights, layers).to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features [N, width] and logits [N, 1008] of uint8 images [N, 1 or 3, H, W]; grey ones are repeated."""
        # TensorFloat-32 moves FID by more than the tools differ
        with (
            torch.autocast(self.device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            batches = [
                self._module(part.to(self.device).expand(-1, 3, -1, -1))
                for part in images.split(self._batch_size)
            ]
        features, *logits = (torch.cat(parts) for parts in zip(*batches, strict=True))
        return features, logits[0] if logits else None


def _load(weights: Path, layers: list[str]) -> nn.Module:
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # torch-fidelity reads its file with pickle, which may run anything: it is handed bytes written here
        safe = io.BytesIO()
        torch.save(dict(state), safe)
        safe.seek(0)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", layers, feature_extractor_weights_path=safe
        )
    except Exception as error:  # whatever a file that is something else makes torch raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{weights} is no state dict of torch-fidelity's Inception ({reason}); "
            f"metrics.inception_weights takes {WEIGHTS_NAME} from {URL_INCEPTION_V3}"
        ) from error


def _download(target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"), _timeout(_TIMEOUT_S):
            if target.is_file():  # another process has been faster
                return
            say(f"metrics: downloading {URL_INCEPTION_V3}")
            torch.hub.download_url_to_file(
                URL_INCEPTION_V3, str(target), hash_prefix=SHA256_PREFIX, progress=False
            )
    except (OSError, http.client.HTTPException, RuntimeError) as error:  # the last for a wrong hash
        raise WeightsUnavailable(
            f"Inception's weights are missing: {target} does not exist and could not be downloaded ({error}). "
            f"On a machine that is online get {URL_INCEPTION_V3}, put it there or set "
            "metrics.inception_weights=PATH; or set metrics=none"
        ) from error


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Let connections give up: on a cluster without a way out, packets may vanish without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
