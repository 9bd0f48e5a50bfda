"""GAT against the authors' networks, its stages and noise in closed form, and its training."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.testing import assert_close

from gan_lab.config import build
from gan_lab.data.sample import Batch
from gan_lab.errors import InputError
from gan_lab.models.gat import GAT, SIZES, Discriminator, Generator, nested_noise, noise_levels
from gan_lab.training.augment.diffaugment import DiffAugment
from gan_lab.training.building import describe_samples
from gan_lab.training.regularizers import squared_slope
from gan_lab.weights import from_published
from tests.helpers import small as overrides_of
from tests.helpers.checkpoints import check_resume
from tests.helpers.published import fixture, relative_error
from tests.helpers.resnets import parameters
from tests.helpers.samples import images_of
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
TINY: dict[str, Any] = {"depth": 4, "width": 16, "heads": 2, "patch": 4, "channels": 3}


def small(compose: Compose, *overrides: str, size: Any = 16, classes: int = 10) -> GAT:
    config = compose("model=gat", "batch_size=4", *overrides_of.GAT, *overrides)
    describe_samples(config, images_of(size, channels=3, classes=classes))
    torch.manual_seed(0)
    module = build(config.model, total_images=8)
    assert isinstance(module, GAT)
    return module


class Published:
    """The authors' networks with their inputs and outputs."""

    def __init__(self) -> None:
        config, state, arrays = fixture("gat_16_p2")
        networks = from_published(config, state)
        self.generator: Any = networks["G"]
        self.discriminator: Any = networks["D"]
        self.given = {k: torch.from_numpy(v) for k, v in arrays.items() if k[:3] in ("in/", "out")}


@pytest.fixture(scope="module")
def published() -> Iterator[Published]:
    with torch.no_grad():
        yield Published()


def test_images_are_the_published_ones(published: Published) -> None:
    g, given = published.generator, published.given
    z, labels = given["in/z"], given["in/y"]
    assert relative_error(g.stages(z, labels), given["out/imgs"]) < 1e-5
    assert relative_error(g(z, labels), given["out/imgs"][-1]) < 1e-5
    assert relative_error(g(z, labels, truncation=0.5), given["out/img_lerp0.5"]) < 1e-5
    assert relative_error(g(z, labels, guidance=1.5), given["out/img_guidance1.5"]) < 1e-5
    vectors = torch.nn.functional.one_hot(labels, 10).float()
    assert_close(g(z, vectors, truncation=0.5), g(z, labels, truncation=0.5))


def test_logits_and_features_are_the_published_ones(published: Published) -> None:
    d, given = published.discriminator, published.given
    noised, labels = given["out/noised"], given["in/y"]
    assert relative_error(nested_noise(given["out/imgs"], given["in/seed_noise"]), noised) < 1e-6
    logits = d(noised, labels)
    assert relative_error(logits, given["out/logits"]) < 1e-5
    assert torch.equal(d(tuple(noised), labels), logits)
    whole, places = d.features(noised, labels)
    assert relative_error(whole, given["out/repa_cls"]) < 1e-5
    assert relative_error(places, given["out/repa_tokens"]) < 1e-5
    # a difference of logits that agree in six digits: the authors' own code gives 1.4e-4 on another machine
    near = d(noised + 0.01 * given["in/step"], labels)
    assert relative_error(squared_slope(near, logits, 0.01), given["out/approx_r1"]) < 1e-3


# the authors' code on latents of 32x32x4, 1,000 classes and DINOv2 B's features, without what does not act: G's
# embedding of patches, which it multiplies by 0, and fixed positions
@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [
        ("S", 29_256_512, 39_114_624),
        ("B", 116_545_088, 104_480_256),
        ("L", 408_469_024, 322_773_728),
        ("XL", 601_936_640, 467_383_872),
    ],
)
def test_parameters_are_as_many_as_the_authors(
    size: str, generator: int, discriminator: int
) -> None:
    arguments: dict[str, Any] = {"image_size": 32, "channels": 4, "num_classes": 1000, "size": size}
    with torch.device("meta"):
        assert parameters(Generator(**arguments)) == generator
        assert parameters(Discriminator(**arguments, feature_dim=768)) == discriminator
    assert list(SIZES) == ["S", "B", "L", "XL"]


