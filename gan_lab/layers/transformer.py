"""Blocks of vision transformers: patches, position embeddings, attention, SwiGLU.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762 (attention, sinusoidal positions); Dosovitskiy et al. 2021,
https://arxiv.org/abs/2010.11929 (patches); Su et al. 2021, https://arxiv.org/abs/2104.09864 (rotary positions), by
row and column as in EVA-02 (Fang et al. 2023, https://arxiv.org/abs/2303.11331); Shazeer 2020,
https://arxiv.org/abs/2002.05202 (SwiGLU).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from gan_lab.errors import InputError
from gan_lab.layers.resolutions import ImageSize, image_shape

Recompute = bool | Literal["elementwise"]

_ATEN = torch.ops.aten
# operations that cost more to recompute than to store
_PRODUCTS = [
    *(_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default),
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_cudnn_attention.default,
]

LONGEST_WAVE = 10_000  # of the sinusoids, in tokens over 2 pi

NORM_EPS = 1e-6


def grid_of(image_size: ImageSize, patch: int) -> tuple[int, int]:
    """Return the rows and columns of patches.

    Raises:
        InputError: when the patch size does not divide the image size.
    """
    height, width = image_shape(image_size)
    if patch < 1 or height % patch or width % patch:
        raise InputError(
            f"image_size={image_size}: patch={patch} does not divide both sides; choose one that does"
        )
    return height // patch, width // patch


def patches_of(images: Tensor, patch: int) -> Tensor:
    """Split images [N, C, H, W] into patches [N, T, C * patch * patch], row by row."""
    count, channels, height, width = images.shape
    cut = images.view(count, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def images_of(tokens: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Assemble images [N, C, H, W] from tokens [N, T, patch * patch * C], channels last."""
    count, _, values = tokens.shape
    rows, columns = grid
    cut = tokens.view(count, rows, columns, patch, patch, values // patch**2)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(count, -1, rows * patch, columns * patch)


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Return sinusoidal position embeddings [T, width]: sines and cosines of each token's column, then of its row.

    Raises:
        InputError: for a width that is not a multiple of 4.
    """
    if width % 4:
        raise InputError(
            f"width={width} must be a multiple of 4, for sines and cosines of rows and columns"
        )
    rates = LONGEST_WAVE ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = rows_and_columns(grid)
    angles = [position.double().outer(rates) for position in (columns, rows)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1).float()


def rotations(grid: tuple[int, int], head_width: int, *, before: int = 0) -> Tensor:
    """Return the cosines and sines of rotary positions, half of a head's pairs by row, half by column.

    Args:
        grid: rows and columns of tokens.
        head_width: values per head.
        before: number of tokens before those of the grid, which are not rotated.

    Returns:
        [2, before + T, head_width].

    Raises:
        InputError: for a width that is not a multiple of 4.
    """
    if head_width % 4:
        raise InputError(
            f"heads of width {head_width} is not a multiple of 4, which rotary positions by row and column need"
        )
    half = head_width // 2
    rates = LONGEST_WAVE ** -(torch.arange(0, half, 2, dtype=torch.float64) / half)
    angles = [position.double().outer(rates) for position in rows_and_columns(grid)]
    angle = torch.cat(angles, dim=1).repeat_interleave(2, dim=1)
    angle = torch.cat([angle.new_zeros(before, head_width), angle])
    return torch.stack([angle.cos(), angle.sin()]).float()


def rows_and_columns(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return each token's row and column, [T], row by row."""
    rows, columns = (torch.arange(side) for side in grid)
    return rows.repeat_interleave(grid[1]), columns.repeat(grid[0])


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Apply rotary positions `turns` [2, T, D] to [N, heads, T, D]."""
    cos, sin = turns.to(x.dtype)
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.addcmul(x * cos, torch.stack([-odd, even], dim=-1).flatten(-2), sin)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions and, optionally, normalized queries and keys.

    Args:
        width: of tokens.
        heads: number of heads; it must divide the width.
        qk_norm: whether queries and keys are normalized (RMS norm of each head).

    Raises:
        InputError: when heads do not divide the width.
    """

    def __init__(self, *, width: int, heads: int, qk_norm: bool = True) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"heads={heads} do not divide width={width}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        norm: Callable[[], nn.Module] = nn.Identity
        if qk_norm:
            norm = lambda: nn.RMSNorm(width // heads)  # noqa: E731
        self.q_norm, self.k_norm = norm(), norm()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, turns: Tensor, twice: bool = False) -> Tensor:
        """Map tokens [N, T', width] to the same shape.

        Args:
            x: tokens.
            turns: as in `rotate`.
            twice: whether it will be differentiated twice, which fused kernels do not support.
        """
        queries, keys, values = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys = (
            rotate(norm(part), turns)
            for norm, part in ((self.q_norm, queries), (self.k_norm, keys))
        )
        if twice:
            shares = (queries @ keys.transpose(2, 3) / queries.shape[-1] ** 0.5).softmax(dim=3)
            mixed = shares.to(values.dtype) @ values
        else:
            queries, keys = queries.to(values.dtype), keys.to(values.dtype)
            mixed = scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """SwiGLU, a gated MLP: w3(silu(w1 x) * w2 x) (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, T, width] to the same shape."""
        gates, values = self.w12(x).chunk(2, dim=-1)
        return self.w3(silu(gates) * values)


class SlowLinear(nn.Module):
    """Linear layer with a learning rate multiplier: weights are stored as w / rate and used as w.

    Args:
        inputs: input features.
        outputs: output features.
        rate: multiplier of the learning rate.
    """

    def __init__(self, *, inputs: int, outputs: int, rate: float = 0.01) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight, gain=1 / rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs]."""
        return linear(x, self.weight * self.rate, self.bias * self.rate)


class Branches(nn.Module):
    """Base of transformer blocks: residual attention and residual SwiGLU.

    Args:
        width: of tokens.
        heads: of attention.
        qk_norm: as in `Attention`.
        hidden: SwiGLU's hidden width.
    """

    def __init__(self, *, width: int, heads: int, qk_norm: bool, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width=width, heads=heads, qk_norm=qk_norm)
        self.mlp = SwiGLU(width=width, hidden=hidden)

    def add(
        self,
        x: Tensor,
        turns: Tensor,
        prepare: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
        gates: tuple[Tensor, Tensor],
        *,
        twice: bool = False,
    ) -> Tensor:
        """Map tokens [N, T, width] to the same shape.

        Args:
            x: tokens.
            turns: as in `rotate`.
            prepare: applied to the input of each branch, such as its norm.
            gates: factor of each branch's output, [width] or [N, 1, width].
            twice: as in `Attention`.
        """
        x = torch.addcmul(x, gates[0], self.attention(prepare[0](x), turns, twice))
        return torch.addcmul(x, gates[1], self.mlp(prepare[1](x)))


def check_recompute(recompute: object) -> None:
    """Check the value of `recompute`.

    Raises:
        InputError: for anything else.
    """
    if recompute not in (True, False, "elementwise"):
        raise InputError(
            f"recompute={recompute!r} must be false, true, or elementwise: all but products and attention"
        )


def run_block(block: nn.Module, *inputs: object, recompute: Recompute) -> Tensor:
    """Run a block with activation checkpointing.

    Args:
        block: to run.
        inputs: of it.
        recompute: True recomputes all activations, "elementwise" all but matrix products and attention, which take
            most of the time and less than half of the memory.
    """
    if not recompute or not torch.is_grad_enabled():
        return block(*inputs)
    kept: dict[str, Any] = {}
    if recompute == "elementwise":
        kept = {"context_fn": partial(create_selective_checkpoint_contexts, _PRODUCTS)}
    # blocks have no randomness
    made: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, **kept)
    return made


def initialize_xavier(network: nn.Module) -> None:
    """Initialize linear layers and patch embeddings by Glorot and Bengio 2010; biases are 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
