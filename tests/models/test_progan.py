"""ProGAN: what its layers are by the paper's formulas, how images fade, and the published sizes."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import AuxiliaryClassifier, Unconditional
from gan_lab.layers.resolutions import avg_pool, upsample_nearest
from gan_lab.models.progan import Discriminator, Generator, GeneratorBlock, Start, widths


def generator(**settings: Any) -> Generator:
    torch.manual_seed(0)
    arguments = {
        "image_size": 16,
        "channels": 2,
        "z_dim": 8,
        "channel_base": 64,
        "channel_max": 8,
    }
    return Generator(**{**arguments, **settings})


def discriminator(**settings: Any) -> Discriminator:
    torch.manual_seed(0)
    arguments = {"image_size": 16, "channels": 2, "channel_base": 64, "channel_max": 8}
    network = Discriminator(**{**arguments, **settings})
    network.stage.value = network.stage.last
    return network


def test_the_published_sizes() -> None:
    """Table 2: 23.1M each, 4x4 with 512 channels to 1024x1024 with 16."""
    with torch.device("meta"):
        networks = (
            Generator(image_size=1024, channels=3),
            Discriminator(image_size=1024, channels=3),
        )
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert [f"{count / 1e6:.1f}" for count in counts] == ["23.1", "23.1"]
    # all but the layers that table 2 leaves out: those which read and make images of lower resolutions
    others = [
        sum(p.numel() for p in layers[:-1].parameters())
        for layers in (networks[0].torgb, networks[1].fromrgb)
    ]
    assert [f"{(c - o) / 1e6:.1f}" for c, o in zip(counts, others, strict=True)] == ["23.1", "23.1"]
    assert widths(8, 16384, 512) == [512, 512, 512, 512, 256, 128, 64, 32, 16]


def test_a_block_is_two_convolutions_with_pixel_norm_behind_repeated_pixels() -> None:
    torch.manual_seed(0)
    block = GeneratorBlock(inputs=3, outputs=5)
    for layer in (block.conv0, block.conv1):
        nn.init.normal_(layer.bias)

    def normed(x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    x = torch.randn(2, 3, 4, 6)
    y = interpolate(x, scale_factor=2, mode="nearest")
    for layer, turned in ((block.conv0, True), (block.conv1, False)):
        # a transposed convolution turns its kernel round
        weight = layer.weight.flip(2, 3) if turned else layer.weight
        weight = weight * sqrt(2 / weight[0].numel())
        y = normed(leaky_relu(conv2d(y, weight, layer.bias * sqrt(2), padding=1), 0.2))
    assert_close(block(x), y)


def test_halving_is_a_convolution_and_then_means_over_2x2() -> None:
    block = discriminator().blocks[0]
    x = torch.randn(2, 8, 6, 8)
    weight = block.conv1.weight * sqrt(2 / block.conv1.weight[0].numel())
    y = avg_pool2d(conv2d(block.conv0(x), weight, padding=1), 2)
    assert_close(block(x), leaky_relu(y, 0.2))


def test_the_start_is_a_convolution_as_large_as_the_lowest_resolution() -> None:
    start = Start(inputs=5, outputs=3, shape=(4, 6))
    z = torch.randn(2, 5)
    weight = start.weight.flatten(1) * sqrt(2 / (5 * 4 * 6))
    y = leaky_relu((z @ weight).unflatten(1, (3, 4, 6)), 0.2)
    assert_close(start(z), y / (y.square().mean(1, keepdim=True) + 1e-8).sqrt())


def test_the_length_of_z_does_not_matter() -> None:
    network, z = generator(), torch.randn(3, 8)
    assert_close(network(z), network(5 * z))


@pytest.mark.parametrize("stage", [0, 1])
def test_a_fade_begins_at_the_lower_stage_and_ends_at_the_higher(stage: int) -> None:
    network, z = generator(), torch.randn(3, 8)
    images = {}
    for value in (stage, stage + 1e-12, stage + 0.25, stage + 1 - 1e-12, stage + 1):
        network.stage.value = value
        images[value] = network.forward_at_stage(z)
    low, begun, quarter, ending, high = images.values()
    assert torch.equal(begun, upsample_nearest(low))
    assert torch.equal(ending, high)
    assert_close(quarter, 0.75 * upsample_nearest(low) + 0.25 * high)
    assert high.shape[2] == 2 * low.shape[2] == 8 << stage


@pytest.mark.parametrize("stage", [0, 1])
def test_the_discriminator_fades_equally(stage: int) -> None:
    network = discriminator()
    images = torch.randn(4, 2, 8 << stage, 8 << stage)
    network.stage.value = stage + 1
    high = network(images)
    network.stage.value = stage + 1 - 1e-12
    assert torch.equal(network(images), high)
    network.stage.value = stage
    low = network(avg_pool(images))
    network.stage.value = stage + 1e-12
    assert torch.equal(network(images), low)
    network.stage.value = stage + 0.5
    between = network(images)
    assert not torch.allclose(between, high) and not torch.allclose(between, low)


def test_images_of_any_stage_are_shown_at_full_size() -> None:
    network, critic, z = generator(), discriminator(), torch.randn(4, 8)
    for stage in (0, 0.5, 1, 1.5, 2):
        network.stage.value = critic.stage.value = stage
        small, shown = network.forward_at_stage(z), network(z)
        assert shown.shape == (4, 2, 16, 16)
        assert torch.equal(resize(small), shown)
        assert_close(critic(shown), critic(small))
    critic.stage.value = 2
    assert critic(small).shape == (4,)
    with pytest.raises(ValueError, match="16 x 12"):
        critic(torch.randn(4, 2, 16, 12))


def resize(images: torch.Tensor) -> torch.Tensor:
    return interpolate(images, size=(16, 16), mode="nearest")


@pytest.mark.parametrize("stage", [0, 0.5, 1, 1.5, 2])
def test_what_is_not_reached_is_not_computed(stage: float) -> None:
    """Layers of higher levels, and those for images of levels that are neither current nor fading, get no gradient."""
    network, critic = generator(), discriminator()
    network.stage.value = critic.stage.value = stage
    critic(network.forward_at_stage(torch.randn(4, 8))).sum().backward()
    level = network.stage.level
    images = {level} if stage == level else {level - 1, level}
    for layers, used in (
        (network.blocks, range(level)),
        (critic.blocks, range(level)),
        (network.torgb, images),
        (critic.fromrgb, images),
    ):
        for i, layer in enumerate(layers):
            reached = [p.grad is not None for p in layer.parameters()]
            assert all(reached) if i in used else not any(reached)


@pytest.mark.parametrize("growing", [True, False])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [4, 7, 8, 12, [8, 16], [24, 16]])
def test_sizes_and_channels(size: Any, channels: int, classes: int, growing: bool) -> None:
    settings = {"image_size": size, "channels": channels, "num_classes": classes}
    network, critic = generator(**settings, growing=growing), discriminator(**settings)
    height, width = (size, size) if isinstance(size, int) else size
    labels = torch.tensor([0, 2, 1]) if classes else None
    z = torch.randn(3, 8)
    assert network(z, labels).shape == (3, channels, height, width)
    critic.stage.value = network.stage.value
    assert critic(network.forward_at_stage(z, labels), labels).shape == (3,)
    if not growing:
        assert network.forward_at_stage(z, labels).shape == (3, channels, height, width)


def test_labels_change_the_image_and_choose_the_logit() -> None:
    network, critic = generator(num_classes=3, growing=False), discriminator(num_classes=3)
    z = torch.randn(1, 8).expand(3, -1)
    images = network(z, torch.arange(3))
    assert all(not torch.allclose(images[i], images[(i + 1) % 3]) for i in range(3))
    assert_close(network(z, torch.eye(3)), images)
    features = critic.extract(images)
    assert_close(critic(images, torch.tensor([2, 0, 1])), critic.out(features)[range(3), [2, 0, 1]])
    for wrong in (network, critic):
        with pytest.raises(ValueError, match="no labels"):
            wrong(z if wrong is network else images)
    with pytest.raises(ValueError, match="0 classes"):
        discriminator()(images, torch.arange(3))


def test_other_uses_of_labels() -> None:
    images, labels = torch.randn(4, 2, 16, 16), torch.tensor([0, 1, 2, 0])
    classifying = discriminator(num_classes=3, conditioning=AuxiliaryClassifier)
    output = classifying.discriminate(images, labels, "fake")
    scores = classifying.conditioning.classifier(classifying.extract(images))
    assert_close(output.losses["class"], -scores.log_softmax(1)[range(4), labels])
    assert_close(output.logits, classifying(images, 2 - labels))
    blind = discriminator(num_classes=3, conditioning=Unconditional)
    assert_close(blind(images, labels), blind(images, 2 - labels))


def test_sizes_and_lengths_unknown() -> None:
    with pytest.raises(InputError, match=r"data\.image_size="):
        generator(image_size=50)
    with pytest.raises(InputError, match="start_size"):
        generator(start_size=0)
    with pytest.raises(InputError, match="fade_kimg"):
        generator(fade_kimg=0, stable_kimg=0)


def test_half_precision() -> None:
    torch.manual_seed(0)
    network, critic = generator(), discriminator()
    network.stage.value = critic.stage.value = 1.5
    z = torch.randn(4, 8)
    full = network.forward_at_stage(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = network.forward_at_stage(z)
        logits = critic(images)
    assert images.dtype == logits.dtype == torch.float32
    assert (images - full).norm() / full.norm() < 0.06
