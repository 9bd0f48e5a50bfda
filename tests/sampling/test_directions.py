"""Directions, against what was planted and other ways to compute them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.sampling.directions import (
    Directions,
    along,
    center_classes,
    direction_sheets,
    directions,
    style_weights,
)
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents
from tests.helpers.planted import Rescaled, linear_gan, with_values
from tests.sampling.conftest import big_gan, style_gan, style_gan2, style_gan3

VALUES = torch.tensor([3.0, 2.0, 1.0, 0.5])


def test_sefa_finds_the_singular_vectors_of_a_linear_generator() -> None:
    matrix, expected = with_values(VALUES)
    found = directions(linear_gan(matrix))
    assert found.method == "sefa" and found.space == "z" and found.layers is None
    assert torch.allclose(found.vectors, expected, atol=1e-5)
    assert torch.allclose(found.shares, VALUES.square() / VALUES.square().sum())
    assert found.scales.tolist() == [1.0] * 4, "of normal z"
    assert torch.allclose(directions(linear_gan(-matrix)).vectors, expected, atol=1e-5), (
        "signs are ours"
    )
    assert torch.equal(directions(linear_gan(matrix), count=2).vectors, found.vectors[:2])


def test_normalized_z_uses_the_mean_over_positions() -> None:
    matrix, _ = with_values(VALUES)
    gan = linear_gan(matrix, kind=Rescaled)
    found = directions(gan)
    z = gan.latents(4000, seed=9).values
    z = z / z.norm(dim=1, keepdim=True)
    # the derivative of A z / |z| is A (1 - z z^T) / |z|; the mean of all its squares keeps the directions of A
    assert found.vectors.shape == (4, 4)
    expected = directions(linear_gan(matrix)).vectors
    assert ((found.vectors[0] * expected[0]).sum().abs() > 0.85).item()


def test_biggans_first_layer_sees_the_first_chunk_of_z() -> None:
    gan = big_gan()
    # drawn orthogonal, where no direction is more than another
    nn.init.normal_(gan.generator.start.parametrizations.weight.original)
    found = directions(gan)
    start = gan.generator.start.weight  # under spectral norm
    _, _, rows = torch.linalg.svd(start)
    assert len(found) == gan.generator.chunk == 4, "the rest of z does not reach it"
    assert (found.vectors[:, 4:] == 0).all()
    assert torch.allclose((found.vectors[:, :4] * rows).sum(1).abs(), torch.ones(4), atol=1e-4)


@pytest.mark.parametrize("make", [style_gan, style_gan2, style_gan3])
@pytest.mark.parametrize("style", [0, 1, 4])
def test_affine_maps_are_those_that_read_a_style(make: Callable[..., Gan], style: int) -> None:
    """An image does not depend on a style whose maps are zero, and depends on it before."""
    gan = make(0, 16)
    for affine in (m for maps in gan.generator.synthesis.affines() for m in maps):
        nn.init.normal_(affine.weight)  # StyleGAN3's first begins at 0
    w = gan.latents(1).values.clone().requires_grad_()

    def slope() -> Tensor:
        return torch.autograd.grad(gan.generator.synthesis(w, "const").square().sum(), w)[0][0]

    assert (slope().abs().amax(1) > 0).all()
    for affine in gan.generator.synthesis.affines()[style]:
        nn.init.zeros_(affine.weight)
    assert [i for i, s in enumerate(slope()) if s.abs().max() == 0] == [style]


def test_sefa_of_some_layers_of_styles() -> None:
    gan = style_gan2(3, 16)
    found = directions(gan, "sefa", layers=[1, "3-4"], count=5, samples=2000)
    assert list(found.layers or []) == [1, 3, 4] and found.space == "w"
    a = style_weights(gan, [1, 3, 4])
    _, values, rows = torch.linalg.svd(a.double(), full_matrices=False)
    assert torch.allclose((found.vectors * rows[:5].float()).sum(1).abs(), torch.ones(5), atol=1e-4)
    assert torch.allclose(
        found.shares, (values.square() / values.square().sum())[:5].float(), atol=1e-5
    )
    w = torch.randn(1, 8)
    maps = gan.generator.synthesis.affines()
    images = [m(w) - m(torch.zeros(1, 8)) for i in (1, 3, 4) for m in maps[i]]
    assert torch.allclose(torch.cat(images, 1)[0], a @ w[0], atol=1e-5), "weights as they are used"


class PlantedMapping(nn.Module):
    """w = 5 class + M z, with a known covariance."""

    def __init__(self, matrix: Tensor, offsets: Tensor) -> None:
        super().__init__()
        self.matrix = matrix
        self.offsets = offsets

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        return z @ self.matrix.T + self.offsets[labels]


def planted() -> tuple[Gan, Tensor, Tensor]:
    gan = style_gan2(3, 16)
    deviations = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05])
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
    offsets = 20 * rotation[:, 7] * torch.arange(3)[:, None]
    gan.generator.mapping.to_w = PlantedMapping(rotation * deviations, offsets).forward
    return gan, rotation.T, deviations


def test_ganspace_finds_a_known_covariance_within_classes() -> None:
    gan, vectors, deviations = planted()
    found = directions(gan, layers="coarse", count=4, samples=20_000)
    assert found.method == "ganspace" and list(found.layers or []) == [0, 1, 2]
    assert ((found.vectors * vectors[:4]).sum(1).abs() > 0.995).all()
    assert torch.allclose(found.scales, deviations[:4], rtol=0.03)
    shares = deviations.square() / deviations.square().sum()
    assert torch.allclose(found.shares, shares[:4], atol=0.01)
    assert (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()


def test_between_classes_where_that_is_requested() -> None:
    gan, vectors, _ = planted()
    found = gan.directions(count=1, samples=3000, within=False)
    assert (found.vectors[0] @ vectors[7]).abs() > 0.999, "from class to class"
    one = directions(gan, count=1, samples=3000, within=False, labels=[2])
    assert (one.vectors[0] @ vectors[0]).abs() > 0.99, "of one class there is no other"
    assert torch.equal(directions(gan, count=1, samples=3000, within=False).vectors, found.vectors)


def test_within_classes_is_less_their_means() -> None:
    w = torch.tensor([[1.0], [3.0], [10.0], [14.0]])
    assert center_classes(w, torch.tensor([0, 0, 5, 5])).flatten().tolist() == [-1, 1, -2, 2]


MADE = Directions(
    torch.eye(8)[:3], torch.tensor([2.0, 0.5, 1.0]), torch.tensor([0.5, 0.3, 0.2]), "w", [1, 2]
)


def test_amounts_are_deviations_along_the_first_directions() -> None:
    w = torch.randn(2, 4, 8)
    moved = MADE.apply(w, [1.0, -2.0])
    expected = w.clone()
    expected[:, 1:3, 0] += 2.0
    expected[:, 1:3, 1] += -1.0
    assert torch.allclose(moved, expected)
    each = MADE.apply(w, torch.tensor([[0.0, 0, 0], [0, 0, 1]]))
    assert torch.equal(each[0], w[0]) and torch.allclose(each[1, 1:3, 2], w[1, 1:3, 2] + 1)
    other = MADE.apply(w, [1.0], layers=[0])
    assert torch.equal(other[:, 1:], w[:, 1:]) and torch.allclose(other[:, 0, 0], w[:, 0, 0] + 2)
    z = Directions(torch.eye(8)[:1], torch.ones(1), torch.ones(1), "z")
    assert torch.allclose(z.apply(torch.zeros(3, 8), [4.0]), 4 * torch.eye(8)[:1].expand(3, 8))


def test_a_file_keeps_them(tmp_path: Path) -> None:
    gan = style_gan2(3, 16)
    found = directions(gan, layers=[0, 2], count=3, samples=500)
    path = found.save(tmp_path / "new" / "directions.safetensors")
    read = Directions.read(path, gan=gan)
    for name in ("vectors", "scales", "shares"):
        assert torch.equal(getattr(read, name), getattr(found, name))
    assert list(read.layers or []) == [0, 2] and read.space == "w" and read.method == "ganspace"
    assert read.metadata["model"] == "stylegan2" and read.metadata["within_classes"] == "True"
    plain = directions(big_gan()).save(tmp_path / "z.safetensors")
    assert Directions.read(plain, gan=big_gan()).layers is None
    with pytest.raises(InputError, match=r"another generator: .*directions of z \[N, 12\]"):
        Directions.read(plain, gan=style_gan2(3, 16))
    with pytest.raises(InputError, match="no styles"):
        Directions.read(path, gan=big_gan())


def test_images_along_directions() -> None:
    gan = style_gan2(3, 16)
    found = directions(gan, count=2, samples=500)
    latents = gan.as_latents([0, 1], truncation=0.5)
    images = along(gan, found, latents, [-1, 0, 2])
    assert images.shape == (2, 2, 3, 1, 16, 16)
    w = latents.values
    assert torch.allclose(images[:, :, 1], gan.synthesize(w).expand(2, -1, -1, -1, -1), atol=1e-5)
    assert torch.allclose(images[1, :, 2], gan.synthesize(found.apply(w, [0.0, 2.0])), atol=1e-5)
    whole, each = direction_sheets(images, found, [-1, 0, 2], ["a", "b"])
    assert len(each) == 2 and whole.mode == "L" and whole.size[1] > 2 * 64
    of_z = big_gan()
    latent = directions(of_z, count=1)
    made = along(of_z, latent, of_z.as_latents([3], labels=1), [1.5])
    z = of_z.latents(seed=[3]).values + 1.5 * latent.vectors
    assert torch.allclose(
        made[0, 0], of_z.synthesize(Latents(z=z, labels=torch.tensor([1]))), atol=1e-5
    )


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (big_gan, {"method": "ganspace"}, "is for generators with styles.*use method=sefa"),
        (big_gan, {"layers": "coarse"}, "biggan has no styles to choose layers of"),
        (style_gan2, {"method": "pca"}, "method='pca' must be one of auto, sefa, ganspace"),
        (style_gan2, {"layers": 99}, "out of range"),
        (style_gan2, {"layers": []}, "no layers"),
        (style_gan2, {"count": 0}, "count=0 must be"),
        (style_gan2, {"samples": 1}, "samples=1 must be"),
        (style_gan2, {"labels": 7}, "class 7 is out of range"),
        (style_gan2, {"seed": -1}, "seed=-1"),
    ],
)
def test_bad_settings(make: Callable[[], Gan], settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        directions(make(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "amounts", "message"),
    [
        (torch.zeros(1, 4, 8), [1.0] * 4, "there are 3 directions and 1 latents"),
        (torch.zeros(2, 4, 8), torch.zeros(3, 1), "2 latents"),
        (torch.zeros(1, 4, 8), [float("inf")], "finite"),
        (torch.zeros(1, 4, 7), [1.0], r"directions of w \[N, L, 8\], layers up to 2"),
        (torch.zeros(1, 2, 8), [1.0], "layers up to 2"),
        (torch.zeros(1, 8), [1.0], "directions of w"),
    ],
)
def test_what_does_not_fit(values: Tensor, amounts: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MADE.apply(values, amounts)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Directions.read(tmp_path / "none.safetensors")
    points = Latents(z=torch.zeros(1, 8)).save(tmp_path / "points.safetensors")
    with pytest.raises(InputError, match="holds no directions"):
        Directions.read(points)
    metadata = {"kind": "directions", "space": "w", "method": "x"}
    parts = {"directions": torch.ones(1, 8), "scales": torch.ones(1), "shares": torch.ones(1)}
    hostile = tmp_path / "hostile.safetensors"
    for layers in (
        "[" * 100_000,
        '{"a": 1}',
        "[-1]",
        "[1e9]",
        "[true]",
        '"all"',
        f"[{'9' * 5000}]",
    ):
        save_file(parts, hostile, metadata={**metadata, "layers": layers})
        with pytest.raises(InputError, match=r"hostile\.safetensors is not a complete file"):
            Directions.read(hostile)
    for values in (torch.ones(1, 8, dtype=torch.int64), torch.full((1, 8), torch.nan)):
        save_file({**parts, "directions": values}, hostile, metadata={**metadata, "layers": "[0]"})
        with pytest.raises(InputError, match=r"hostile\.safetensors is not a complete file"):
            Directions.read(hostile)
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="not a complete file"):
        Directions.read(tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        MADE.save(tmp_path / "a.pt")
