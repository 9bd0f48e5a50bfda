"""LPIPS as the distance of a projection, and its substitute."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from gan_lab.errors import InputError
from gan_lab.metrics.features.vgg16 import LPIPS, choose_distance
from gan_lab.sampling.targets import PyramidDistance
from tests.helpers.weights import save_vgg16

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Torch's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth"


def test_without_weights_the_pyramid_and_why() -> None:
    found = choose_distance(channels=3, device=CPU)
    assert isinstance(found, PyramidDistance) and "vgg16-397923af.pth" in found.why


def test_with_weights_lpips_of_images_that_are_neither_large_nor_small(tmp_path: Path) -> None:
    path = str(save_vgg16(tmp_path / "vgg.pth"))
    found = choose_distance(channels=1, device=CPU, weights=path)
    assert found.name.startswith("lpips-vgg16") and found.why == "weights found"
    source = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 1, 16, 16, generator=source) * 2 - 1 for _ in range(2))
    lpips = LPIPS(weights=path)
    lpips.load(CPU)
    seen = [interpolate(x, size=(64, 64), mode="bilinear") for x in (a, b)]
    values = found(a.requires_grad_(), b)
    assert torch.allclose(values, lpips.distance(*seen), rtol=1e-5) and values.item() > 0
    (slope,) = torch.autograd.grad(values.sum(), a)
    assert slope.abs().max() > 0
    wide = torch.rand(1, 3, 260, 520, generator=source)
    assert found(wide, wide).item() == 0
    four = choose_distance(channels=4, device=CPU, weights=path)
    assert isinstance(four, PyramidDistance) and "4 channels" in four.why


def test_bad_input() -> None:
    with pytest.raises(InputError, match="distance='l2' must be one of auto, lpips, pyramid"):
        choose_distance("l2", channels=3, device=CPU)
    with pytest.raises(InputError, match="RGBA"):
        choose_distance("lpips", channels=4, device=CPU)
    with pytest.raises(InputError, match=r"vgg16=none\.pth is not a file"):
        choose_distance(channels=3, device=CPU, weights="none.pth")


def test_lpips_without_weights_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"vgg16=PATH, or take distance=pyramid"):
        choose_distance("lpips", channels=3, device=CPU)