def test_noise_of_a_shallow_stage_contains_that_of_deeper_ones() -> None:
    levels = noise_levels()
    assert_close(levels, [1 - 0.125 ** (1 - k / 3) + 0.01 for k in range(4)])
    torch.manual_seed(0)
    noise = torch.randn(4, 1, 1, 200, 200)
    mixed = nested_noise(torch.zeros_like(noise), noise).flatten(1)
    assert_close(mixed.std(1), torch.tensor(levels), rtol=0.02, atol=0)
    for shallow in range(3):
        decay = (1 - levels[shallow]) / (1 - levels[shallow + 1])
        rest = mixed[shallow] - decay * mixed[shallow + 1]
        assert abs(float(torch.corrcoef(torch.stack([rest, mixed[shallow + 1]]))[0, 1])) < 0.02
    images = torch.randn(4, 2, 3, 4, 4)
    scales = 1 - torch.tensor(levels)
    assert_close(nested_noise(images, 0 * images), images * scales.view(4, 1, 1, 1, 1))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("size", "patch"), [(8, 4), (16, 2), ([8, 24], 8), ([16, 8], 4)])
def test_sizes_rectangles_and_patches(size: Any, patch: int, classes: int) -> None:
    arguments = {**TINY, "image_size": size, "patch": patch, "num_classes": classes}
    labels = torch.tensor([0, 2]) if classes else None
    generator = Generator(**arguments, z_dim=8).eval()
    stages = generator.stages(torch.randn(2, 8), labels)
    shape = (2, 3, *([size] * 2 if isinstance(size, int) else size))
    assert stages.shape == (4, *shape)
    network = Discriminator(**arguments, label_dim=8)
    assert network(stages, labels).shape == (2,)
    assert network(stages[-1], labels).shape == (2,), "one image stands for all stages"


def test_patches_have_positions() -> None:
    """In a rectangle, too: patches that change places change the image of the discriminator."""
    network = Discriminator(**{**TINY, "image_size": [8, 16]})
    image = torch.randn(1, 3, 8, 16)
    for moved in (image.roll(4, 2), image.roll(4, 3), image.roll(8, 3)):
        assert not torch.allclose(network(image), network(moved), atol=1e-6)


def test_stages_are_sums_and_each_has_its_style() -> None:
    generator = Generator(**TINY, image_size=8, z_dim=8).eval()
    for k, layer in enumerate(generator.synthesis.outputs):
        torch.nn.init.zeros_(layer.linear.weight)
        torch.nn.init.constant_(layer.linear.bias, float(k + 1))
    stages = generator.stages(torch.randn(2, 8))
    assert [float(image.detach().mean()) for image in stages] == [1, 3, 6, 10]
    torch.manual_seed(1)
    generator = Generator(**TINY, image_size=8, z_dim=8).eval()
    w = generator.styles(torch.randn(1, 8))
    other = w.clone()
    other[:, 2] += 1
    made = generator.synthesis.stages(w), generator.synthesis.stages(other)
    same = (made[0] - made[1]).abs().flatten(1).amax(1) < 1e-5
    assert same.tolist() == [True, True, False, False]
    assert [len(maps) for maps in generator.synthesis.affines()] == [2, 2, 2, 2]


def test_the_mean_of_w_is_updated_for_each_class() -> None:
    generator = Generator(**TINY, image_size=8, z_dim=8, num_classes=3, w_avg_beta=0.75)
    z, labels = torch.randn(4, 8), torch.tensor([0, 2, 2, 0])
    w = generator.styles(z, labels)[:, 0].detach()
    means = generator.mapping.w_avg
    assert_close(means[0], 0.25 * (w[0] + w[3]) / 2)
    assert_close(means[2], 0.25 * (w[1] + w[2]) / 2)
    assert not means[1].any(), "a class that no batch had"
    generator.eval()
    vectors = torch.tensor([[0.5, 0, 0.5], [0, 0, 0]])
    centers = generator.center(vectors)[:, 0]
    assert_close(centers, torch.stack([(means[0] + means[2]) / 2, means.mean(0)]))
    moved = generator.styles(z, labels, truncation=0.0)
    assert_close(moved[:, 3], means[labels])


