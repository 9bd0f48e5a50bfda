"""StyleGAN2 against the published networks' outputs and sizes, and the paper's formulas."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.resolutions import fir_filter, upsample
from gan_lab.layers.stylegan import StyledConv
from gan_lab.models.stylegan2 import Discriminator, Generator
from gan_lab.training.regularizers import path_lengths
from tests.helpers.published import Published, relative_error

TOLERANCE = 1e-4


def small_generator(**settings: object) -> Generator:
    torch.manual_seed(0)
    arguments = {
        "image_size": 16,
        "channels": 1,
        "z_dim": 8,
        "w_dim": 8,
        "mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
    }
    network = Generator(**{**arguments, **settings})
    for layer in network.modules():
        if isinstance(layer, StyledConv):
            nn.init.constant_(layer.noise_strength, 0.1)
    return network


def small_discriminator(**settings: object) -> Discriminator:
    torch.manual_seed(0)
    arguments = {"image_size": 16, "channels": 1, "channel_base": 64, "channel_max": 8}
    return Discriminator(**{**arguments, **settings})


@pytest.fixture(scope="module", params=["stylegan2_uncond_32", "stylegan2_cond_32"])
def published(request: pytest.FixtureRequest) -> Published:
    return Published(request.param)


@pytest.mark.parametrize(("truncation", "suffix"), [(1.0, ""), (0.5, "_psi0.5")])
def test_styles_and_images_are_the_published_ones(
    published: Published, truncation: float, suffix: str
) -> None:
    w = published.generator.mapping(published.z, published.labels, truncation)
    images = published.generator.synthesis(w, noise="const")
    assert relative_error(w, published.arrays[f"out/w{suffix}"]) <= TOLERANCE
    assert relative_error(images, published.arrays[f"out/img{suffix}_const"]) <= TOLERANCE


def test_images_without_noise_are_the_published_ones(published: Published) -> None:
    w = published.generator.mapping(published.z, published.labels)
    images = published.generator.synthesis(w, noise="none")
    assert relative_error(images, published.arrays["out/img_nonoise"]) <= TOLERANCE
    assert not np.allclose(published.arrays["out/img_nonoise"], published.arrays["out/img_const"])


def test_in_evaluation_the_generator_takes_its_constant_noise(published: Published) -> None:
    images = published.generator(published.z, published.labels)
    assert relative_error(images, published.arrays["out/img_const"]) <= TOLERANCE


def test_logits_and_their_gradients_are_the_published_ones(published: Published) -> None:
    images = torch.from_numpy(published.arrays["out/img_const"]).requires_grad_()
    logits = published.discriminator(images, published.labels)
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    squares = gradient.square().flatten(1).sum(1)
    assert relative_error(logits, published.arrays["out/logits"][:, 0]) <= TOLERANCE
    assert relative_error(squares, published.arrays["out/r1_sqnorm"]) <= TOLERANCE


def test_path_lengths_are_the_published_ones(published: Published) -> None:
    w = torch.from_numpy(published.arrays["out/w"]).requires_grad_()
    images = published.generator.synthesis(w, noise="const")
    lengths = path_lengths(images, w, torch.from_numpy(published.arrays["in/pl_y"]))
    assert relative_error(lengths, published.arrays["out/pl_length"]) <= TOLERANCE


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [(1024, 30_370_060, 29_012_513), (256, 30_034_338, 28_864_129)],
)
def test_parameters_are_as_many_as_published(size: int, generator: int, discriminator: int) -> None:
    with torch.device("meta"):
        networks = [
            Generator(image_size=size, channels=3),
            Discriminator(image_size=size, channels=3),
        ]
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [generator, discriminator]


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize(("size", "channels"), [(16, 3), ((8, 12), 4), (28, 1), (7, 1)])
def test_every_architecture_takes_every_shape(
    size: int | tuple[int, int], channels: int, architecture: str, num_classes: int
) -> None:
    shape = {"image_size": size, "channels": channels, "num_classes": num_classes}
    generator = small_generator(architecture=architecture, **shape)
    discriminator = small_discriminator(architecture=architecture, **shape)
    labels = torch.tensor([0, 2]) if num_classes else None
    images = generator(torch.randn(2, 8), labels)
    height, width = (size, size) if isinstance(size, int) else size
    assert images.shape == (2, channels, height, width)
    logits = discriminator(images, labels)
    assert logits.shape == (2,)
    logits.sum().backward()
    for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_skip_images_are_sums_over_resolutions() -> None:
    """Figure 7b: with all but the lowest resolution's image silenced, the result is that one, enlarged."""
    generator = small_generator(architecture="skip").eval()
    for block in generator.synthesis.blocks[1:]:
        nn.init.zeros_(block.torgb.weight)
    w = generator.mapping(torch.randn(1, 8))
    lowest = generator.synthesis.blocks[0]
    _, image = lowest(None, None, w[:, :2], "none")
    enlarged = upsample(upsample(image, fir_filter()), fir_filter())
    assert_close(generator.synthesis(w, noise="none"), enlarged)
    orig = small_generator(architecture="orig")
    assert [b.torgb is not None for b in orig.synthesis.blocks] == [False, False, True]


