"""DINOv2: vision transformers trained without labels.

Oquab et al. 2023, https://arxiv.org/abs/2304.07193; the transformer is that of Dosovitskiy et al. 2021,
https://arxiv.org/abs/2010.11929, with a learned scale of each residual (Touvron et al. 2021,
https://arxiv.org/abs/2103.17239). torch-fidelity uses torch.hub, which runs downloaded code; here the network is
implemented and only weights are read.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.transformer import SwiGLU
from gan_lab.metrics.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PublishedExtractor,
    PublishedWeights,
    no_such_weights,
    read_state,
    shown,
)

# published network -> (name of its file, width, SHA-256 as https://github.com/finegrain-ai/refiners records it)
MODELS = {
    "dinov2-vit-s-14": (
        "dinov2_vits14",
        384,
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    "dinov2-vit-b-14": (
        "dinov2_vitb14",
        768,
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    "dinov2-vit-l-14": (
        "dinov2_vitl14",
        1024,
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    ),
    "dinov2-vit-g-14": (
        "dinov2_vitg14",
        1536,
        "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
    ),
}

LEARNED_ON = "LVD-142M"

_PATCH = 14

_SIZE = 224

_HEAD_WIDTH = 64

_EPSILON = 1e-6

# the published code adds it to the number of patches, which shifts interpolated positions slightly
_OFFSET = 0.1


class DINOv2(PublishedExtractor):
    """DINOv2; the output `features` is the class token after the last normalization.

    Images are resized as torch-fidelity does. Stein et al. 2023 (https://arxiv.org/abs/2306.04675) resize with
    antialiasing, so their FD-DINOv2 differs.

    Args:
        model: "dinov2-vit-s-14", "-b-", "-l-" or "-g-".
        weights: path of the published file; None takes torch's cache, or downloads it to there.
        sha256: of that file, or the beginning of it; checked when given.
        batch_size: images of a forward pass; see `Extractor`.
        mixed_precision: compute in bfloat16.

    Raises:
        InputError: for an unknown model.
    """

    transform = f"uint8, TensorFlow 1 bilinear to {_SIZE}x{_SIZE}, ImageNet's mean and deviation"

    def __init__(
        self,
        *,
        model: str = "dinov2-vit-l-14",
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
        file, width, published = MODELS[model]
        self.name = model
        self.short = model.replace("-", "_") + ("_bf16" if mixed_precision else "")
        self.outputs = {"features": width}
        self.published = PublishedWeights(
            of=f"{model}'s",
            url=f"https://dl.fbaipublicfiles.com/dinov2/{file}/{file}_pretrain.pth",
            sha256=published,
        )

    def _load(self, device: torch.device) -> str:
        path, sha256 = self.find_weights()
        network = load_transformer(path, self.published, self.outputs["features"])
        self._network = network.to(device)
        return sha256

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Return features of whole images and of patches, [N, 1 + 256, width], of images [N, C, H, W] in [-1, 1]."""
        x = F.interpolate(images.expand(-1, 3, -1, -1), size=_SIZE, mode="bicubic")
        mean, std = (
            x.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        network = cast(VisionTransformer, self._network)
        return network.norm(network.encode(((x + 1) / 2 - mean) / std))

    def _forward(self, images: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return {"features": self._network(shown(images, _SIZE, IMAGENET_MEAN, IMAGENET_STD))}


class VisionTransformer(nn.Module):
    """Patches -> tokens -> blocks -> class token; parameters are named as in the published files.

    Args:
        width: of tokens.
        depth: number of blocks.
        hidden: width within the blocks' MLPs.
        gated: whether these are gated (SwiGLU), as in the largest network.
        grid: patches in a side of the images that it was trained on.
        patch: side of a patch.
    """

    def __init__(
        self, *, width: int, depth: int, hidden: int, gated: bool, grid: int, patch: int = _PATCH
    ) -> None:
        super().__init__()
        self.width = width
        self.grid = grid
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid * grid, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList(
            Block(width=width, hidden=hidden, gated=gated) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=_EPSILON)

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "VisionTransformer":
        """Build the network of a state dict, for evaluation.

        Raises:
            KeyError, RuntimeError, ValueError: for the state of something else.
        """
        gated = "blocks.0.mlp.w12.weight" in state
        inner = state["blocks.0.mlp.w3.weight" if gated else "blocks.0.mlp.fc2.weight"]
        _, tokens, width = state["pos_embed"].shape
        with torch.device("meta"):
            network = cls(
                width=width,
                depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
                hidden=inner.shape[1],
                gated=gated,
                grid=round((tokens - 1) ** 0.5),
                patch=state["patch_embed.proj.weight"].shape[-1],
            )
        # the mask token is for training only
        used = {key: value.float() for key, value in state.items() if key != "mask_token"}
        network.load_state_dict(used, assign=True)
        return network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, 3, H, W], whole patches in height and width, to class tokens [N, width]."""
        return self.norm(self.encode(images)[:, 0])

    def encode(self, images: Tensor) -> Tensor:
        """Map images to tokens [N, 1 + h w, width], the class's first, before the last normalization."""
        return self.stages(images, [len(self.blocks) - 1])[0]

    def stages(self, images: Tensor, ends: Sequence[int]) -> list[Tensor]:
        """Return the tokens after each of these blocks, by index."""
        patches = self.patch_embed["proj"](images)  # [N, width, h, w]
        positions = self.positions(patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)  # [N, h w, width]
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + positions
        found = {}
        for i, block in enumerate(self.blocks):
            x = found[i] = block(x)
        return [found[end] for end in ends]

    def positions(self, height: int, width: int) -> Tensor:
        """Return the learned positions of the class token and of a grid of patches, [1, 1 + h w, width]."""
        if (height, width) == (self.grid, self.grid):
            return self.pos_embed
        learned = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        scale = ((height + _OFFSET) / self.grid, (width + _OFFSET) / self.grid)
        moved = F.interpolate(learned, scale_factor=scale, mode="bicubic")
        assert moved.shape[2:] == (height, width)
        return torch.cat([self.pos_embed[:, :1], moved.flatten(2).transpose(1, 2)], dim=1)


class DINOv2Maps(nn.Module):
    """DINOv2 as the feature network of projected GANs: four maps, of the tokens after each quarter of the blocks.

    A transformer's maps are all of one size. They are resized by 4, 2, 1 and 1/2, as in
    Ranftl et al. 2021, https://arxiv.org/abs/2103.13413, section 3.1, without its convolutions.

    Attributes:
        channels: of the maps, fine to coarse.
        size: side that images are enlarged to.
        step: sides must be multiples of it.
        learned_on: data.
        published: the file of its weights.
        prefetch: arguments of `gan-lab prefetch` that download it.

    Args:
        model: as `DINOv2`'s.

    Raises:
        InputError: for an unknown model.
    """

    mean: Tensor
    std: Tensor
    size, step, learned_on = _SIZE, 2 * _PATCH, LEARNED_ON

    def __init__(self, model: str) -> None:
        super().__init__()
        extractor = DINOv2(model=model)
        self.width = extractor.outputs["features"]
        self.channels = (self.width,) * 4
        self.published = extractor.published
        self.prefetch = f"features=dinov2 features.model={model}"
        self.network: VisionTransformer | None = None
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None])

    def load(self, path: Path) -> None:
        """Load the weights of the published file.

        Raises:
            InputError: when the file holds something else.
        """
        self._take(load_transformer(path, self.published, self.width))

    def randomize(self) -> None:
        """Build four blocks with random weights, for tests."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            network = VisionTransformer(
                width=self.width, depth=4, hidden=self.width, gated=False, grid=_SIZE // _PATCH
            )
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.05)
        self._take(network.eval().requires_grad_(False))

    def _take(self, network: VisionTransformer) -> None:
        self.network = network.to(self.mean.device, self.mean.dtype)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images [N, 3, H, W] in [-1, 1] to four maps, fine to coarse; after `load` or `randomize`."""
        assert self.network is not None
        depth = len(self.network.blocks)
        grid = [side // _PATCH for side in images.shape[2:]]
        x = ((images + 1) / 2 - self.mean) / self.std
        maps = []
        ends = [ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)]
        for tokens, scale in zip(self.network.stages(x, ends), (4, 2, 1, 0.5), strict=True):
            found = self.network.norm(tokens[:, 1:]).transpose(1, 2).unflatten(2, grid)
            if scale > 1:
                found = F.interpolate(found, scale_factor=scale, mode="bilinear")
            maps.append(F.avg_pool2d(found, 2) if scale < 1 else found)
        return maps


def load_transformer(path: Path, published: PublishedWeights, width: int) -> VisionTransformer:
    """Read the network of a published file.

    Raises:
        InputError: when the file holds something else, or a network of another width.
    """
    try:
        network = VisionTransformer.of(read_state(path, published))
    except (KeyError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise no_such_weights(path, published, reason) from error
    if network.width != width:
        raise no_such_weights(path, published, f"features are {network.width} wide")
    return network


class Block(nn.Module):
    """Attention and MLP, each normalized before and scaled after."""

    def __init__(self, *, width: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = Attention(width=width)
        self.ls1 = Scale(width=width)
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = (SwiGLU if gated else Mlp)(width=width, hidden=hidden)
        self.ls2 = Scale(width=width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, L, width] to tokens."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Self-attention with heads of width 64."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, L, width] to tokens."""
        queries, keys, values = (
            self.qkv(x).unflatten(2, (3, -1, _HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        )  # [N, heads, L, 64] each
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with a GELU between."""

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, L, width] to tokens."""
        return self.fc2(F.gelu(self.fc1(x)))


class Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale tokens [N, L, width]."""
        return x * self.gamma