def test_stages_are_augmented_equally_with_one_draw_of_noise(compose: Compose) -> None:
    module = small(compose, "augment.diffaugment.policy=[translation,cutout]")
    assert isinstance(module.augmentations["diffaugment"], DiffAugment)
    image = torch.randn(4, 3, 16, 16)
    stages = tuple(k * image for k in range(1, 5))
    changed = module._changed_alike(stages)
    for k, made in enumerate(changed, start=1):
        assert_close(made, k * changed[0])
    assert not torch.equal(changed[0], image)
    torch.manual_seed(3)
    first = module.augment(stages)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(first, module.augment(stages), strict=True))


@pytest.mark.parametrize("classes", [0, 10])
def test_every_part_learns(compose: Compose, classes: int) -> None:
    module = small(compose, classes=classes)
    before = {n: p.clone() for n, p in module.named_parameters() if p.requires_grad}
    fit(module)
    stats = module.stats.take()
    assert stats["reg/approximate_r1"] > 0 and stats["reg/approximate_r2"] > 0
    still = {n for n, p in module.named_parameters() if n in before and torch.equal(p, before[n])}
    # adding one number to all logits changes no difference of two
    assert still <= {"discriminator.linear.bias"}


def test_features_of_real_images_are_predicted_with_a_teacher(
    compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    module = small(compose, "model.discriminator.feature_dim=768")
    fit(module)
    assert "dinov2-vit-b-14" in capsys.readouterr().out, "the log says that there are no weights"

    class Teacher:
        def tokens(self, images: Tensor) -> Tensor:
            return torch.ones(len(images), 1 + 256, 768)

    module = small(compose, "model.discriminator.feature_dim=768")
    module._teacher = Teacher()  # type: ignore[assignment]
    module.representation = images_of(16, channels=3).representation
    batch = Batch(torch.randn(4, 3, 16, 16), torch.arange(4))
    output = module.discriminate(module.real(batch), batch, "real")
    assert output.losses["features"].shape == (4,)
    assert not module.discriminate(module.real(batch), batch, "generator").losses
    head: Any = module.discriminator.head
    torch.nn.init.zeros_(head[-1].weight)
    torch.nn.init.ones_(head[-1].bias)
    error = module.discriminate(module.real(batch), batch, "real").losses["features"]
    assert_close(error, torch.zeros(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("again", [True, "elementwise"])
def test_recomputed_activations_give_the_same_gradients(again: Any) -> None:
    def gradients(recompute: Any) -> list[Tensor]:
        torch.manual_seed(0)
        arguments = {**TINY, "image_size": 8, "recompute": recompute}
        generator, network = Generator(**arguments, z_dim=8), Discriminator(**arguments)
        network(generator.stages(torch.randn(2, 8))).sum().backward()
        players = (*generator.parameters(), *network.parameters())
        return [p.grad for p in players if p.grad is not None]

    for plain, other in zip(gradients(False), gradients(again), strict=True):
        assert_close(plain, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": "M"}, "size='M'"),
        ({"depth": 6}, "depth=6"),
        ({"heads": 3}, "heads=3"),
        ({"heads": 8}, "width 2"),
        ({"patch": 3}, "patch=3"),
        ({"recompute": "all"}, "recompute='all'"),
    ],
)
@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_invalid_arguments_are_rejected(
    network: type[Generator], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        network(**{**TINY, "image_size": 8, **given})


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    overrides = [
        "model=gat",
        *overrides_of.GAT,
        "batch_size=4",
        "metrics=none",
        "trainer=cpu",
        "data.image_size=8",
        "callbacks.samples.rows=1",
        "callbacks.samples.columns=2",
    ]
    check_resume(tmp_path, *overrides, half=0.016, total=0.032)