def test_residual_blocks_add_half_the_variance_of_each_branch() -> None:
    """Figure 7c: the shortcut is a linear map with gain sqrt(1/2), and so is that of the branch beside it."""
    block = small_generator(architecture="resnet").synthesis.blocks[1]
    x, w = torch.randn(2, 8, 4, 4), torch.randn(2, 3, 8)
    whole, _ = block(x, None, w, "none")
    branch = block.conv1(block.conv0(x, w[:, 0], "none"), w[:, 1], "none")
    assert_close(
        whole - branch, upsample(conv2d(x, block.skip.weight / 8**0.5), fir_filter()) * 0.5**0.5
    )
    alone = StyledConv(inputs=8, outputs=8, w_dim=8, shape=(8, 8))
    alone.load_state_dict(block.conv1.state_dict())
    assert_close(branch, alone(block.conv0(x, w[:, 0], "none"), w[:, 1], "none") * 0.5**0.5)
    block = small_discriminator(architecture="resnet").blocks[1]
    seen, _ = block(x, None)
    assert_close(seen, block.skip(x) + block.conv1(block.conv0(x)))


def test_each_style_drives_its_own_layers() -> None:
    generator = small_generator().eval()
    w = generator.mapping(torch.randn(1, 8))
    base = generator.synthesis(w, noise="none")
    for i in range(generator.num_ws):
        moved = w.clone()
        moved[:, i] += 1
        assert not torch.allclose(generator.synthesis(moved, noise="none"), base), i


def test_levels_are_resolutions() -> None:
    levels = small_generator(image_size=64).levels()
    assert levels == {"coarse": range(0, 3), "middle": range(3, 7), "fine": range(7, 10)}
    assert small_generator().levels()["fine"] == range(6, 6)


def test_images_depend_on_z_alone_in_evaluation_and_on_noise_in_training() -> None:
    generator, z = small_generator(), torch.randn(2, 8)
    assert not torch.equal(generator(z), generator(z))
    generator.eval()
    assert torch.equal(generator(z), generator(z))


def test_styles_are_mixed_in_training_only() -> None:
    generator, z = small_generator(style_mixing=1.0), torch.randn(8, 8)
    w = generator.styles(z)
    assert not torch.allclose(w, w[:, :1].expand_as(w))
    assert_close(w[:, 0], generator.eval().styles(z)[:, 0])
    w = generator.styles(z)
    assert_close(w, w[:, :1].expand_as(w))


@pytest.mark.parametrize("half", [1, 2, 3])
def test_half_precision_of_the_finest_resolutions_changes_little(half: int) -> None:
    torch.manual_seed(0)
    settings = {"num_fp16_res": half, "fp16_dtype": "bfloat16", "clamp": 256}
    exact, rough = small_generator().eval(), small_generator(**settings).eval()
    z = torch.randn(4, 8)
    images = rough(z)
    assert images.dtype == torch.float32
    assert 0 < (images - exact(z)).norm() / exact(z).norm() < 0.06
    logits = small_discriminator(**settings)(images)
    assert logits.dtype == torch.float32
    assert_close(logits, small_discriminator()(images), rtol=0.05, atol=0.05)


def test_activations_are_clamped() -> None:
    generator = small_generator(clamp=0.01, architecture="orig").eval()
    assert generator(torch.randn(4, 8)).abs().max() <= 0.01


def test_the_first_layers_of_d_can_be_frozen() -> None:
    network = small_discriminator(frozen_layers=4)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    layers = ("fromrgb.weight", "fromrgb.bias", "conv0.weight", "conv0.bias")
    rest = ("conv1.weight", "conv1.bias", "skip.weight")
    assert frozen == {f"b{network.resolutions[0]}.{name}" for name in (*layers, *rest)}
    with pytest.raises(InputError, match="frozen_layers=99"):
        small_discriminator(frozen_layers=99)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 17}, "image_size=17"),
        ({"architecture": "dense"}, "architecture='dense'"),
        ({"fp16_dtype": "float8"}, "fp16_dtype='float8'"),
        ({"style_mixing": 1.5}, "style_mixing=1.5"),
    ],
)
def test_unsupported_options_are_rejected(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_generator(**settings)
    with pytest.raises(InputError, match="noise='loud'"):
        small_generator().synthesis(torch.randn(1, 6, 8), noise="loud")


def test_labels_change_images_and_logits() -> None:
    network = small_discriminator(num_classes=3)
    images = torch.randn(1, 1, 16, 16).expand(3, -1, -1, -1)
    logits = network(images, torch.arange(3))
    assert logits.unique().numel() == 3
    with pytest.raises(ValueError, match="no labels"):
        network(images)
    with pytest.raises(ValueError, match="0 classes"):
        small_discriminator()(images, torch.arange(3))


@pytest.mark.parametrize("architecture", ["resnet", "skip"])
def test_second_derivatives_of_the_whole_discriminator(architecture: str) -> None:
    """With labels, minibatch deviation and clamp: what R1 and its kind go through."""
    network = small_discriminator(
        image_size=8,
        channel_base=16,
        channel_max=2,
        num_classes=2,
        label_layers=1,
        mbstd_group_size=2,
        clamp=20.0,
        architecture=architecture,
    ).double()
    assert network.mapping is not None
    for layer in (
        network.mapping.fc0,
    ):  # its steps are a hundred times too long for finite differences
        layer.weight.data.div_(100)
        layer.weight_gain, layer.bias_gain = layer.weight_gain * 100, layer.bias_gain * 100
    names = [name for name, _ in network.named_parameters()]
    labels = torch.tensor([0, 1])

    def function(images: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        return functional_call(network, state, (images, labels))

    given = [torch.randn(2, 1, 8, 8), *network.parameters()]
    values = [v.detach().double().requires_grad_() for v in given]
    assert torch.autograd.gradgradcheck(function, values, fast_mode=True)
