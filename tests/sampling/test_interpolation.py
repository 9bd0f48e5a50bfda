"""Interpolation: at key points the images are the key points' own, between them what the spaces say."""

import pytest
import torch
from torch.testing import assert_close

from gan_lab.data.images import Images
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents
from tests.sampling.conftest import big_gan, style_gan, style_gan2, style_gan3


@pytest.mark.parametrize("make", [style_gan, style_gan2, style_gan3, big_gan])
@pytest.mark.parametrize("loop", [False, True])
def test_key_points_are_themselves(make: type[Gan], loop: bool) -> None:
    gan = make()
    keys = gan.sample(seed=[4, 8, 1], labels=[0, 2, 1], truncation=0.6)
    for space in ("w", "z") if gan.has_styles else ("z",):
        made = gan.interpolate(
            [4, 8, 1], frames=5, labels=[0, 2, 1], space=space, loop=loop, truncation=0.6
        )
        assert isinstance(made, Images) and len(made) == (15 if loop else 11)
        assert_close(made[::5] * 1, keys * 1, atol=1e-4, rtol=1e-4)
        assert len(made.flatten(1).unique(dim=0)) == len(made)


def test_straight_in_w() -> None:
    gan = style_gan2()
    w = gan.latents(seed=[3, 5], labels=[0, 1]).values
    expected = gan.synthesize(
        torch.stack([torch.lerp(w[0], w[1], t) for t in (0, 0.25, 0.5, 0.75, 1)])
    )
    assert_close(
        gan.interpolate([3, 5], frames=4, labels=[0, 1]) * 1, expected, atol=1e-5, rtol=1e-5
    )
    assert_close(gan.interpolate(w, frames=4) * 1, expected, atol=1e-5, rtol=1e-5)


def test_a_class_morph_mixes_the_classes_embeddings() -> None:
    """Half way, BigGAN's condition is the mean of both classes' rows."""
    gan = big_gan()
    made = gan.interpolate([7], frames=2, labels=[0, 2])
    assert len(made) == 3
    half = torch.tensor([[0.5, 0.0, 0.5]])
    assert_close(
        made[1:2] * 1, gan.synthesize(gan.latents(1, seed=7, labels=half)), atol=1e-5, rtol=1e-5
    )
    embedding = gan.generator.get_submodule("embedding")
    table = embedding.weight.clone()
    with torch.no_grad():
        embedding.weight[1] = (table[0] + table[2]) / 2
    assert_close(made[1:2] * 1, gan.sample(seed=[7], labels=1) * 1, atol=1e-5, rtol=1e-5)


def test_over_the_sphere_in_z() -> None:
    gan = big_gan(classes=0)
    a, b = gan.latents(seed=[3, 5]).values.double()
    angle = (a @ b / a.norm() / b.norm()).acos()
    direction = (a / a.norm() + b / b.norm()) / (2 * (angle / 2).cos())
    z = direction * (a.norm() + b.norm()) / 2
    made = gan.interpolate([3, 5], frames=2)
    assert_close(made[1:2] * 1, gan.synthesize(z.float()[None]), atol=1e-5, rtol=1e-5)


def test_truncation_towards_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    gan = style_gan2()
    still = gan.interpolate([3, 5], frames=3, labels=1, truncation=0.0, truncation_center="class")
    assert torch.equal(still, still[:1].expand(4, -1, -1, -1))
    expected = gan.synthesize(gan.center(torch.tensor([1])))
    assert_close(still[:1] * 1, expected, atol=1e-5, rtol=0)
    # between classes, from one center to the other
    ways = [
        gan.interpolate(
            [3, 5], frames=2, labels=[0, 1], truncation=0.0, truncation_center="class", space=space
        )
        for space in ("w", "z")
    ]
    assert_close(ways[0] * 1, ways[1] * 1, atol=1e-4, rtol=1e-4)


def test_latents_of_a_file() -> None:
    gan = style_gan2()
    latents = gan.latents(seed=[1, 2, 3], labels=[0, 1, 2], space="z")
    expected = gan.interpolate([1, 2, 3], frames=2, labels=[0, 1, 2])
    assert torch.equal(
        gan.interpolate(Latents(z=latents.z, labels=latents.labels), frames=2), expected
    )


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (style_gan2, {"source": [3]}, "two key points or more"),
        (style_gan2, {"method": "round"}, "must be one of linear, spherical, spline"),
        (style_gan2, {"space": "y"}, "must be one of z, w"),
        (style_gan2, {"frames": 0}, "frames=0"),
        (style_gan2, {"noise": "random"}, "would flicker"),
        (style_gan2, {"source": torch.zeros(2, 8, 8), "space": "z"}, "set space=w"),
        (style_gan2, {"labels": [0, 3]}, "class 3 is out of range"),
        (style_gan2, {"labels": [0, 1, 2]}, "shape .3,.*2 images"),
        (big_gan, {"space": "w"}, "biggan has no styles w; set space=z"),
        (big_gan, {"truncation_center": "class"}, "biggan has no styles"),
        (big_gan, {"truncation": 0}, "it is the threshold"),
        (big_gan, {"noise": "none"}, "biggan has no noise inputs"),
    ],
)
def test_what_there_is_not(make: type[Gan], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make().interpolate(**{"source": [0, 1], **arguments})  # type: ignore[arg-type]
