"""Reading rosinality's StyleGAN2, from files written by the test."""

import argparse
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.models.stylegan2 import Discriminator, Generator
from gan_lab.weights import from_published
from gan_lab.weights.published import Published, open_published
from gan_lab.weights.stylegan import describe_rosinality

Network = TypeVar("Network", bound=nn.Module)

WIDTHS = {"channel_base": 256, "channel_max": 24}  # 24, 24, 16 channels at 4, 8 and 16 pixels


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    made = Generator(image_size=16, channels=3, z_dim=20, w_dim=20, mapping_layers=3, **WIDTHS)
    return randomized(made).eval()


@pytest.fixture
def discriminator() -> Discriminator:
    torch.manual_seed(1)
    return randomized(Discriminator(image_size=16, channels=3, **WIDTHS)).eval()


def randomized(network: Network) -> Network:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def generator_file(network: Any) -> dict[str, Tensor]:
    """g_ema: convolutions in a row from the coarsest, sides of 1 in front, blurs beside them."""
    state = {"input.input": network.synthesis.b4.const[None]}
    for i in range(network.mapping.num_layers):
        layer = getattr(network.mapping, f"fc{i}")
        state |= {f"style.{i + 1}.weight": layer.weight, f"style.{i + 1}.bias": layer.bias}
    convolutions, images = [], []
    for block in network.synthesis.blocks:
        convolutions += [layer for layer in (block.conv0, block.conv1) if layer is not None]
        images.append(block.torgb)
    for i, layer in enumerate(convolutions):
        name = "conv1" if i == 0 else f"convs.{i - 1}"
        state |= {
            f"{name}.conv.weight": layer.weight[None],
            f"{name}.conv.modulation.weight": layer.affine.weight,
            f"{name}.conv.modulation.bias": layer.affine.bias,
            f"{name}.noise.weight": layer.noise_strength.reshape(1),
            f"{name}.activate.bias": layer.bias,
            f"noises.noise_{i}": layer.noise_const[None, None],
        }
        if i % 2:
            state[f"{name}.conv.blur.kernel"] = torch.ones(4, 4)
    for i, layer in enumerate(images):
        name = "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        state |= {
            f"{name}.conv.weight": layer.weight.reshape(1, 3, -1, 1, 1),
            f"{name}.conv.modulation.weight": layer.affine.weight,
            f"{name}.conv.modulation.bias": layer.affine.bias,
            f"{name}.bias": layer.bias.reshape(1, 3, 1, 1),
        }
        if i:
            state[f"{name}.upsample.kernel"] = torch.ones(4, 4)
    return {name: value.detach().clone() for name, value in state.items()}


def discriminator_file(network: Any) -> dict[str, Tensor]:
    """d: from the finest resolution on."""
    state = {
        "convs.0.0.weight": network.b16.fromrgb.weight,
        "convs.0.1.bias": network.b16.fromrgb.bias,
    }
    for i, block in enumerate((network.b16, network.b8), start=1):
        state |= {
            f"convs.{i}.conv1.0.weight": block.conv0.weight,
            f"convs.{i}.conv1.1.bias": block.conv0.bias,
            f"convs.{i}.conv2.0.kernel": torch.ones(4, 4),
            f"convs.{i}.conv2.1.weight": block.conv1.weight,
            f"convs.{i}.conv2.2.bias": block.conv1.bias,
            f"convs.{i}.skip.0.kernel": torch.ones(4, 4),
            f"convs.{i}.skip.1.weight": block.skip.weight,
        }
    last = network.b4
    state |= {"final_conv.0.weight": last.conv.weight, "final_conv.1.bias": last.conv.bias}
    for i, layer in enumerate((last.fc, last.out)):
        state |= {f"final_linear.{i}.weight": layer.weight, f"final_linear.{i}.bias": layer.bias}
    return {name: value.detach().clone() for name, value in state.items()}


def opened(folder: Path, **content: Any) -> Published:
    torch.save(content, folder / "550000.pt")
    return open_published(folder / "550000.pt")


