"""Images as the latents of an autoencoder, which are smaller than images and lack imperceptible detail.

Rombach et al. 2022, https://arxiv.org/abs/2112.10752: an autoencoder with a weak KL penalty, whose latents a model
learns instead of pixels. Its code is diffusers' (extra `latents`).
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gan_lab.data.sample import Representation, SampleSpec
from gan_lab.errors import InputError, import_extra
from gan_lab.layers.precision import full_precision


class Autoencoder(Representation):
    """Images [N, 3, H, W] as latents [N, 4, H / 8, W / 8] of diffusers' `AutoencoderKL`, times a scale.

    Latents are the encoder's means, so an image always has the same ones. They can be packed beside it
    (`prepare-data`). Runs and exports hold the autoencoder's weights.

    Args:
        model: folder with `config.json` and weights as safetensors, or a name on the Hugging Face hub.
        architecture: instead of `model`, the arguments of `AutoencoderKL`: for runs and exports, which hold the
            weights.
        scale: latents are multiplied by it, so that their deviation is about 1 (0.18215 for Stable Diffusion's).
        at_once: images that go through the autoencoder together.

    Raises:
        InputError: without diffusers, and for an unknown autoencoder.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        scale: float = 0.18215,
        at_once: int = 16,
    ) -> None:
        super().__init__()
        if scale <= 0 or at_once < 1:
            raise InputError(
                f"representation: scale={scale} must be positive and at_once={at_once} at least 1"
            )
        kind = autoencoder_class()
        if architecture is not None:
            network = kind.from_config(dict(architecture))
        elif model:
            network = loaded(kind, model)
        else:
            raise InputError(
                "representation.model is not set; set it to a folder or a name on the Hugging Face hub, such as "
                "stabilityai/sd-vae-ft-mse"
            )
        self.network = network.requires_grad_(False).eval()
        self.scale = float(scale)
        self.at_once = at_once

    @property
    def arguments(self) -> dict[str, Any]:
        known = {k: v for k, v in self.network.config.items() if not k.startswith("_")}
        architecture = {k: list(v) if isinstance(v, tuple) else v for k, v in known.items()}
        return {"architecture": architecture, "scale": self.scale, "at_once": self.at_once}

    @property
    def reduction(self) -> int:
        """Pixels of the image in a row of one of its latents."""
        return 2 ** (len(self.network.config["block_out_channels"]) - 1)

    @property
    def pack_name(self) -> str:
        """Names the autoencoder by its weights."""
        found = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return f"autoencoder-{found.hexdigest()[:24]}"

    def train(self, mode: bool = True) -> "Autoencoder":
        """Stay in evaluation mode."""
        return super().train(False)

    def check(self, spec: SampleSpec) -> None:
        channels, side = self.network.config["in_channels"], self.reduction
        if not spec.is_image or len(spec.shape) != 3 or spec.shape[0] != channels:
            raise InputError(
                f"representation=autoencoder takes 8-bit images of {channels} channels, and the data are "
                f"{spec.kind.name} of shape {list(spec.shape)}; set data.channels={channels}, or leave it out"
            )
        if any(length % side for length in spec.shape[1:]):
            raise InputError(
                f"representation=autoencoder: sides {list(spec.shape[1:])} must be multiples of {side}; set "
                "data.image_size="
            )

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        _, height, width = stored
        channels = self.network.config["latent_channels"]
        return channels, height // self.reduction, width // self.reduction

    def pack(self, samples: Tensor) -> Tensor:
        """Return the encoder's means [N, 4, H / 8, W / 8] of images in [-1, 1], not scaled."""
        # published autoencoders overflow in float16
        with torch.no_grad(), full_precision(samples.device):
            self._follow(samples)
            parts = samples.float().split(self.at_once)
            return torch.cat([self.network.encode(part).latent_dist.mode() for part in parts])

    def unpack(self, packed: Tensor) -> Tensor:
        return packed.float() * self.scale

    def encode(self, samples: Tensor) -> Tensor:
        return self.unpack(self.pack(samples))

    def decode(self, values: Tensor) -> Tensor:
        """Return images [N, 3, H, W] in about [-1, 1] of latents, differentiable by these."""
        with full_precision(values.device):
            self._follow(values)
            parts = (values.float() / self.scale).split(self.at_once)
            return torch.cat([self.network.decode(part).sample for part in parts])

    def _follow(self, values: Tensor) -> None:
        """Move to the device of values: a generator may be on another one than the data."""
        if self.network.device != values.device:
            self.network.to(values.device)


def autoencoder_class() -> Any:
    """Return diffusers' `AutoencoderKL`.

    Raises:
        InputError: without the extra `latents`.
    """
    library = import_extra("diffusers", extra="latents", what="representation=autoencoder")
    return library.AutoencoderKL


def loaded(kind: Any, model: str) -> Any:
    """Return a trained autoencoder.

    Raises:
        InputError: when it cannot be loaded.
    """
    try:
        return kind.from_pretrained(model, use_safetensors=True, low_cpu_mem_usage=False)
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise InputError(
            f"representation.model={model} cannot be loaded ({reason.strip()}); set it to a folder with "
            "config.json and diffusion_pytorch_model.safetensors, or a name on the Hugging Face hub"
        ) from error
