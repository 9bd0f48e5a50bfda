"""Distances of images, against what they must be."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from gan_lab.errors import InputError
from gan_lab.metrics.features.lpips import LPIPS
from gan_lab.sampling.distances import (
    PyramidDistance,
    choose_distance,
    laplacian_pyramid,
    mean_squared_error,
    psnr,
)
from tests.helpers.weights import save_vgg16

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Torch's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth"


@pytest.mark.parametrize(
    ("size", "bands"), [((16, 16), 4), ((24, 12), 3), ((5, 6), 1), ((7, 7), 1)]
)
def test_bands_enlarged_and_summed_are_the_image(size: tuple[int, int], bands: int) -> None:
    images = torch.randn(2, 3, *size)
    pyramid = laplacian_pyramid(images)
    assert len(pyramid) == bands
    whole = pyramid[-1]
    for band in reversed(pyramid[:-1]):
        whole = band + interpolate(whole, scale_factor=2, mode="bilinear")
    assert torch.allclose(whole, images, atol=1e-6)


def test_a_shift_of_brightness_is_in_the_coarsest_band_alone() -> None:
    a = torch.randn(3, 1, 16, 16)
    shifts = torch.tensor([0.0, 0.5, -2.0])
    found = PyramidDistance()(a + shifts[:, None, None, None], a)
    assert torch.allclose(found, shifts.abs(), atol=1e-6)


def test_a_fine_pattern_is_in_the_finest_band_alone() -> None:
    checks = torch.ones(16, 16)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    found = PyramidDistance()(torch.zeros(1, 1, 16, 16), 0.3 * checks[None, None])
    assert found.item() == pytest.approx(0.3)


def test_errors_of_known_differences() -> None:
    a, b = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5)
    mse = mean_squared_error(a, b)
    assert mse.tolist() == [0.25, 0.25]
    # the peak of [-1, 1] is 2, or 255 in 8 bits
    expected = 20 * torch.log10(torch.tensor(255.0)) - 10 * torch.log10(mse * 127.5**2)
    assert torch.allclose(psnr(mse), expected)


def test_without_weights_the_pyramid_and_why() -> None:
    found, why = choose_distance(channels=3, device=CPU)
    assert isinstance(found, PyramidDistance) and "vgg16-397923af.pth" in why


def test_with_weights_lpips_of_images_that_are_neither_large_nor_small(tmp_path: Path) -> None:
    path = str(save_vgg16(tmp_path / "vgg.pth"))
    found, why = choose_distance(channels=1, device=CPU, weights=path)
    assert found.name.startswith("lpips-vgg16") and why == "weights found"
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
    four, reason = choose_distance(channels=4, device=CPU, weights=path)
    assert isinstance(four, PyramidDistance) and "4 channels" in reason


def test_bad_input() -> None:
    with pytest.raises(InputError, match="distance='l2' must be one of auto, lpips, pyramid"):
        choose_distance("l2", channels=3, device=CPU)
    with pytest.raises(InputError, match="RGBA"):
        choose_distance("lpips", channels=4, device=CPU)
    with pytest.raises(InputError, match=r"vgg16=none\.pth is no file"):
        choose_distance(channels=3, device=CPU, weights="none.pth")


def test_lpips_without_weights_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"vgg16=PATH, or take distance=pyramid"):
        choose_distance("lpips", channels=3, device=CPU)
