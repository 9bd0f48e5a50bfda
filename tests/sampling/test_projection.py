"""Projections of images with known latents, and their reports."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.models import bigan
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents
from gan_lab.sampling.projection import project
from gan_lab.sampling.search import Rows, Schedule, best
from gan_lab.sampling.spaces import choose_space, full_precision_copy
from gan_lab.sampling.targets import Distance, PyramidDistance, Targets, mean_squared_error
from tests.helpers.planted import linear_gan, with_values
from tests.sampling.conftest import big_gan, style_gan, style_gan2, style_gan3

MATRIX, _ = with_values(torch.tensor([1.0, 0.8, 0.6, 0.5]) / 2)


def test_the_latents_of_a_linear_generator_are_found() -> None:
    gan = linear_gan(MATRIX)
    z = gan.latents(3, seed=5).values
    found = project(gan, gan.synthesize(z), steps=Schedule(steps=200, prior=0), restarts=1)
    assert found.space == "z" and found.latents.z is not None
    assert torch.allclose(found.latents.z, z, atol=0.02)
    assert (found.mse < 1e-5).all() and found.loss.shape == (3,)
    assert torch.allclose(found.images_const_noise, found.images, atol=1e-5) and found.noise is None


def test_the_class_is_found_or_given() -> None:
    gan = linear_gan(MATRIX / 4, num_classes=3)
    y = torch.tensor([2, 0, 1, 2])
    images = (
        gan.synthesize(gan.latents(4, seed=5, labels=y)) - 1
    )  # so that they lie in [-1, 1], as images do
    gan.generator.first.bias = torch.nn.Parameter(torch.full((16,), -1.0), requires_grad=False)
    found = project(gan, images, steps=0, restarts=2)
    assert found.latents.labels is not None and found.latents.labels.tolist() == y.tolist()
    given = project(gan, images, labels=1, steps=0, restarts=2)
    assert given.latents.labels is not None and given.latents.labels.tolist() == [1, 1, 1, 1]
    assert (given.mse[[0, 1, 3]] > 0.9).all(), "of the wrong class"


def test_the_prior_keeps_z_at_the_length_of_normal_ones() -> None:
    gan = linear_gan(MATRIX)
    gray = torch.zeros(1, 1, 4, 4)  # which z = 0 gives
    lengths = [
        project(gan, gray, steps=Schedule(steps=200, prior=prior), restarts=1)
        .latents.z.square()
        .mean()
        .item()  # type: ignore[union-attr]
        for prior in (0.0, 1e3)
    ]
    assert lengths[0] < 0.01 and lengths[1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_styles_of_a_generated_image_are_found(space: str) -> None:
    gan = style_gan2(0, 16)
    made = gan.synthesize(gan.latents(2, seed=7))
    # of an untrained generator, which knows no range
    target = Targets(images=made, names=["a", "b"])
    begin = project(gan, target, space=space, steps=0, noise=False)
    found = project(gan, target, space=space, steps=80, noise=False)
    assert (found.mse < begin.mse / 50).all()
    w = found.latents.w
    assert w is not None and w.shape == (2, 6, 8)
    one_style = (w == w[:, :1]).all()
    assert bool(one_style) == (space == "w")
    assert torch.allclose(gan.synthesize(w), found.images, atol=1e-5)


def test_the_search_in_w_begins_at_its_mean() -> None:
    gan = style_gan2(3, 16)
    found = project(gan, torch.zeros(2, 1, 16, 16), labels=[2, 0], steps=0)
    w = found.latents.w
    assert w is not None
    for row, label in zip(w, [2, 0], strict=True):
        expected = gan.center(torch.tensor([label]))[0]
        spread = gan.latents(200, labels=label).values.std(0)
        assert ((row - expected).abs() < 0.1 * spread + 1e-3).all()


def test_an_image_alone_gives_the_same_as_in_a_batch() -> None:
    gan = style_gan(3, 16)
    targets = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = project(gan, targets, steps=10, batch_size=2)
    for i in (0, 2):
        alone = project(gan, targets[i : i + 1], steps=10)
        assert torch.allclose(alone.images[0], together.images[i], atol=1e-3)
        assert alone.latents.labels is not None and together.latents.labels is not None
        assert alone.latents.labels[0] == together.latents.labels[i]
    again = project(gan, targets, steps=10, batch_size=2)
    assert torch.equal(again.images, together.images)
    other = project(gan, targets, steps=10, batch_size=2, seed=1)
    assert not torch.equal(other.images, together.images)


def test_noise_is_searched_for_and_carries_no_image() -> None:
    gan = style_gan2(0, 16)
    found = project(gan, torch.rand(2, 1, 16, 16) * 2 - 1, steps=40)
    assert found.noise is not None and set(found.noise.maps) == set(found.noise.maps)
    last = list(found.noise.maps.values())[-1]
    assert last.shape == (2, 1, 16, 16) and last.mean((1, 2, 3)).abs().max() < 1e-5
    assert last.square().mean((1, 2, 3)).allclose(torch.ones(2), atol=1e-4)
    assert (found.noise.penalty() < 0.05).all()
    assert found.latents.w is not None
    assert torch.allclose(found.images_const_noise, gan.synthesize(found.latents.w), atol=1e-6)
    assert not torch.allclose(found.images_const_noise, found.images, atol=1e-3), "the maps count"
    assert project(gan, torch.zeros(1, 1, 16, 16), steps=1, noise=False).noise is None


def test_the_best_of_a_images_searches_counts() -> None:
    gan = linear_gan(MATRIX)
    z = gan.latents(4).values
    targets = gan.synthesize(z)
    rows = Rows(
        targets=targets[[0, 0, 3, 3]],
        values=z[[1, 0, 3, 2]],
        labels=None,
        deviation=torch.zeros(4),
        noise=None,
    )
    kept = best(choose_space(gan, "z"), rows, PyramidDistance(), 2)
    assert torch.equal(kept.values, z[[0, 3]]) and torch.equal(kept.targets, targets[[0, 3]])


def bi_gan(classes: int = 0) -> Gan:
    torch.manual_seed(0)
    made = bigan.Generator(
        image_size=8, channels=1, num_classes=classes, z_dim=4, width=4, encoder_width=4
    )
    for weight in (p for p in made.parameters() if p.ndim > 1):
        torch.nn.init.normal_(weight, std=0.3)
    return Gan(made.eval().requires_grad_(False))


@pytest.mark.parametrize("classes", [0, 3])
def test_bigan_is_inverted_by_its_encoder(classes: int) -> None:
    gan = bi_gan(classes)
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    found = project(gan, images)
    assert isinstance(gan.generator, bigan.Generator) and found.steps == 0
    codes = gan.generator.encode(images)
    assert found.latents.z is not None and torch.allclose(found.latents.z, codes, atol=1e-5)
    if classes:
        assert found.latents.labels is not None
        every = [
            gan.synthesize(Latents(z=codes, labels=torch.full((3,), label)))
            for label in range(classes)
        ]
        nearest = torch.stack([PyramidDistance()(made, images) for made in every]).argmin(0)
        assert found.latents.labels.tolist() == nearest.tolist()
    refined = project(gan, images, steps=20)
    assert refined.loss.mean() < found.loss.mean()
    with pytest.raises(InputError, match="starts from its encoder"):
        project(gan, images, restarts=2)


class Interrupted(Distance):
    """Ctrl-C while images are compared for the `after`-th time."""

    name = "interrupted"

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return mean_squared_error(images, targets)


def test_ctrl_c_leaves_what_was_found() -> None:
    gan = linear_gan(MATRIX)
    stop = Interrupted(7)
    images = gan.synthesize(gan.latents(4))
    found = project(gan, images, distance=stop, steps=5, restarts=1, batch_size=2)
    assert not found.finished
    assert len(found.images) == 4 and len(found.results()) == 4, "the second pair had begun"
    stop.left = 2
    found = project(gan, images, distance=stop, steps=5, restarts=1, batch_size=2)
    assert len(found.images) == 2 and found.names == ["image 0", "image 1"]


def test_results_and_points_say_what_they_are_of() -> None:
    gan = style_gan2(3, 16)
    found = project(gan, torch.zeros(2, 1, 16, 16), labels=1, steps=1, record=True)
    (first, _) = found.results()
    assert first["name"] == "image 0" and first["label"] == 1
    assert first["mse"] == pytest.approx(found.images[0].square().mean().item())
    assert first["mse_const_noise"] == pytest.approx(
        found.images_const_noise[0].square().mean().item()
    )
    metadata = found.latents.metadata
    assert metadata["kind"] == "project" and json.loads(metadata["names"]) == found.names
    gan.check_latents(found.latents)
    png = found._repr_png_()
    assert png is not None and png.startswith(b"\x89PNG")
    assert isinstance(found.latents, Latents)


def test_the_way_shows_targets_beside_images() -> None:
    gan = style_gan3(0)
    found = project(gan, torch.full((9, 1, 16, 16), -1.0), steps=3, batch_size=5, record=True)
    assert found.frames is not None and found.frames.count == 8
    frames = list(found.frames.frames(hold=2))
    assert len(frames) == 3 + 2 and frames[0].shape == (1, 2 * 18 + 2, 8 * 18 + 2)
    assert (frames[-1][:, 2:18, 2:18] == 0).all(), "the first target"
    last = frames[-1][:, 2:18, 20:36]
    assert torch.allclose(last / 127.5 - 1, found.images[0].clamp(-1, 1), atol=0.02)


def test_schedules_are_those_of_the_paper() -> None:
    of_paper = Schedule(steps=1000, lr=0.1)
    rates = [of_paper.learning_rate(step) for step in range(1000)]
    assert rates[24] == pytest.approx(0.05) and rates[49:751] == pytest.approx([0.1] * 702)
    assert rates[875] == pytest.approx(0.05) and rates[999] < 1e-5
    assert of_paper.jitter_at(0) == 0.05 and of_paper.jitter_at(375) == pytest.approx(0.05 / 4)
    assert of_paper.jitter_at(750) == of_paper.jitter_at(999) == 0


def test_gradients_are_of_single_precision() -> None:
    from gan_lab.models import stylegan2

    made = stylegan2.Generator(
        image_size=16, channels=1, channel_base=64, w_dim=8, z_dim=8, num_fp16_res=2
    )
    copy = full_precision_copy(made)
    types = [[b.dtype for b in g.synthesis.blocks] for g in (made, copy)]  # type: ignore[union-attr,operator]
    assert types == [[None, torch.float16, torch.float16], [None] * 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "y"}, "space='y' must be one of auto, w, w\\+, z"),
        ({"space": "w"}, "biggan has no styles w"),
        ({"noise": True}, "biggan has no noise inputs"),
        ({"steps": -1}, "steps=-1 must be a whole number from 0"),
        ({"steps": 1.5}, "steps=1.5"),
        ({"restarts": 0}, "restarts=0 must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"labels": 3}, "class 3 is out of range"),
        ({"labels": [[0.5, 0.5, 0.0]]}, "within one class"),
        ({"tuning": -3}, "tune.steps=-3"),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        project(big_gan(), torch.zeros(1, 1, 16, 16), **settings)


@pytest.mark.parametrize("name", ["lr", "jitter", "prior", "noise_weight"])
@pytest.mark.parametrize("value", ["fast", -1, float("nan"), True])
def test_bad_schedules(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name}={value!r} must be a number from 0"):
        Schedule(**{name: value})
