"""Feature networks, one file each (the Hydra group `features=`), and their base classes.

An extractor is a network with published weights, or any network of yours.
"""

import hashlib
import http.client
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor, nn
from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x,
)

from gan_lab.console import say
from gan_lab.data.images import to_float
from gan_lab.errors import InputError, first_line
from gan_lab.metrics.cache import tensors_sha256

FORWARD_ON_CPU = 8  # images; fits a CPU's caches (1.4 times as fast as 64, with Inception)

FORWARD_ON_ACCELERATOR = 64


class WeightsUnavailable(InputError):
    """The usual weights are not on this machine and cannot be downloaded."""


class Extractor(ABC):
    """Computes features of stored samples, independent of other samples in the batch.

    Subclasses set the attributes, build their network in `_load` and run it in `_forward`. For other samples than
    images they override `check`.

    Attributes:
        name: of the network and its weights, in results: "inception-v3-compat".
        short: in keys: "inception".
        outputs: width of each output: {"features": 2048, "logits": 1008}. "features" are for comparing sets, "logits"
            are of classes; both may be missing.
        transform: description of the preprocessing, from 8-bit image to network input.
        names: (kind of metric, output) -> usual name, such as {("frechet", "features"): "fid"}; only for exactly the
            features that define it.
        channels: supported numbers of channels. Gray is repeated to RGB.

    Args:
        batch_size: images per forward pass, padded to always this many, since other batches round differently; None
            for 64, or 8 on a CPU.
        mixed_precision: whether to compute in bfloat16, which is then part of `transform`.
    """

    name: str
    short: str
    outputs: Mapping[str, int]
    transform: str
    names: Mapping[tuple[str, str], str] = {}
    channels: tuple[int, ...] = (1, 3)

    def __init__(self, *, batch_size: int | None = None, mixed_precision: bool = False) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"features.batch_size={batch_size} must be at least 1, or null")
        self._given_batch_size = batch_size
        self._mixed_precision = mixed_precision
        self._device: torch.device | None = None
        self._sha256 = ""

    @property
    def device(self) -> torch.device:
        """The device, after `load`."""
        assert self._device is not None, "load() comes first"
        return self._device

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights, after `load`."""
        assert self._sha256, "load() comes first"
        return self._sha256

    @property
    def batch_size(self) -> int:
        """Images of a forward pass."""
        default = FORWARD_ON_CPU if self.device.type == "cpu" else FORWARD_ON_ACCELERATOR
        return self._given_batch_size or default

    @property
    def precision(self) -> str:
        """Of the computation: float32 or bfloat16."""
        return "bfloat16" if self._mixed_precision else "float32"

    def load(self, device: torch.device) -> None:
        """Find and check the weights, and build the network on a device, once, before anything expensive.

        Raises:
            WeightsUnavailable: when the weights are missing and cannot be downloaded.
            InputError: when the weights are wrong.
        """
        if self._device != device:
            self._sha256 = self._load(device)
            self._device = device

    def prefetch(self) -> str:
        """Download and check the weights, and return their path; "" without a file."""
        return ""

    def check(self, shape: tuple[int, ...], what: str) -> None:
        """Check that the network supports samples of a shape.

        Args:
            shape: of one stored sample.
            what: name of the samples, for messages.

        Raises:
            InputError: with what to do.
        """
        if len(shape) != 3:
            raise InputError(
                f"{what} have the shape {list(shape)}: {self.name} takes images [C, H, W]; choose other features="
            )
        channels = shape[0]
        if channels in self.channels:
            return
        kind = "RGBA" if channels == 4 else f"{channels}-channel"
        raise InputError(
            f"{what} are {kind} images: {self.name} sees {' or '.join(map(str, self.channels))} channels only, and a "
            "background would have to be invented; set data.channels=3, or metrics=none"
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, outputs: Collection[str]) -> dict[str, Tensor]:
        """Return the chosen outputs, float32 [N, width] on the CPU, of stored samples [N, ...].

        Raises:
            InputError: for features that are not finite.
        """
        kept: dict[str, list[Tensor]] = {name: [] for name in outputs}
        autocast = torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self._mixed_precision
        )
        for part in images.split(self.batch_size):
            missing = self.batch_size - len(part)
            whole = (
                torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
            )
            # TensorFloat-32 changes a Frechet distance more than implementations differ
            exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=self._mixed_precision)
            with autocast, exact:
                made = self._forward(whole.to(self.device), frozenset(outputs))
            for name, values in made.items():
                if name in kept:
                    kept[name].append(values[: len(part)].float().cpu())
        found = {name: torch.cat(values) for name, values in kept.items()}
        for name, values in found.items():
            if not torch.isfinite(values).all():
                raise InputError(
                    f"{self.name} makes NaN or infinity ({name}) of some images; its weights are damaged, or "
                    "it overflows with mixed_precision=true"
                )
        return found

    @abstractmethod
    def _load(self, device: torch.device) -> str:
        """Build the network on a device and return the SHA-256 of its weights."""

    @abstractmethod
    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        """Return at least the chosen outputs [B, width] of stored samples [B, ...], on the device."""


_TIMEOUT_S = 20


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published file of weights.

    Attributes:
        of: whose weights, for messages: "Inception's".
        url: of the file; its last part is the name in torch's cache.
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
        """Its path in torch's cache."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file_name

    def find(self, path: str | None) -> Path:
        """Locate the file: the given one, else the one in torch's cache, else a download to there.

        Args:
            path: of a file in the same format; None for the usual one.

        Raises:
            InputError: when the given file does not exist.
            WeightsUnavailable: when it is not in the cache and cannot be downloaded.
        """
        if path is not None:
            given = Path(path).expanduser()
            if not given.is_file():
                raise InputError(
                    f"features.weights={path} is not a file; give the path of {self.file_name} (from {self.url}), or "
                    "leave it null to use the usual cache"
                )
            return given
        if not self.usual_path.is_file():
            self._download(self.usual_path)
        return self.usual_path

    def check(self, path: Path, expected: str | None) -> str:
        """Check the hash of a file.

        Args:
            path: the file; with the published name it must have the published content.
            expected: SHA-256 or the beginning of it; None takes any file of another name.

        Returns:
            The SHA-256.

        Raises:
            InputError: when the hash differs.
        """
        sha256 = file_sha256(path)
        wanted = expected or (self.sha256 if path.name == self.file_name else "")
        if not sha256.startswith(wanted.lower()):
            origin = "features.sha256" if expected else "its name"
            raise InputError(
                f"{path} has the SHA-256 {sha256}, but {origin} says {wanted}: it is damaged or another file; "
                f"delete it and get it again from {self.url}"
            )
        return sha256

    def _download(self, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{target}.lock"), _timeout(_TIMEOUT_S):
                if target.is_file():  # another process was faster
                    return
                say(f"downloading {self.url}")
                torch.hub.download_url_to_file(
                    self.url, str(target), hash_prefix=self.sha256, progress=False
                )
        # a RuntimeError is a wrong hash
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            raise WeightsUnavailable(
                f"{self.of} weights are missing: {target} does not exist and could not be downloaded ({error}). "
                f"On a machine that is online get {self.url}, put it there or set metrics.features.weights=PATH "
                "(in evaluate protocol.features.weights=PATH); or train with metrics=none"
            ) from error


class PublishedExtractor(Extractor):
    """An extractor with published weights.

    Attributes:
        published: the file that they are published in.

    Args:
        weights: path of that file; None takes torch's cache, or downloads it to there.
        sha256: of the file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.
    """

    published: PublishedWeights

    def __init__(
        self,
        *,
        weights: str | None = None,
        sha256: str | None = None,
        batch_size: int | None = None,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, mixed_precision=mixed_precision)
        self._path = weights
        self._expected = sha256
        self._network: nn.Module = nn.Module()

    def prefetch(self) -> str:
        return str(self.find_weights()[0])

    def find_weights(self) -> tuple[Path, str]:
        """Return the file, found or downloaded, and its SHA-256.

        Raises:
            InputError: as `PublishedWeights.find` and `check`.
        """
        path = self.published.find(self._path)
        return path, self.published.check(path, self._expected)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Set a timeout for connections: a cluster without internet may drop packets silently."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# Preprocessing of torch-fidelity.

IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)


