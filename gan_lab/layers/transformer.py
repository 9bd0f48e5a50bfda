"""Blocks of transformers on patches of images: positions, attention, gated layers.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762 (attention, sines as positions); Dosovitskiy et al. 2021,
https://arxiv.org/abs/2010.11929 (patches); Su et al. 2021, https://arxiv.org/abs/2104.09864 (rotary positions), turned
by row and column as in EVA-02 (Fang et al. 2023, https://arxiv.org/abs/2303.11331); Shazeer 2020,
https://arxiv.org/abs/2002.05202 (SwiGLU).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

from gan_lab.errors import InputError
from gan_lab.layers.resolutions import ImageSize, image_shape

LONGEST_WAVE = 10_000  # of positions, in tokens over 2 pi

NORM_EPS = 1e-6


def grid_of(image_size: ImageSize, patch: int) -> tuple[int, int]:
    """Return (rows, columns) of patches.

    Raises:
        InputError: where patches do not tile the image.
    """
    height, width = image_shape(image_size)
    if patch < 1 or height % patch or width % patch:
        raise InputError(
            f"image_size={image_size}: patch={patch} does not divide both sides; choose one that does"
        )
    return height // patch, width // patch


def patches_of(images: Tensor, patch: int) -> Tensor:
    """Cut images [N, C, H, W] into rows of patches, [N, T, C * patch * patch]."""
    count, channels, height, width = images.shape
    cut = images.view(count, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def images_of(tokens: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Put images [N, C, H, W] together of tokens [N, T, patch * patch * C], whose channels come last."""
    count, _, values = tokens.shape
    rows, columns = grid
    cut = tokens.view(count, rows, columns, patch, patch, values // patch**2)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(count, -1, rows * patch, columns * patch)


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Return sines and cosines of each token's column, then of its row, [T, width].

    Raises:
        InputError: for a width that is not a multiple of 4.
    """
    if width % 4:
        raise InputError(
            f"width={width} must be a multiple of 4: sines and cosines of rows and columns"
        )
    rates = LONGEST_WAVE ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = rows_and_columns(grid)
    angles = [place.double().outer(rates) for place in (columns, rows)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1).float()


def rotations(grid: tuple[int, int], head_width: int) -> Tensor:
    """Return cosines and sines that turn pairs of a head's values, half by the token's row, half by its column.

    Returns:
        [2, T, head_width].

    Raises:
        InputError: for a width that is not a multiple of 4.
    """
    if head_width % 4:
        raise InputError(
            f"heads of width {head_width} cannot be turned in pairs by row and column; take a multiple of 4"
        )
    half = head_width // 2
    rates = LONGEST_WAVE ** -(torch.arange(0, half, 2, dtype=torch.float64) / half)
    angles = [place.double().outer(rates) for place in rows_and_columns(grid)]
    angle = torch.cat(angles, dim=1).repeat_interleave(2, dim=1)
    return torch.stack([angle.cos(), angle.sin()]).float()


def rows_and_columns(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return each token's row and column, [T], row by row."""
    rows, columns = (torch.arange(side) for side in grid)
    return rows.repeat_interleave(grid[1]), columns.repeat(grid[0])


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of values in [N, heads, T', D] of the last T tokens by `turns` [2, T, D]; those before stay."""
    cos, sin = turns.to(x.dtype)
    places = x[:, :, -cos.shape[0] :]
    even, odd = places[..., ::2], places[..., 1::2]
    turned = places * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin
    before = x[:, :, : -cos.shape[0]]
    return torch.cat([before, turned], dim=2) if before.shape[2] else turned


class Attention(nn.Module):
    """Self-attention between tokens, with rotary positions and, if requested, normalised queries and keys.

    Args:
        width: of tokens.
        heads: number of heads, which divides the width.
        qk_norm: whether queries and keys are normalised (RMS norm of each head).

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
        """Map tokens [N, T', width] to such.

        Args:
            x: tokens.
            turns: as `rotate` takes them.
            twice: whether it is going to be differentiated twice, which fused kernels cannot be.
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
    """Two layers, of which the first has gates: w3(silu(w1 x) * w2 x)."""

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [N, T, width] to such."""
        gates, values = self.w12(x).chunk(2, dim=-1)
        return self.w3(silu(gates) * values)


class SlowLinear(nn.Module):
    """A linear layer that learns at a fraction of the rate: weights are stored as much larger as they are used smaller.

    Args:
        inputs: width of what comes in.
        outputs: width of what goes out.
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


def run_block(block: nn.Module, *inputs: object, recompute: bool) -> Tensor:
    """Run a block; with `recompute` its activations are not kept but computed again in the backward pass."""
    if recompute and torch.is_grad_enabled():
        made: Tensor = checkpoint(block, *inputs, use_reentrant=False)
        return made
    return block(*inputs)


def initialize_xavier(network: nn.Module) -> None:
    """Draw weights of linear layers and patch embeddings as Glorot and Bengio 2010 do; biases begin at 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
