"""Images depend on seed, index and label; their last digits on what they are computed with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from gan_lab.data.images import image_spec
from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.models import dcgan, gan, lsgan, wgan_gp
from gan_lab.sampling import latents as gan_latents
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents
from gan_lab.sampling.sampler import image_transform
from tests.sampling.conftest import big_gan, style_gan, style_gan2, style_gan3

FAMILIES = {
    "gan": lambda classes: gan.Generator(image_size=8, channels=1, num_classes=classes, width=32),
    "dcgan": lambda classes: dcgan.Generator(
        image_size=16, channels=3, num_classes=classes, width=8
    ),
    "lsgan": lambda classes: lsgan.Generator(
        image_size=16, channels=1, num_classes=classes, width=8
    ),
    "wgan_gp": lambda classes: wgan_gp.Generator(
        image_size=16, channels=3, num_classes=classes, width=16
    ),
}


def generator_of(family: str, classes: int) -> GeneratorNetwork:
    torch.manual_seed(0)
    return FAMILIES[family](classes).eval()


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("classes", [0, 5])
@settings(max_examples=8, deadline=None)
@given(batch_size=st.integers(1, 70), count=st.integers(1, 40))
def test_the_same_images_whatever_the_batch_size_and_the_number(
    family: str, classes: int, batch_size: int, count: int
) -> None:
    drawn = Gan(generator_of(family, classes))
    whole = drawn.sample(40, seed=3)
    part = drawn.sample(count, seed=3, batch_size=batch_size)
    assert_close(part * 1, whole[:count] * 1, atol=1e-5, rtol=1e-5)
    latents, some = drawn.latents(40, seed=3), drawn.latents(count, seed=3)
    assert torch.equal(some.values, latents.values[:count])
    if some.labels is not None and latents.labels is not None:
        assert torch.equal(some.labels, latents.labels[:count])


@pytest.mark.parametrize("make", [style_gan, style_gan2, style_gan3, big_gan])
def test_in_double_precision_images_agree_to_the_last_digits(make: Callable[[], Gan]) -> None:
    gan = make()
    gan = gan.with_generator(gan.generator.double())
    z, labels = torch.randn(9, gan.z_dim).double(), torch.arange(9) % 3
    latents = Latents(z=z, labels=labels)
    whole = gan.synthesize(latents, batch_size=9)
    for size in (1, 2, 4):
        assert_close(gan.synthesize(latents, batch_size=size), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("make", [style_gan, style_gan2, style_gan3, big_gan])
@pytest.mark.parametrize(("count", "batch_size", "expected"), [(1, 16, [1]), (7, 3, [3, 3, 1])])
def test_the_generator_computes_no_more_than_what_is_requested(
    make: Callable[[], Gan], count: int, batch_size: int, expected: list[int]
) -> None:
    gan = make()
    rows: list[int] = []
    for part in gan.generator.modules():
        if isinstance(part, torch.nn.Conv2d) or type(part).__name__ in ("Synthesis", "Layer"):
            part.register_forward_hook(lambda module, given, made: rows.append(len(made)))
    gan.sample(count, batch_size=batch_size)
    passes = [size for size, before in zip(rows, [0, *rows], strict=False) if size != before]
    assert passes == ([count] if len(expected) == 1 else [3, 1]) and set(rows) == set(expected)
    assert sum(rows) == count * len(rows) / len(expected)


def test_its_description_is_right() -> None:
    assert repr(Gan(generator_of("dcgan", 5), kimg=12.5)) == "Gan(dcgan, 12.5 kimg, 5 classes)"
    assert repr(Gan(generator_of("gan", 0))) == "Gan(gan, 0 kimg)"


def test_another_seed_gives_other_images() -> None:
    drawn = Gan(generator_of("gan", 0))
    images = torch.cat([drawn.sample(50, seed=seed) for seed in (0, 1)])
    assert len(images.flatten(1).unique(dim=0)) == 100


def test_labels_follow_the_training_data() -> None:
    drawn = Gan(
        generator_of("gan", 3),
        spec=image_spec(channels=1, image_size=(8, 8), class_names="abc", class_counts=[1, 0, 3]),
    )
    labels = drawn.labels(4000)
    assert labels is not None
    share = torch.bincount(labels, minlength=3) / 4000
    torch.testing.assert_close(share, torch.tensor([0.25, 0, 0.75]), atol=0.03, rtol=0)
    assert torch.equal(labels[100:200], drawn.labels(100, start=100))  # type: ignore[arg-type]


def test_chosen_labels() -> None:
    drawn = Gan(generator_of("gan", 3))
    one = drawn.sample(4, labels=2)
    assert torch.equal(one, drawn.sample(4, labels=[2, 2, 2, 2]))
    assert not torch.equal(one, drawn.sample(4, labels=1))
    each = drawn.sample(5, labels=[0, 1, 2, 0, 1], batch_size=2)
    for label in range(3):
        same = drawn.sample(5, labels=label)[label] * 1
        assert_close(each[label] * 1, same, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("classes", "arguments", "message"),
    [
        (3, {"labels": 3}, "class 3 is out of range: there are 3, 0 to 2"),
        (3, {"labels": 1.7}, "not whole numbers"),
        (3, {"labels": "cat"}, "no class 'cat'"),
        (3, {"labels": True}, "not whole numbers"),
        (3, {"labels": -1}, "class -1 is out of range"),
        (3, {"labels": [0, 1]}, "one for each of 4 images"),
        (0, {"labels": 0}, "generator without classes"),
        (0, {"batch_size": 0}, "must be at least 1"),
    ],
)
def test_bad_input(classes: int, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gan(generator_of("gan", classes)).sample(4, **arguments)  # type: ignore[arg-type]


def test_the_global_random_state_is_unchanged() -> None:
    drawn = Gan(generator_of("gan", 3))
    before = torch.get_rng_state()
    drawn.sample(20)
    assert torch.equal(before, torch.get_rng_state())


def test_a_seed_for_each_image() -> None:
    """An image of a list of seeds is its seed's first, with its seed's label."""
    drawn = Gan(generator_of("gan", 3))
    many = drawn.sample(seed=[9, 2, 5], batch_size=2)
    for image, seed in zip(many, (9, 2, 5), strict=True):
        assert_close(image * 1, drawn.sample(1, seed=seed)[0] * 1, atol=1e-5, rtol=1e-5)
    assert_close(drawn.sample(2, seed=[9, 2, 5]) * 1, many[:2] * 1, atol=1e-5, rtol=1e-5)
    assert len(drawn.sample(seed=3)) == 1
    with pytest.raises(InputError, match="2 seeds are too few"):
        drawn.sample(3, seed=[1, 2])
    with pytest.raises(InputError, match="seed=-4 must be from 0"):
        drawn.sample(2, seed=-4)


def test_label_vectors_mix_classes() -> None:
    drawn = Gan(generator_of("gan", 3))
    one_hot = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.equal(drawn.sample(2, labels=one_hot), drawn.sample(2, labels=[1, 2]))
    half = drawn.sample(2, labels=[[0.0, 0.5, 0.5]] * 2)
    assert not torch.equal(half, drawn.sample(2, labels=1))
    for wrong, message in (
        (torch.zeros(2, 4), r"label vectors have shape \(2, 4\)"),
        (torch.full((2, 3), float("nan")), "NaN"),
        (torch.zeros(2, 3, dtype=torch.int64), "labels have shape"),
    ):
        with pytest.raises(InputError, match=message):
            drawn.sample(2, labels=wrong)


def faces(generator: GeneratorNetwork) -> Gan:
    """A generator of three attributes, and some rows of the data that it was trained on."""
    spec = replace(
        image_spec(channels=1, image_size=(8, 8)),
        attributes=("smile", "age", "hat"),
        label_vectors=((0.0, 0.25, 1.0), (1.0, 0.5, 0.0)),
    )
    return Gan(generator, spec=spec)


def test_attributes_are_those_of_real_rows_but_for_those_that_are_named() -> None:
    drawn = faces(generator_of("gan", 3))
    rows = drawn.labels(8)
    assert rows is not None
    assert {tuple(row) for row in rows.tolist()} == {(0, 0.25, 1), (1, 0.5, 0)}
    given = drawn.latents(8, labels={"age": 0.3}).labels
    assert given is not None and given[:, 1].tolist() == pytest.approx([0.3] * 8)
    assert torch.equal(given[:, ::2], rows[:, ::2])
    each = drawn.latents(2, labels=[{"smile": -1}, {"hat": 2, "smile": 0}]).labels
    assert each is not None and each[:, 0].tolist() == [-1, 0] and each[1, 2] == 2
    # latents that have attributes keep those that are not named
    own = drawn.latents(1, labels=[[5.0, 6.0, 7.0]])
    both = drawn.as_latents(own, labels=[{"smile": 0}, {"hat": 1}]).labels
    assert both is not None and both.tolist() == [[0, 6, 7], [5, 6, 1]]
    assert len(drawn.as_latents(0, labels=[0.1, 0.2, 0.3])) == 1
    drawn.label_rows = np.array([[9, 9, 9]], dtype=np.float32)
    assert drawn.labels(2).tolist() == [[9] * 3] * 2  # type: ignore[union-attr]
    assert "1 rows" in str(drawn.labels_drawn)


def test_attributes_unknown() -> None:
    drawn = faces(generator_of("gan", 3))
    with pytest.raises(InputError, match=r"beard is not an attribute; .*smile, age, hat"):
        drawn.sample(1, labels={"beard": 1})
    with pytest.raises(InputError, match="smile must be a finite number"):
        drawn.sample(1, labels={"smile": float("nan")})
    with pytest.raises(InputError, match="2 sets of attributes for 3 images"):
        drawn.sample(3, labels=[{"smile": 1}, {"smile": 0}])
    with pytest.raises(InputError, match="no attributes"):
        Gan(generator_of("gan", 3)).sample(1, labels={"smile": 1})


def test_the_center_of_attributes_is_the_mean_of_w_with_them() -> None:
    drawn = faces(style_gan2().generator)
    row = torch.tensor([[0.5, -1.0, 2.0]])
    z = torch.randn(4096, drawn.z_dim, generator=torch.Generator().manual_seed(1))
    expected = drawn.style_generator.styles(z, row.expand(4096, -1)).mean(0)
    found = drawn.center(row)
    spread = (drawn.style_generator.styles(z, row.expand(4096, -1)) - expected).std()
    assert_close(found[0], expected, atol=float(spread) * 0.2, rtol=0)
    w = drawn.latents(1, labels=row, truncation=0.0, truncation_center="class").w
    assert w is not None
    assert_close(w, found)


@pytest.mark.parametrize("make", [style_gan, style_gan2])
def test_noise(make: Callable[[], Gan]) -> None:
    """Random noise is a function of seed and index alone, in any batch and whatever else is drawn."""
    gan = make()

    def near(one: torch.Tensor, other: torch.Tensor) -> bool:
        return torch.allclose(one * 1, other * 1, atol=1e-5, rtol=1e-5)

    whole = gan.sample(20, seed=3, noise="random")
    assert near(gan.sample(7, seed=3, noise="random", batch_size=3), whole[:7])
    latents = gan.latents(20, seed=3)
    assert near(gan.synthesize(latents[15:18], noise="random"), whole[15:18])
    assert near(gan.sample(seed=[3], noise="random"), whole[:1])
    others = [gan.sample(20, seed=3, noise=noise) * 1 for noise in ("const", "none")]
    others.append(gan.synthesize(latents.values, noise="random"))
    assert not any(near(a, b) for other in others for a, b in zip(whole, other, strict=True))
    same = gan.synthesize(latents.values[:1].expand(4, -1, -1), noise="random")
    assert len(same.flatten(1).unique(dim=0)) == 4
    with torch.no_grad():
        constant = gan.style_generator.synthesis(latents.values[:16], "const")
    assert torch.equal(constant, gan.synthesize(latents[:16]))
    before = torch.get_rng_state()
    gan.sample(4, noise="random")
    assert torch.equal(before, torch.get_rng_state())


def test_noise_of_an_image_is_the_same_to_the_last_bit() -> None:
    constant = torch.zeros(8, 8)
    drawn = gan_latents.seed_indices(9, seed=4)
    whole = gan_latents.ImageNoise(drawn)(constant)
    for i in range(9):
        assert torch.equal(gan_latents.ImageNoise(drawn[i : i + 1])(constant), whole[i : i + 1])


def test_noise_without_strength_changes_nothing() -> None:
    gan = style_gan2()
    for name, parameter in gan.generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.zero_()
    images = [gan.sample(4, noise=noise) * 1 for noise in ("const", "none", "random")]
    torch.testing.assert_close(images[0], images[1])
    torch.testing.assert_close(images[0], images[2])


def test_truncation_towards_the_mean_of_a_class() -> None:
    gan = style_gan2()
    drawn = gan.sample(6, labels=[0, 0, 0, 2, 2, 2], truncation=0.0, truncation_center="class")
    assert torch.equal(drawn[:3], drawn[:1].expand(3, -1, -1, -1))
    assert torch.equal(drawn[3:], drawn[3:4].expand(3, -1, -1, -1))
    assert not torch.equal(drawn[0], drawn[3])
    # against many other latents: the mean of 4096 lies within a few standard errors of that of 20000
    z, labels = torch.randn(20000, 8), torch.ones(20000, dtype=torch.int64)
    with torch.no_grad():
        w = gan.as_latents(Latents(z=z, labels=labels)).values[:, 0]
    center = gan.center(torch.tensor([1]))[0, 0]
    error = (center - w.mean(0)) / w.std(0) * 4096**0.5
    assert error.abs().max() < 5
    # a mixture of classes has the mixture of centers
    mixed = gan.center(torch.tensor([[0.25, 0.0, 0.75]]))
    expected = 0.25 * gan.center(torch.tensor([0])) + 0.75 * gan.center(torch.tensor([2]))
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(gan.center(torch.tensor([[0.0, 1.0, 0.0]])), gan.center(torch.tensor([1])))
    moved = gan.latents(2, labels=1, truncation=0.3, truncation_center="class").values
    plain = gan.latents(2, labels=1).values
    torch.testing.assert_close(moved, center + 0.3 * (plain - center))


def test_only_the_first_styles_of_stylegan_are_truncated() -> None:
    gan = style_gan(size=128)
    assert (gan.num_ws, gan.style_generator.truncation_cutoff) == (12, 8)
    for center in ("mean", "class"):
        plain = gan.latents(3, labels=[0, 1, 2]).values
        moved = gan.latents(3, labels=[0, 1, 2], truncation=0.5, truncation_center=center).values
        assert torch.equal(moved[:, 8:], plain[:, 8:])
        assert not torch.isclose(moved[:, :8], plain[:, :8]).all()


def test_where_a_moved_image_looks() -> None:
    """Positions are in sides from the middle, y down."""

    def place(x: float, y: float, **motion: Any) -> list[float]:
        given = {"translate": (0.0, 0.0), "rotate": 0.0, **motion}
        at = torch.tensor([x, y, 1.0], dtype=torch.float64)
        return [round(v, 9) + 0.0 for v in (image_transform(**given) @ at)[:2].tolist()]

    # what comes to lie a quarter to the right was in the middle
    assert place(0.25, 0.0, translate=(0.25, 0.0)) == [0, 0]
    assert place(0.0, 0.25, translate=(0.0, 0.25)) == [0, 0]
    # counter-clockwise, the right side turns up
    assert place(0.0, -0.4, rotate=90.0) == [0.4, 0]
    assert place(0.1, -0.4, rotate=90.0, translate=(0.1, 0.0)) == [0.4, 0]


def test_a_moved_image() -> None:
    gan = style_gan3(classes=0)
    plain = gan.sample(4) * 1
    assert torch.equal(gan.sample(4, translate=(0.0, 0.0), rotate=0.0) * 1, plain)
    right, down = (gan.sample(4, translate=t) * 1 for t in ((0.125, 0.0), (0.0, 0.125)))
    spread = float(plain.std())
    assert (right[..., 2:] - plain[..., :-2]).square().mean().sqrt() < 0.1 * spread
    assert (down[..., 2:, :] - plain[..., :-2, :]).square().mean().sqrt() < 0.1 * spread
    assert (right[..., :-2] - plain[..., 2:]).square().mean().sqrt() > 0.2 * spread
    alone = gan.sample(3, seed=0, rotate=20, batch_size=1) * 1
    assert_close(alone, gan.sample(4, rotate=20)[:3] * 1, atol=1e-5, rtol=1e-5)
    one = torch.eye(3).expand(4, 3, 3)
    assert_close(gan.synthesize(gan.latents(4), transform=one), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (style_gan2, {"translate": (0.1, 0.0)}, "stylegan2 has none; leave them out"),
        (style_gan2, {"rotate": 5}, "stylegan2 has none"),
        (style_gan3, {"translate": 0.1}, "must be two numbers"),
        (style_gan3, {"translate": (0.1, float("inf"))}, "must be two numbers"),
        (style_gan3, {"rotate": "left"}, "must be a number of degrees"),
        (style_gan3, {"noise": "random"}, "stylegan3 has no noise inputs"),
        (style_gan2, {"noise": "loud"}, "must be one of random, const, none"),
        (style_gan2, {"truncation_center": "middle"}, "must be one of mean, class"),
        (lambda: style_gan2(classes=0), {"truncation_center": "class"}, "the model has no classes"),
        (big_gan, {"truncation_center": "class"}, "biggan has no styles"),
        (big_gan, {"noise": "none"}, "biggan has no noise inputs"),
    ],
)
def test_meaningless_options_are_rejected(
    make: Callable[[], Gan], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make().sample(2, **arguments)


def test_styles_of_a_generator_without_them() -> None:
    gan = big_gan()
    with pytest.raises(InputError, match="space=w: biggan has no styles w; set space=z"):
        gan.latents(1, space="w")
    for call in (
        lambda: gan.num_ws,
        lambda: gan.synthesize(torch.zeros(1, 1, 1)),
    ):
        with pytest.raises(InputError, match="biggan has no styles w; stylegan, stylegan2"):
            call()
    with pytest.raises(InputError, match="stylegan2 has no input that a transform could move"):
        other = style_gan2()
        other.synthesize(other.latents(1), transform=torch.eye(3))
