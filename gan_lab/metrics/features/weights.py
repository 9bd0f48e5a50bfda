"""Published weights: found on this machine or downloaded, and checked by their hash."""

import hashlib
import http.client
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x,
)

from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.metrics.features.base import WeightsUnavailable

_TIMEOUT_S = 20


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A file of weights that everybody uses.

    Attributes:
        of: whose weights, for messages: "Inception's".
        url: where it is published; the end of it is its name in torch's cache.
        sha256: of the file, or the beginning of it.
    """

    of: str
    url: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[1]

    @property
    def usual_path(self) -> Path:
        """Where torch keeps it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file_name

    def find(self, path: str | None) -> Path:
        """Locate the file: the given one, else the one in torch's cache, else a download to there.

        Args:
            path: of a file in the same format; None for the usual one.

        Raises:
            InputError: when the given file does not exist.
            WeightsUnavailable: when there is no usual file and it cannot be downloaded.
        """
        if path is not None:
            given = Path(path).expanduser()
            if not given.is_file():
                raise InputError(
                    f"features.weights={path} is no file; give the path of {self.file_name} (from {self.url}), or "
                    "leave it null to use the usual cache"
                )
            return given
        if not self.usual_path.is_file():
            self._download(self.usual_path)
        return self.usual_path

    def check(self, path: Path, expected: str | None) -> str:
        """Hash a file, and refuse it when it is not the one that it should be.

        Args:
            path: the file; under its usual name it has to have the usual content.
            expected: SHA-256 or the beginning of it; None takes any file of another name.

        Returns:
            The SHA-256.

        Raises:
            InputError: when the hash differs.
        """
        sha256 = file_sha256(path)
        wanted = expected or (self.sha256 if path.name == self.file_name else "")
        if not sha256.startswith(wanted.lower()):
            asked_by = "features.sha256" if expected else "its name"
            raise InputError(
                f"{path} has the SHA-256 {sha256}, but {asked_by} says {wanted}: it is damaged or another file; "
                f"delete it and get it again from {self.url}"
            )
        return sha256

    def _download(self, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"), _timeout(_TIMEOUT_S):
                if target.is_file():  # another process has been faster
                    return
                say(f"downloading {self.url}")
                torch.hub.download_url_to_file(
                    self.url, str(target), hash_prefix=self.sha256, progress=False
                )
        # a RuntimeError is a wrong hash
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            raise WeightsUnavailable(
                f"{self.of} weights are missing: {target} does not exist and could not be downloaded ({error}). "
                f"On a machine that is online get {self.url}, put it there or set features.weights=PATH of the "
                "protocol; or set metrics=none"
            ) from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Let connections give up: on a cluster without a way out, packets may vanish without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# What networks share that see images as torch-fidelity shows them.

IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)


def shown(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize as TensorFlow 1 did (bilinear, without antialiasing), then normalise.

    Args:
        images: uint8 [N, 1 or 3, H, W]; grey ones are repeated.
        size: side of the result.
        mean: of each channel, in [0, 1].
        std: of each channel.

    Returns:
        float32 [N, 3, size, size].
    """
    with torch.autocast(images.device.type, enabled=False):
        x = interpolate_bilinear_2d_like_tensorflow1x(
            images.expand(-1, 3, -1, -1).float(), size=(size, size), align_corners=False
        )
        middle, spread = (x.new_tensor(values)[:, None, None] * 255 for values in (mean, std))
        return (x - middle) / spread


def read_state(path: Path, weights: PublishedWeights) -> dict[str, Tensor]:
    """Read a state dict; nothing else in the file is run.

    Raises:
        InputError: when the file holds something else.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if all(isinstance(value, Tensor) for value in state.values()):
            return dict(state)
        reason = "it holds more than tensors"
    except Exception as error:  # whatever a file that is something else makes torch raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise no_such_weights(path, weights, reason)


def no_such_weights(path: Path, weights: PublishedWeights, reason: str) -> InputError:
    """Return the error for a file that holds something else, with the remedy."""
    return InputError(
        f"{path} does not hold {weights.of} weights ({reason}); features.weights takes {weights.file_name} from "
        f"{weights.url}"
    )
