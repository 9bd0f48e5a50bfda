"""StyleGAN3 against the published networks' outputs and sizes, and its equivariance."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import affine_grid, grid_sample
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.models.stylegan2 import Generator as StyleGAN2Generator
from gan_lab.models.stylegan3 import Band, Generator, Layer, plan_bands
from gan_lab.training.augment.pixels import blur
from tests.helpers.generators import settled_stylegan3
from tests.helpers.published import Published, relative_error

TOLERANCE = 1e-4


def small_generator(**settings: object) -> Generator:
    torch.manual_seed(0)
    arguments = {
        "image_size": 16,
        "channels": 1,
        "z_dim": 8,
        "w_dim": 8,
        "channel_base": 128,
        "channel_max": 8,
        "num_layers": 4,
        "margin": 4,
    }
    return Generator(**{**arguments, **settings})


@pytest.fixture(scope="module", params=["stylegan3_t_32", "stylegan3_r_32"])
def published(request: pytest.FixtureRequest) -> Published:
    return Published(request.param)


@pytest.mark.parametrize(("truncation", "suffix"), [(1.0, ""), (0.7, "_psi0.7")])
def test_styles_and_images_are_the_published_ones(
    published: Published, truncation: float, suffix: str
) -> None:
    w = published.generator.mapping(published.z, None, truncation)
    assert relative_error(w, published.arrays[f"out/w{suffix}"]) <= TOLERANCE
    images = published.generator(published.z, truncation=truncation)
    assert relative_error(images, published.arrays[f"out/img{suffix}"]) <= TOLERANCE


def test_transformed_images_are_the_published_ones(published: Published) -> None:
    w = published.generator.mapping(published.z)
    transform = torch.from_numpy(published.arrays["in/transform"])
    images = published.generator.synthesis(w, transform=transform)
    assert relative_error(images, published.arrays["out/img_transformed"]) <= TOLERANCE
    each = published.generator.synthesis(w, transform=transform.expand(len(w), 3, 3))
    assert_close(each, images)


def test_designed_filters_are_the_published_ones(published: Published) -> None:
    found = 0
    for name, theirs in published.arrays.items():
        parts = name.split(".")
        if parts[-1] in ("up_filter", "down_filter"):
            layer = getattr(published.generator.synthesis, parts[1])
            ours = getattr(layer.activation, parts[-1])
            assert relative_error(ours / ours.sum(), theirs) <= 1e-6, name
            found += 1
    assert found == 12


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 22_313_167),
        ({"channel_base": 65536, "channel_max": 1024, "kernel": 1, "radial": True}, 15_093_151),
    ],
)
def test_parameters_are_as_many_as_published(settings: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        network = Generator(image_size=1024, channels=3, **settings)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_shapes_and_gradients(kernel: int, num_classes: int) -> None:
    network = small_generator(
        kernel=kernel, radial=kernel == 1, num_classes=num_classes, channels=4, image_size=32
    )
    labels = torch.tensor([0, 2]) if num_classes else None
    images = network(torch.randn(2, 8), labels)
    assert images.shape == (2, 4, 32, 32)
    images.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_path_lengths_can_be_differentiated() -> None:
    network = small_generator()
    w = network.styles(torch.randn(2, 8))
    images = network.synthesis(w)
    (gradient,) = torch.autograd.grad(images.square().sum(), w, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.mapping.parameters())


def test_running_magnitudes_bring_activations_to_unit_scale() -> None:
    """Section 3.2: each input is divided by the root of its running mean square."""
    network = small_generator(magnitude_decay=0.5)
    magnitudes = [layer.magnitude_ema for layer in network.synthesis.layers]
    network.eval()(torch.randn(16, 8))
    assert all(m == 1 for m in magnitudes)
    network.train()
    for _ in range(20):
        network(torch.randn(64, 8))
    seen: list[float] = []
    for layer in network.synthesis.layers:
        layer.register_forward_pre_hook(
            lambda _, given: seen.append(given[0].square().mean().item())
        )
    network.eval()(torch.randn(64, 8))
    assert seen == pytest.approx([m.item() for m in magnitudes], rel=0.25)


def test_the_plan_of_the_published_size() -> None:
    """Layers of the released configuration T at 1024 are named L<index>_<size>_<channels>."""
    bands = plan_bands(
        side=1024,
        channels=3,
        channel_base=32768,
        channel_max=512,
        num_layers=14,
        num_critical=2,
        first_cutoff=2,
        first_stopband=2**2.1,
        last_stopband=2**0.3,
        margin=10,
    )
    names = " ".join(f"L{i}_{band.size}_{band.channels}" for i, band in enumerate(bands))
    assert names == (
        "L0_36_512 L1_36_512 L2_52_512 L3_52_512 L4_84_512 L5_148_512 L6_148_512 L7_276_323 L8_276_203 "
        "L9_532_128 L10_1044_81 L11_1044_51 L12_1044_32 L13_1024_32 L14_1024_3"
    )
    assert bands[0].cutoff == 2 and bands[12].cutoff == bands[14].cutoff == 512
    with pytest.raises(InputError, match="num_critical=4 must lie"):
        small_generator(num_critical=4)


@pytest.mark.parametrize("size", [8, 24, (16, 32)])
def test_unsupported_sizes(size: object) -> None:
    with pytest.raises(InputError, match=r"power of two from 16 on"):
        small_generator(image_size=size)


# Equivariance ---------------------------------------------------------------------------------------------------------


def turned(degrees: float) -> Tensor:
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def shifted(x: float, y: float) -> Tensor:
    return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def resampled(images: Tensor, transform: Tensor) -> Tensor:
    """Look at `images` where `transform`, in units of their side and from their center, says; bicubic."""
    theta = transform[:2].clone()
    theta[:, 2] *= 2  # affine_grid's image reaches from -1 to 1
    grid = affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bicubic", align_corners=False)


def agreement(changed: Tensor, expected: Tensor) -> float:
    """Peak signal to noise in dB over the middle, which no transform below leads out of the image."""
    side = changed.shape[-1]
    middle = slice(side // 4, side - side // 4)
    error = (changed - expected)[..., middle, middle].square().mean()
    spread = expected[..., middle, middle].amax() - expected[..., middle, middle].amin()
    return float(10 * torch.log10(spread**2 / error))


MOTIONS = {
    "shift": shifted(0.06, -0.03),
    "turn": turned(30),
    "far turn": turned(-75),
    "both": turned(40) @ shifted(0.05, 0.02),
}


@torch.no_grad()
def measure(network: Generator, transform: Tensor) -> tuple[float, float]:
    """Return the agreement of moving the input and moving the output, and of not moving at all, in dB."""
    w = network.mapping(torch.randn(4, 32, generator=torch.Generator().manual_seed(1)))
    plain = network.synthesis(w)
    expected = resampled(plain, transform)
    moved = network.synthesis(w, transform=transform)
    return agreement(moved, expected), agreement(plain, expected)


def test_r_is_equivariant_to_translation_and_rotation() -> None:
    network = settled_stylegan3(64, kernel=1, radial=True)
    for name, transform in MOTIONS.items():
        moved, still = measure(network, transform)
        assert moved > 55 and still < 30, name


def test_t_is_equivariant_to_translation_only() -> None:
    network = settled_stylegan3(64)
    assert measure(network, MOTIONS["shift"])[0] > 50
    assert measure(network, MOTIONS["turn"])[0] < 25


@torch.no_grad()
def test_stylegan2_is_not_equivariant() -> None:
    torch.manual_seed(0)
    network = StyleGAN2Generator(
        image_size=64, channels=1, z_dim=32, w_dim=32, channel_base=2048, channel_max=32
    ).eval()
    w = network.mapping(torch.randn(4, 32))
    plain = network.synthesis(w, noise="none")
    constant = network.synthesis.b4.const.clone()
    for name, transform in MOTIONS.items():
        network.synthesis.b4.const.copy_(resampled(constant[None], transform)[0])
        moved = network.synthesis(w, noise="none")
        assert agreement(moved, resampled(plain, transform)) < 25, name


# Blur -----------------------------------------------------------------------------------------------------------------


def test_the_blur_is_a_gaussian_that_keeps_the_mean() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    spread = blur(point, 4.0)
    assert spread.sum().item() == pytest.approx(1)
    assert (spread[..., 20, 24] / spread[..., 20, 20]).item() == pytest.approx(0.5)
    assert (spread[..., 24, 24] / spread[..., 20, 20]).item() == pytest.approx(0.25)
    assert torch.equal(blur(point, 0.3), point)


# Second derivatives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_torgb", [False, True])
def test_second_derivatives_of_a_layer(is_torgb: bool) -> None:
    torch.manual_seed(0)
    band = Band(cutoff=1.0, half_width=1.0, rate=4, size=4, channels=2)
    layer = Layer(
        before=band,
        after=band,
        w_dim=2,
        kernel=1 if is_torgb else 3,
        is_torgb=is_torgb,
        radial=False,
        filter_size=6,
        magnitude_decay=0.999,
        clamp=3.0,
        dtype=None,
    )
    layer = layer.double().eval()
    layer.magnitude_ema.fill_(1.7)
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, w: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, parameters, strict=True)), (x, w))

    given = [torch.randn(1, 2, 4, 4), torch.randn(1, 2), *layer.parameters()]
    values = [v.detach().double().requires_grad_() for v in given]
    assert torch.autograd.gradgradcheck(function, values)
