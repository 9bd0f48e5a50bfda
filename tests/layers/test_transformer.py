"""Patches, positions and attention against their definitions."""

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.transformer import (
    Attention,
    SlowLinear,
    grid_of,
    images_of,
    patches_of,
    rotate,
    rotations,
    sine_positions,
)


def test_patches_are_those_of_a_convolution() -> None:
    images, weight = torch.randn(2, 3, 8, 12), torch.randn(5, 3, 4, 4)
    expected = conv2d(images, weight, stride=4).flatten(2).transpose(1, 2)
    assert_close(patches_of(images, 4) @ weight.flatten(1).T, expected)


def test_patches_are_reassembled() -> None:
    images = torch.randn(2, 3, 8, 12)
    tokens = patches_of(images, 4).unflatten(2, (3, 16)).transpose(2, 3).flatten(2)
    assert torch.equal(images_of(tokens, (2, 3), 4), images)


def test_positions_are_sines_of_columns_then_rows() -> None:
    made = sine_positions((2, 3), 8).view(2, 3, 8)
    assert_close(made[1, 2, 0], torch.tensor(2.0).sin())
    assert_close(made[1, 2, 2:4], torch.tensor([2.0, 2.0 / 100]).cos())
    assert_close(made[1, 2, 4], torch.tensor(1.0).sin())
    assert len({tuple(row.tolist()) for row in made.flatten(0, 1)}) == 6


def test_rotary_products_depend_only_on_relative_positions() -> None:
    turns = rotations((5, 5), 8)
    query, key = (torch.randn(1, 1, 1, 8).expand(-1, -1, 25, -1) for _ in range(2))
    products = (rotate(query, turns) @ rotate(key, turns).transpose(2, 3)).view(5, 5, 5, 5)
    assert_close(products[1, 1, 2, 3], products[2, 2, 3, 4], atol=1e-5, rtol=0)
    assert_close(rotate(query, turns).norm(dim=3), query.norm(dim=3))
    extra = torch.randn(1, 1, 26, 8)
    turned = rotate(extra, rotations((5, 5), 8, before=1))
    assert torch.equal(turned[:, :, 0], extra[:, :, 0]), "what stands before has no place"
    assert torch.equal(turned[:, :, 1:], rotate(extra[:, :, 1:], turns))


def test_attention_matches_its_definition() -> None:
    layer = Attention(width=8, heads=2, qk_norm=False)
    x, turns = torch.randn(2, 6, 8), rotations((2, 3), 4)
    turns = torch.stack([torch.ones_like(turns[0]), torch.zeros_like(turns[1])])
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": layer.qkv.weight,
            "in_proj_bias": layer.qkv.bias,
            "out_proj.weight": layer.proj.weight,
            "out_proj.bias": layer.proj.bias,
        }
    )
    assert_close(layer(x, turns), theirs(x, x, x)[0])


def test_a_slow_layer_moves_by_a_fraction() -> None:
    torch.manual_seed(0)
    slow, plain = SlowLinear(inputs=4, outputs=3), nn.Linear(4, 3)
    with torch.no_grad():
        plain.weight.copy_(slow.weight / 100)
        plain.bias.zero_()
    x = torch.randn(5, 4)
    assert_close(slow(x), plain(x))
    before = slow(x).detach(), plain(x).detach()
    for layer in (slow, plain):
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        layer(x).square().sum().backward()
        optimizer.step()
    moved = [(layer(x) - old).norm() for layer, old in zip((slow, plain), before, strict=True)]
    assert_close(moved[1] / moved[0], torch.tensor(100.0), rtol=1e-2, atol=0)


def test_invalid_sizes_are_rejected() -> None:
    with pytest.raises(InputError, match="patch=5"):
        grid_of(8, 5)
    with pytest.raises(InputError, match="width=6"):
        sine_positions((2, 2), 6)
    with pytest.raises(InputError, match="heads=3"):
        Attention(width=8, heads=3)