@torch.no_grad()
def test_a_training_checkpoint_gives_the_same_images_and_logits(
    tmp_path: Path, generator: Generator, discriminator: Discriminator
) -> None:
    state = generator_file(generator)
    other = {name: value + 1 for name, value in state.items()}
    found = opened(
        tmp_path,
        g=other,
        d=discriminator_file(discriminator),
        g_ema=state,
        g_optim={"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.002, "params": [0]}]},
        args=argparse.Namespace(size=16, path="faces.lmdb"),
        ada_aug_p=0.0,
    ).blueprints()
    ours = {player: blueprint.build() for player, blueprint in found.items()}
    z = torch.randn(3, 20)
    images = generator(z)
    torch.testing.assert_close(ours["generator_ema"](z), images)
    assert not torch.allclose(ours["generator"](z), images)
    torch.testing.assert_close(ours["discriminator"](images), discriminator(images))
    # there is no mean style in such a file
    w = generator.mapping(torch.randn(20_000, 20))[:, 0]
    error = (ours["generator_ema"].mapping.w_avg - w.mean(0)).norm()
    assert error < 5 * (w.var(0).sum() / 10_000).sqrt()


@torch.no_grad()
def test_a_converted_file_has_its_own_mean_style(tmp_path: Path, generator: Generator) -> None:
    mean = torch.randn(20)
    found = opened(tmp_path, g_ema=generator_file(generator), latent_avg=mean).blueprints()
    assert set(found) == {"generator_ema", "generator"}
    network = found["generator_ema"].build()
    assert torch.equal(network.mapping.w_avg, mean)
    generator.mapping.w_avg.copy_(mean)
    z = torch.randn(2, 20)
    torch.testing.assert_close(network(z, truncation=0.5), generator(z, truncation=0.5))


@pytest.mark.parametrize("size", [256, 1024])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_the_table_of_widths_follows_from_two_numbers(size: int, multiplier: int) -> None:
    """The published table for channel_multiplier=1 (config E) and 2 (config F), read off two layers."""
    table = {side: 512 for side in (4, 8, 16, 32)}
    table |= {side: 16 * multiplier * 1024 // side for side in (64, 128, 256, 512, 1024)}
    sides = [side for side in table if side <= size]
    sizes: dict[str, tuple[int, ...]] = {
        "input.input": (1, 512, 4, 4),
        "style.1.weight": (512, 512),
    }
    for i, side in enumerate(sides[1:]):
        sizes |= {
            f"to_rgbs.{i}.bias": (1, 3, 1, 1),
            f"convs.{2 * i + 1}.activate.bias": (table[side],),
        }
    given = describe_rosinality({"G_ema": sizes})["generator"]
    assert given["size"] == size
    assert [min(given["channel_base"] // s, given["channel_max"]) for s in sides] == [
        table[s] for s in sides
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("input.input"), "no StyleGAN2 of rosinality's"),
        (lambda s: s.pop("conv1.noise.weight"), "1 missing"),
        (lambda s: s.update({"convs.0.conv.spam": torch.zeros(1)}), "spam"),
        (lambda s: s.update({"convs.1.activate.bias": torch.zeros(9)}), "shape"),
    ],
)
def test_unsupported_files_are_rejected(
    change: Any, message: str, tmp_path: Path, generator: Generator
) -> None:
    state = generator_file(generator)
    change(state)
    with pytest.raises(InputError, match=message):
        opened(tmp_path, g_ema=state).blueprints()["generator_ema"].build()


def test_arguments_are_not_taken(tmp_path: Path, generator: Generator) -> None:
    torch.save({"g_ema": generator_file(generator)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="leave them out"):
        open_published(tmp_path / "a.pt", arguments={"size": 8})


def test_without_weights_the_network_is_the_published_one() -> None:
    """30,370,060 numbers: StyleGAN2's config F at 1024 pixels, noise and mean style left out."""
    with torch.device("meta"):
        made = from_published({"source": "rosinality StyleGAN2", "generator": {"size": 1024}}, None)
    assert sum(p.numel() for p in made["G"].parameters()) == 30_370_060
