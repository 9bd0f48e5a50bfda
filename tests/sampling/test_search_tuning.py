"""Pivotal tuning: the images get nearer, the rest stays."""

import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.projection import ProjectionResult, project
from gan_lab.sampling.search import Tuning
from gan_lab.sampling.targets import mean_squared_error
from tests.sampling.conftest import big_gan, style_gan2

TARGETS = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def tuned(gan: Gan, **settings: float) -> ProjectionResult:
    return project(gan, TARGETS, labels=[0, 2], steps=5, restarts=1, tuning=Tuning(**settings))  # type: ignore[arg-type]


def test_latents_alone_give_the_images() -> None:
    gan = style_gan2(3, 16)
    before = {name: value.clone() for name, value in gan.generator.state_dict().items()}
    found = tuned(gan, steps=20, lr=1e-2)
    assert found.before_tuning is not None and found.latents.w is not None
    assert (found.mse < 0.7 * mean_squared_error(found.before_tuning, found.targets)).all()
    assert torch.allclose(found.images_const_noise, found.images, atol=1e-5) and found.noise is None
    assert torch.allclose(found.gan.synthesize(found.latents.w), found.images, atol=1e-5)
    assert all(torch.equal(v, before[n]) for n, v in gan.generator.state_dict().items())
    changed = {
        n for n, v in found.gan.generator.state_dict().items() if not torch.equal(v, before[n])
    }
    assert changed and all(name.startswith("synthesis.") for name in changed), "w stays what it was"
    assert not any(name.endswith(".noise_const") for name in changed)
    assert found.gan.class_names == gan.class_names and found.gan.kimg == gan.kimg


def test_generators_without_styles_are_tuned_completely() -> None:
    found = tuned(big_gan(), steps=20, lr=1e-2)
    assert found.before_tuning is not None and found.latents.z is not None
    assert (found.mse < 0.9 * mean_squared_error(found.before_tuning, found.targets)).all()
    images = found.gan.synthesize(found.latents)
    assert torch.allclose(images, found.images, atol=1e-5)


def test_locality_holds_other_images_where_they_were() -> None:
    gan = style_gan2(3, 16)
    others = gan.sample(16, seed=4)
    moved = [
        mean_squared_error(
            tuned(gan, steps=15, lr=5e-3, locality=weight).gan.sample(16, seed=4), others
        )
        for weight in (0.0, 10.0)
    ]
    assert moved[1].mean() < moved[0].mean() / 2


@pytest.mark.parametrize("name", ["lr", "l2", "locality", "radius"])
def test_bad_input(name: str) -> None:
    with pytest.raises(InputError, match=f"tune.{name}=-1.0 must be a number from 0"):
        Tuning(**{name: -1.0})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"tune\.steps=True"):
        Tuning(steps=True)
