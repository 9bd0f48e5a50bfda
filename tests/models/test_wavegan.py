"""WaveGAN's networks: lengths, sizes, phase shuffle, latents."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gan_lab.errors import InputError
from gan_lab.models.wavegan import (
    Discriminator,
    Generator,
    PhaseShuffle,
    Upsample,
    same_padding,
    strides,
)
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import draw_z
from gan_lab.training.module import AdversarialModule
from tests.helpers.sounds import sound_spec


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("length", "found"),
    [
        (16384, [4] * 5),
        (65536, [4] * 6),
        (32768, [4] * 5 + [2]),
        (4096, [4] * 4),
        (64, [4]),
        (32, [2]),
    ],
)
def test_strides(length: int, found: list[int]) -> None:
    assert strides(length) == found


@pytest.mark.parametrize("length", [16, 16000, 1])
def test_unsupported_lengths(length: int) -> None:
    with pytest.raises(InputError, match=f"{length} samples.*data.length="):
        strides(length)


def test_sizes_are_those_of_the_tables() -> None:
    """Appendix D: five layers, kernels of 25, 1024 channels at 16 samples for d = 64."""
    with torch.device("meta"):
        generator = Generator(sample_shape=(1, 16384))
        discriminator = Discriminator(sample_shape=(1, 16384))
    widths = [1024, 512, 256, 128, 64, 1]
    layers = sum(25 * a * b + b for a, b in pairwise(widths))
    assert parameters(generator) == 100 * 16384 + 16384 + layers
    layers = sum(25 * a * b + a for a, b in pairwise(widths))
    assert parameters(discriminator) == layers + 16384 + 1


@pytest.mark.parametrize("upsample", ["zeros", "nearest"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("length", [128, 256])
def test_shapes_and_range(upsample: str, classes: int, length: int) -> None:
    generator = Generator(
        sample_shape=(2, length), width=4, num_classes=classes, upsample=upsample, filter_length=0
    )
    discriminator = Discriminator(sample_shape=(2, length), width=4, num_classes=classes)
    labels = torch.tensor([0, classes - 1]) if classes else None
    waves = generator(torch.rand(2, 100) * 2 - 1, labels)
    assert waves.shape == (2, 2, length) and waves.abs().max() <= 1
    assert discriminator(waves, labels).shape == (2,)
    if classes:
        other = discriminator(waves, torch.tensor([1, 1]))
        assert not torch.equal(other, discriminator(waves, labels))


def test_same_padding_is_tensorflows() -> None:
    # kernel 25, stride 4: 21 zeros, of which the odd one stands behind
    assert same_padding(16384, 25, 4) == (10, 11)
    assert same_padding(10, 3, 1) == (1, 1)
    assert same_padding(10, 1, 4) == (0, 0)


def test_nearest_repeats_and_zeros_do_not() -> None:
    x = torch.tensor([[[1.0, 2.0]]])
    for mode, expected in (
        ("nearest", [1, 1, 1, 1, 2, 2, 2, 2]),
        ("zeros", [1, 0, 0, 0, 2, 0, 0, 0]),
    ):
        layer = Upsample(1, 1, kernel=5, stride=4, mode=mode)
        nn.init.zeros_(layer.weight)
        with torch.no_grad():  # where SAME padding has the middle of either convolution
            layer.weight[0, 0, 2 if mode == "nearest" else 0] = 1
        assert layer(x)[0, 0].tolist() == expected


@pytest.mark.parametrize("each", [False, True])
def test_phase_shuffle_shifts_and_mirrors(each: bool) -> None:
    layer = PhaseShuffle(2, each=each)
    x = torch.arange(8.0).expand(64, 3, 8)
    allowed = {
        -2: [2, 3, 4, 5, 6, 7, 6, 5],
        -1: [1, 2, 3, 4, 5, 6, 7, 6],
        0: list(range(8)),
        1: [1, 0, 1, 2, 3, 4, 5, 6],
        2: [2, 1, 0, 1, 2, 3, 4, 5],
    }
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        rows = layer(x)
        assert torch.equal(rows[:, 0], rows[:, 2]), "all channels alike"
        shifts = {tuple(row) for row in rows[:, 0].int().tolist()}
        assert shifts <= {tuple(one) for one in allowed.values()}
        assert each or len(shifts) == 1
        seen |= shifts
    assert len(seen) == 5
    assert layer.eval()(x) is x
    assert PhaseShuffle(0, each=each)(x) is x


def test_phase_shuffle_is_differentiated_twice() -> None:
    discriminator = Discriminator(sample_shape=(1, 256), width=4)
    x = torch.randn(3, 1, 256, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None for n, p in discriminator.named_parameters() if "weight" in n)


def test_latents_are_uniform_in_training_and_sampling() -> None:
    generator = Generator(sample_shape=(1, 64), width=4)
    module = SimpleNamespace(generator=generator, device=torch.device("cpu"))
    drawn = AdversarialModule.sample_latents(module, 2000)  # type: ignore[arg-type]
    gan = Gan(generator.eval(), spec=sound_spec(64))
    for z in (drawn, gan.latents(200).values):
        assert z.abs().max() <= 1
        assert float(z.mean()) == pytest.approx(0, abs=0.02)
        assert float(z.square().mean()) == pytest.approx(1 / 3, abs=0.02)
    # the same numbers of a seed as normal ones
    normal = draw_z([(0, 0)], 100)
    uniform = draw_z([(0, 0)], 100, distribution="uniform")
    assert torch.equal(normal.argsort(), uniform.argsort())


def test_unsupported_options_are_rejected() -> None:
    gan = Gan(Generator(sample_shape=(1, 64), width=4).eval(), spec=sound_spec(64))
    with pytest.raises(InputError, match="no styles"):
        gan.mix([0], [1])
    with pytest.raises(InputError, match="uniform"):
        gan.sample(1, truncation=0.5)
    with pytest.raises(InputError, match="representation=spectrogram"):
        Generator(sample_shape=[1, 16, 16])  # type: ignore[arg-type]
    path = gan.interpolate([0, 1], frames=2)
    middle = gan.latents(seed=[0, 1]).values.mean(0, keepdim=True)
    torch.testing.assert_close(path[1:2], gan.synthesize(middle))
