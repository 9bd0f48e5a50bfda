"""StyleGAN: layers by the paper's formulas, styles and their levels, noise, truncation, and the published size."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.resolutions import upsample_nearest
from gan_lab.layers.stylegan import replace_styles
from gan_lab.models.progan import Discriminator
from gan_lab.models.stylegan import Generator, StyledActivation, SynthesisBlock
from gan_lab.training.regularizers import path_lengths


def generator(**settings: Any) -> Generator:
    torch.manual_seed(0)
    arguments = {
        "image_size": 32,
        "channels": 2,
        "z_dim": 8,
        "w_dim": 6,
        "mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
        "growing": False,
    }
    network = Generator(**{**arguments, **settings}).eval()
    for layer in network.modules():
        if isinstance(layer, StyledActivation):
            nn.init.constant_(layer.noise_strength, 0.1)
    return network


def test_the_published_size() -> None:
    """26.2M (section 2); 26,219,627 in the authors' print-out. D is ProGAN's: 23,087,249 there."""
    with torch.device("meta"):
        networks = (
            Generator(image_size=1024, channels=3),
            Discriminator(image_size=1024, channels=3, filtered=True),
        )
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [26_219_627, 23_087_249]
    assert networks[0].num_ws == 18


def test_a_layer_is_noise_bias_lrelu_and_adain() -> None:
    """Figure 1b; noise is scaled for each feature map."""
    torch.manual_seed(0)
    layer = StyledActivation(features=3, w_dim=5, shape=(4, 6))
    for parameter in (layer.bias, layer.noise_strength):
        nn.init.normal_(parameter)
    x, w = torch.randn(2, 3, 4, 6), torch.randn(2, 5)
    plain = x + layer.bias[:, None, None]
    noisy = plain + layer.noise_const * layer.noise_strength[:, None, None]
    assert_close(layer(x, w, "none"), layer.adain(leaky_relu(plain, 0.2), w))
    assert_close(layer(x, w, "const"), layer.adain(leaky_relu(noisy, 0.2), w))


def test_doubling_repeats_pixels_convolves_and_filters() -> None:
    """Appendix C: the filter is (1, 2, 1) / 4 in both directions. Edges aside, where pixels beyond count as 0."""
    torch.manual_seed(0)
    block = SynthesisBlock(inputs=3, outputs=4, w_dim=5, shape=(16, 16))
    x = torch.randn(2, 3, 8, 8)
    weight = block.conv0.weight.flip(2, 3) * sqrt(2 / 27)  # a transposed convolution turns it
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(taps, taps).expand(4, 1, 3, 3)
    y = conv2d(interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    y = conv2d(y, kernel, padding=1, groups=4)
    assert_close(block.conv0(x)[..., 1:-1, 1:-1], y[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-5)


def test_initial_values() -> None:
    """Appendix C."""
    network = Generator(image_size=8, channels=1, z_dim=64, w_dim=64)
    assert torch.equal(network.synthesis.const, torch.ones(512, 4, 4))
    for layer in network.modules():
        if isinstance(layer, StyledActivation):
            assert not layer.noise_strength.any() and not layer.bias.any()
            scale, offset = layer.adain.affine.bias.chunk(2)
            assert (scale == 1).all() and not offset.any()
    first = network.mapping.fc1
    assert first.weight.std().item() == pytest.approx(100, rel=0.05)  # lr times 0.01


def test_noise() -> None:
    network = generator()
    w = network.mapping(torch.randn(2, 8))
    const = network.synthesis(w, noise="const")
    assert torch.equal(const, network.synthesis(w, noise="const"))
    drawn = network.synthesis(w, noise="random")
    assert not torch.allclose(drawn, network.synthesis(w, noise="random"))
    twins = network.synthesis(w[:1].expand(2, -1, -1), noise="random")
    assert not torch.allclose(twins[0], twins[1])
    for layer in network.modules():
        if isinstance(layer, StyledActivation):
            layer.noise_const.zero_()
    assert_close(network.synthesis(w, noise="const"), network.synthesis(w, noise="none"))
    with pytest.raises(InputError, match="random, const, none"):
        network.synthesis(w, noise="some")


def features(network: Generator, w: Tensor) -> list[Tensor]:
    """What every styled layer gives."""
    made: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: made.append(output))
        for layer in network.modules()
        if isinstance(layer, StyledActivation)
    ]
    network.synthesis(w, noise="const")
    for hook in hooks:
        hook.remove()
    return made


@pytest.mark.parametrize("level", ["coarse", "middle", "fine"])
def test_styles_of_a_level_change_its_layers(level: str) -> None:
    """Layers below do not change, and layers above would not, were it not for what comes from below."""
    network = generator(image_size=64)
    assert network.levels() == {"coarse": range(0, 4), "middle": range(4, 8), "fine": range(8, 10)}
    # contiguous as what is mixed, or products would differ in the last bit
    w, other = network.mapping(torch.randn(4, 8)).contiguous().chunk(2)
    layers = network.levels()[level]
    mixed = replace_styles(w, other, layers)
    before, after = features(network, w), features(network, mixed)
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [i >= layers.start for i in range(10)]
    # AdaIN: mean and deviation of a layer's features are those that its own style sets, and nothing else
    for i, (kept, made) in enumerate(zip(before, after, strict=True)):
        same = torch.allclose(kept.mean((2, 3)), made.mean((2, 3)), atol=1e-5)
        assert same == (i not in layers)


def test_levels_of_small_images() -> None:
    assert generator(image_size=4).levels() == {
        "coarse": range(0, 2),
        "middle": range(2, 2),
        "fine": range(2, 2),
    }


def test_truncation_moves_the_styles_below_the_cutoff_to_the_mean() -> None:
    network, z = generator(truncation_cutoff=4), torch.randn(3, 8)
    network.mapping.w_avg.normal_()
    w = network.styles(z)
    near = network.styles(z, truncation=0.7)
    average = network.mapping.w_avg
    assert_close(near[:, :4], average + 0.7 * (w[:, :4] - average))
    assert torch.equal(near[:, 4:], w[:, 4:])
    assert_close(network(z, truncation=0.7), network.synthesis(near, noise="const"))
    everywhere = generator(truncation_cutoff=None)
    everywhere.mapping.w_avg.normal_()
    assert_close(everywhere.styles(z, truncation=0.0), everywhere.mapping.w_avg.expand(3, 8, -1))
    assert torch.equal(network(z, truncation=1.0), network(z))
    with pytest.raises(InputError, match="truncation_cutoff"):
        generator(truncation_cutoff=-1)


def test_styles_are_mixed_in_training_within_the_layers_in_use() -> None:
    network = generator(style_mixing=1.0, growing=True, start_size=4).train()
    z = torch.randn(64, 8)
    for stage, in_use in ((0, 2), (0.5, 4), (1, 4), (3, 8)):
        network.stage.value = stage
        w = network.styles(z)
        differs = (w != w[:, :1]).any(2)
        starts = differs.int().argmax(1)  # the first layer with the second style
        assert differs[:, in_use - 1].all()  # every image has two styles among the layers in use
        assert set(starts.tolist()) == set(range(1, in_use))
    network.eval()
    assert_close(network.styles(z), network.mapping(z))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_fade_in_starts_at_the_lower_stage_and_ends_at_the_higher(stage: int) -> None:
    network, z = generator(growing=True, start_size=4), torch.randn(3, 8)
    images = {}
    for value in (stage, stage + 1e-12, stage + 0.25, stage + 1 - 1e-12, stage + 1):
        network.stage.value = value
        images[value] = network.forward_at_stage(z)
        assert network(z).shape == (3, 2, 32, 32)
    low, begun, quarter, ending, high = images.values()
    assert torch.equal(begun, upsample_nearest(low))
    assert torch.equal(ending, high)
    assert_close(quarter, 0.75 * upsample_nearest(low) + 0.25 * high)


@pytest.mark.parametrize("stage", [0, 0.5, 1, 2.5, 3])
def test_unused_resolutions_are_not_computed(stage: float) -> None:
    network = generator(growing=True, start_size=4)
    network.stage.value = stage
    network.forward_at_stage(torch.randn(4, 8)).sum().backward()
    level = network.stage.level
    images = {level} if stage == level else {level - 1, level}
    synthesis = network.synthesis
    for layers, used in ((synthesis.blocks, range(level + 1)), (synthesis.torgb, images)):
        for i, layer in enumerate(layers):
            reached = [p.grad is not None for p in layer.parameters()]
            assert all(reached) if i in used else not any(reached)


def test_path_lengths_do_not_depend_on_repeated_pixels() -> None:
    """Noise on repeated pixels adds up to noise on one, of the same deviation by the number of pixels."""
    network = generator(growing=True, start_size=4)
    network.stage.value = 1.0
    w = network.mapping(torch.randn(1, 8)).expand(512, -1, -1).requires_grad_()
    shown = path_lengths(network.synthesis(w, noise="none"), w).square().mean()
    small = path_lengths(network.synthesis.forward_at_stage(w, noise="none"), w).square().mean()
    assert shown.item() == pytest.approx(small.item(), rel=0.15)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [4, 7, 8, 12, [8, 16], [24, 16]])
def test_sizes_and_channels(size: Any, channels: int, classes: int) -> None:
    network = generator(image_size=size, channels=channels, num_classes=classes)
    height, width = (size, size) if isinstance(size, int) else size
    labels = torch.tensor([0, 2, 1]) if classes else None
    images = network(torch.randn(3, 8), labels)
    assert images.shape == (3, channels, height, width)
    critic = Discriminator(
        image_size=size,
        channels=channels,
        num_classes=classes,
        channel_base=64,
        channel_max=8,
        filtered=True,
        growing=False,
    )
    assert critic(images, labels).shape == (3,)


def test_labels_change_the_image() -> None:
    network = generator(num_classes=3)
    z = torch.randn(1, 8).expand(3, -1)
    images = network(z, torch.arange(3))
    assert all(not torch.allclose(images[i], images[(i + 1) % 3]) for i in range(3))
    assert_close(network(z, torch.eye(3)), images)


def test_half_precision() -> None:
    torch.manual_seed(0)
    network, z = generator(growing=True, start_size=4), torch.randn(4, 8)
    network.stage.value = 2.5
    full = network.forward_at_stage(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = network.forward_at_stage(z)
    assert images.dtype == torch.float32
    assert (images - full).norm() / full.norm() < 0.1