def shown(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize as TensorFlow 1 did (bilinear, without antialiasing), then normalize.

    Args:
        images: uint8 [N, 1 or 3, H, W]; gray ones are repeated.
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
        InputError: when the file has other content.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if all(isinstance(value, Tensor) for value in state.values()):
            return dict(state)
        reason = "it holds more than tensors"
    except Exception as error:  # torch may raise anything for other files
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise no_such_weights(path, weights, reason)


def no_such_weights(path: Path, weights: PublishedWeights, reason: str) -> InputError:
    """Return the error for a file with other content."""
    return InputError(
        f"{path} does not hold {weights.of} weights ({reason}); features.weights takes {weights.file_name} from "
        f"{weights.url}"
    )


class ModuleFeatures(Extractor):
    """A module that maps images to features [N, D], or to a mapping of outputs.

    Args:
        name: of network and weights, for results; also in keys.
        module: takes float images [N, C, H, W].
        outputs: width of each output; a module that returns one tensor gives the first.
        image_size: pixels of each side, to which images are resized (bilinear, antialiased); None leaves them.
        mean: of each channel, subtracted from images in [0, 1]; None leaves images in [-1, 1].
        std: of each channel, by which they are then divided.
        weights: path of a state dict for the module; None takes it as it is built.
        sha256: of that file, or the beginning of it; checked when given.
        channels: supported numbers of channels; gray is repeated to RGB if 3 is among them.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.

    Raises:
        InputError: for inconsistent arguments.
    """

    def __init__(
        self,
        *,
        name: str,
        module: nn.Module,
        outputs: Mapping[str, int],
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        weights: str | None = None,
        sha256: str | None = None,
        channels: Sequence[int] = (1, 3),
        batch_size: int | None = None,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__(batch_size=batch_size, mixed_precision=mixed_precision)
        if not outputs or (mean is None) != (std is None):
            raise InputError(
                "features=module takes outputs={features: WIDTH}, and mean and std together"
            )
        self.name = name
        self.short = name.replace("-", "_")
        self.outputs = dict(outputs)
        self.channels = tuple(channels)
        scale = "in [-1, 1]" if mean is None else f"normalized by {list(mean)}, {list(std or ())}"
        size = f", antialiased bilinear to {image_size}x{image_size}" if image_size else ""
        self.transform = f"uint8{size}, {scale}"
        self._image_size, self._mean, self._std = image_size, mean, std
        self._path, self._expected = weights, sha256
        self._module = module.eval().requires_grad_(False)

    def _load(self, device: torch.device) -> str:
        sha256 = tensors_sha256(
            {name: value.cpu() for name, value in self._module.state_dict().items()}
        )
        if self._path is not None:
            path = Path(self._path).expanduser()
            if not path.is_file():
                raise InputError(f"features.weights={self._path} is not a file")
            sha256 = file_sha256(path)
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                self._module.load_state_dict(state)
            except Exception as error:  # torch may raise anything for other files
                raise InputError(
                    f"features.weights={path} is not a state dict of {self.name} ({first_line(error)})"
                ) from error
        if self._expected and not sha256.startswith(self._expected.lower()):
            raise InputError(
                f"the weights of {self.name} have the SHA-256 {sha256}, but features.sha256 says {self._expected}"
            )
        self._module.to(device)
        return sha256

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        if images.shape[1] == 1 and 3 in self.channels:
            images = images.expand(-1, 3, -1, -1)
        x = to_float(images)
        if self._image_size:
            x = F.interpolate(
                x, (self._image_size, self._image_size), mode="bilinear", antialias=True
            )
        if self._mean is not None and self._std is not None:
            mean, std = (x.new_tensor(values)[:, None, None] for values in (self._mean, self._std))
            x = ((x + 1) / 2 - mean) / std
        found = self._module(x)
        if isinstance(found, Tensor):
            found = {next(iter(self.outputs)): found}
        return {name: found[name].flatten(1) for name in outputs}


# No features: for protocols with metrics of images only.


class NoFeatures(Extractor):
    """features=none: no network."""

    name = "none"
    short = "none"
    transform = "none"
    outputs: Mapping[str, int] = {}

    def check(self, shape: tuple[int, ...], what: str) -> None:
        """Accept any samples."""

    def _load(self, device: torch.device) -> str:
        return hashlib.sha256(b"").hexdigest()

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return {}
