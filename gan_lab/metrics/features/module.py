"""Any network as an extractor."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.data.images import to_float
from gan_lab.errors import InputError
from gan_lab.metrics.cache import tensors_sha256
from gan_lab.metrics.features.base import Extractor, file_sha256


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
        channels: numbers of channels that images may have; grey ones are repeated to RGB where 3 is among them.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.

    Raises:
        InputError: for arguments that do not fit together.
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
        scale = "in [-1, 1]" if mean is None else f"normalised by {list(mean)}, {list(std or ())}"
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
                raise InputError(f"features.weights={self._path} is no file")
            sha256 = file_sha256(path)
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                self._module.load_state_dict(state)
            except Exception as error:  # torch raises many types for a file that is something else
                raise InputError(
                    f"features.weights={path} is no state dict of {self.name} ({str(error).splitlines()[0]})"
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


# No features: for protocols whose metrics are made of images alone.


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
