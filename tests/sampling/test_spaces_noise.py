"""Noise maps of projections, in closed form."""

import pytest
import torch

from gan_lab.sampling.spaces import NoiseMaps, correlation, noise_buffers
from tests.sampling.conftest import big_gan, style_gan, style_gan2


def test_correlation_of_known_maps() -> None:
    flat = torch.ones(1, 1, 16, 16)
    # twice (1 * 1)^2; halved it is 2 everywhere: twice (2 * 2)^2
    assert correlation(flat).item() == pytest.approx(2 + 32)
    checks = flat.clone()
    checks[..., ::2, ::2] = checks[..., 1::2, 1::2] = -1
    assert correlation(checks).item() == pytest.approx(2), "halved it is nothing"
    stripes = flat.clone()
    stripes[..., ::2] = -1
    assert correlation(stripes).item() == pytest.approx(2), "one way it repeats, one way it changes"
    assert correlation(flat[..., :4, :4]).item() == pytest.approx(2), "small ones are not halved"
    assert correlation(flat[..., :14, :12]).item() == pytest.approx(34), "14 x 12 and 7 x 6"
    white = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert correlation(white).mean().item() < 0.2


def test_normalizing_makes_every_map_standard() -> None:
    maps = NoiseMaps(
        {"a": torch.randn(3, 1, 8, 8) * torch.tensor([1.0, 5, 0.1])[:, None, None, None] + 2}
    )
    maps.normalize()
    for one in maps.maps["a"]:
        assert one.mean().abs() < 1e-5 and one.square().mean().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("make", [style_gan, style_gan2])
def test_maps_replace_the_constant_noise(make) -> None:  # type: ignore[no-untyped-def]
    gan = make(0, 16)
    generator = gan.generator
    w = gan.latents(2).values
    constants = noise_buffers(generator)
    assert [tuple(c.shape) for c in constants.values()][-1] == (16, 16)
    same = NoiseMaps({name: c.expand(2, 1, *c.shape).clone() for name, c in constants.items()})
    images = generator.synthesis(w, same.given_to(generator))
    assert torch.equal(images, generator.synthesis(w, "const"))
    last = list(same.maps)[-1]
    same.maps[last][1] *= -1
    other = generator.synthesis(w, same.given_to(generator))
    assert torch.equal(other[0], images[0]) and not torch.allclose(other[1], images[1])


def test_every_image_begins_with_the_same_maps() -> None:
    generator = style_gan2(0, 16).generator
    three, one = (NoiseMaps.drawn(generator, count, seed=4) for count in (3, 1))
    for name, maps in three.maps.items():
        assert all(torch.equal(row, one.maps[name][0]) for row in maps)
    assert three.penalty().shape == (3,)
    other = NoiseMaps.drawn(generator, 1, seed=5)
    assert not any(torch.equal(other.maps[name], maps) for name, maps in one.maps.items())


def test_others_have_none() -> None:
    assert noise_buffers(big_gan().generator) == {}
