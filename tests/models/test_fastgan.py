"""FastGAN against the published generator's outputs, and its two-branch discriminator."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from gan_lab.config import build
from gan_lab.errors import InputError
from gan_lab.models.fastgan import Discriminator, FastGAN, Generator
from gan_lab.training.building import describe_samples
from gan_lab.weights import from_published
from tests.helpers.checkpoints import check_resume
from tests.helpers.published import fixture, relative_error
from tests.helpers.samples import images_of
from tests.helpers.small import FASTGAN
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]
SIZES: list[int | list[int]] = [8, 24, 64, [64, 96], 128]


def small(
    compose: Compose, *overrides: str, size: int | list[int] = 16, classes: int = 0, steps: int = 2
) -> FastGAN:
    config = compose("model=fastgan", "batch_size=4", *FASTGAN, *overrides)
    describe_samples(config, images_of(size, channels=3, classes=classes))
    torch.manual_seed(0)
    module = build(config.model, total_images=4 * steps)
    assert isinstance(module, FastGAN)
    return module


def test_images_are_the_published_ones() -> None:
    config, state, arrays = fixture("fastgan_128")
    generator = from_published(config, state)["G"]
    with torch.no_grad():
        images = generator(torch.from_numpy(arrays["in/z"]))
    assert relative_error(images, torch.from_numpy(arrays["out/img"])) < 1e-4


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes_and_rectangles(size: Any, classes: int) -> None:
    arguments = {"image_size": size, "channels": 3, "num_classes": classes, "width": 4}
    labels = torch.tensor([0, 2]) if classes else None
    generator = Generator(**arguments, z_dim=8).eval()
    images = generator(torch.randn(2, 8), labels)
    assert images.shape == (2, 3, *([size] * 2 if isinstance(size, int) else size))
    output = Discriminator(**arguments).discriminate(images, labels, "real")
    assert output.logits.shape[0] == 2 and output.logits.shape[1] >= 25
    assert output.losses["reconstruction"].shape == (2,)


def test_all_published_sizes_are_built() -> None:
    with torch.device("meta"):
        for size in (64, 128, 256, 512, 1024):
            generator = Generator(image_size=size, channels=3)
            excited = [4 << int(level) for level in generator.excitations]
            assert excited == [side for side in (64, 128, 256, 512) if side <= size]
            Discriminator(image_size=size, channels=3)
        with pytest.raises(InputError, match="1024"):
            Generator(image_size=2048, channels=3)


def test_a_coarse_map_gates_the_channels_of_a_fine_one() -> None:
    """Without what the skip-layer excitation sees, the fine map is scaled by a half."""
    generator = Generator(image_size=64, channels=3, z_dim=8, width=4).eval()
    excitation = generator.excitations["4"]
    coarse, fine = torch.randn(2, 64, 4, 4), torch.randn(2, 8, 64, 64)
    factors = excitation(coarse, fine) / fine
    assert torch.allclose(factors, factors[:, :, :1, :1].expand_as(factors), rtol=1e-4)
    assert torch.allclose(excitation(0 * coarse, fine), fine / 2)


def test_images_depend_on_z_only_in_evaluation() -> None:
    generator = Generator(image_size=16, channels=3, z_dim=8, width=4)
    with torch.no_grad():
        for name, value in generator.named_parameters():
            if name.endswith("strength"):
                value.fill_(0.5)
    z = torch.randn(2, 8)
    assert not torch.equal(generator(z), generator(z))
    generator.eval()
    assert torch.equal(generator(z), generator(z))
    assert torch.allclose(generator(3 * z), generator(z), atol=1e-5), "z lies on a sphere"


def test_only_real_images_are_reconstructed_at_the_right_position() -> None:
    network = Discriminator(image_size=64, channels=3, width=4)
    images = torch.randn(2, 3, 64, 64)
    for role in ("fake", "generator", None):
        assert not network.discriminate(images, None, role).losses  # type: ignore[arg-type]
    seen: list[tuple[Tensor, Tensor]] = []

    def distance(made: Tensor, target: Tensor) -> Tensor:
        seen.append((made, target))
        return made.sum((1, 2, 3)) * 0

    network.distance = distance  # type: ignore[assignment]
    network.discriminate(images, None, "real")
    (whole, target), (part, place) = seen
    assert whole.shape == target.shape == images.shape and torch.equal(target, images)
    assert part.shape == place.shape == (2, 3, 32, 32)
    found = [
        (top, left)
        for top in range(0, 33, 4)
        for left in range(0, 33, 4)
        if torch.equal(images[:, :, top : top + 32, left : left + 32], place)
    ]
    assert len(found) == 1
    without = Discriminator(image_size=64, channels=3, width=4, reconstruction_weight=0)
    assert not without.discriminate(images, None, "real").losses


def test_d_learns_to_reconstruct_images(compose: Compose) -> None:
    torch.manual_seed(0)
    network = Discriminator(image_size=16, channels=3, width=8)
    images = torch.nn.functional.interpolate(torch.randn(8, 3, 2, 2), size=16, mode="bilinear")
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    errors = []
    for _ in range(60):
        error = network.discriminate(images, None, "real").losses["reconstruction"].mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert min(errors[-5:]) < 0.5 * errors[0]


@pytest.mark.parametrize("classes", [0, 10])
def test_every_part_learns(compose: Compose, classes: int) -> None:
    module = small(compose, size=64, classes=classes)
    before = {n: p.clone() for n, p in module.named_parameters() if p.requires_grad}
    fit(module)
    stats = module.stats.take()
    assert stats["loss/d_reconstruction_real"] > 0
    still = {n for n, p in module.named_parameters() if n in before and torch.equal(p, before[n])}
    # classes that no batch had; with linear losses each logit's pull is as strong either way
    assert {n for n in still if "embedding" not in n} == set()


def test_the_log_names_the_distance(compose: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    fit(small(compose, "model.discriminator.reconstruction=pyramid"))
    assert "pyramid" in capsys.readouterr().out
    fit(small(compose, "model.discriminator.reconstruction_weight=0"))
    assert "reconstruction" not in capsys.readouterr().out


def test_an_unknown_distance() -> None:
    with pytest.raises(InputError, match="reconstruction='vgg'"):
        Discriminator(image_size=16, channels=3, reconstruction="vgg")


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    overrides = [
        "model=fastgan",
        *FASTGAN,
        "metrics=none",
        "trainer=cpu",
        "data.image_size=16",
        "callbacks.samples.rows=1",
        "callbacks.samples.columns=2",
    ]
    check_resume(tmp_path, *overrides, half=0.016, total=0.032)
