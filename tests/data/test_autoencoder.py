"""Latents of an autoencoder, a tiny one with random weights: packed, trained on, decoded everywhere."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.autoencoder import Autoencoder
from gan_lab.data.datamodule import DataModule
from gan_lab.data.image_folder import Zip
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.metrics.sources import GanImages
from tests.helpers import small
from tests.helpers.autoencoder import write_autoencoder
from tests.helpers.samples import images_of
from tests.helpers.zips import NAMES, write_zip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_autoencoder(tmp_path_factory.mktemp("vae") / "model")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A zip of ten images of 8x8 with their latents."""
    root = tmp_path_factory.mktemp("packed")
    labels = {"labels": [[name, i % 3] for i, name in enumerate(NAMES)]}
    write_zip(root / "photos.zip", labels, size=(8, 8))
    overrides = [
        "data=zip",
        f"data.root={root}/photos.zip",
        f"out={root}/packed.zip",
        *chosen(model),
    ]
    assert launch("prepare-data", overrides) == 0
    return root / "packed.zip"


def chosen(model: Path) -> list[str]:
    return ["representation=autoencoder", f"representation.model={model}"]


def data_of(path: Path, representation: Any = None, **settings: Any) -> DataModule:
    def dataset(split: str) -> Zip:
        return Zip(split=split, root=path, **settings)

    return DataModule(
        dataset=dataset,
        batch_size=5,
        d_steps=1,
        total_images=5,
        seed=0,
        num_workers=0,
        representation=representation,
    )


def first_batch(data: DataModule) -> Tensor:
    return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0).real


def test_latents_are_the_scaled_means(model: Path) -> None:
    found = Autoencoder(model=str(model), at_once=2)
    images = torch.rand(3, 3, 8, 12) * 2 - 1
    latents = found.encode(images)
    assert latents.shape == (3, *found.shape((3, 8, 12))) == (3, 4, 4, 6)
    with torch.no_grad():
        expected = found.network.encode(images).latent_dist.mean * 0.18215
        decoded = found.network.decode(expected / 0.18215).sample
    torch.testing.assert_close(latents, expected)
    torch.testing.assert_close(found.decode(latents), decoded, rtol=1e-4, atol=1e-5)
    latents.requires_grad_()
    found.decode(latents).square().sum().backward()
    assert latents.grad is not None and latents.grad.any(), "projection differentiates it"
    assert not found.network.training and not found.train().network.training
    assert not any(p.requires_grad for p in found.parameters())


def test_it_is_built_again_from_a_spec_and_weights(model: Path, tmp_path: Path) -> None:
    found = Autoencoder(model=str(model), scale=0.5)
    spec = images_of(8, channels=3)
    node = {**spec.as_dict(), "representation": representation_node(found)}
    again = SampleSpec.from_dict(node, origin=tmp_path / "config.yaml")
    again.representation.load_state_dict(found.state_dict())
    values = torch.randn(2, 4, 4, 4)
    assert torch.equal(again.representation.decode(values), found.decode(values))
    assert again.encoded_shape == (4, 4, 4)
    assert again.network_arguments()["image_size"] == (4, 4)


def representation_node(found: Autoencoder) -> dict[str, Any]:
    return {"_target_": "gan_lab.data.autoencoder.Autoencoder", **found.arguments}


def test_what_it_cannot_take(model: Path, tmp_path: Path) -> None:
    found = Autoencoder(model=str(model))
    with pytest.raises(InputError, match=r"data\.channels=3"):
        found.check(images_of(8, channels=1))
    with pytest.raises(InputError, match="multiples of 2"):
        found.check(images_of([8, 7], channels=3))
    with pytest.raises(InputError, match=r"representation\.model=.*none"):
        Autoencoder(model=str(tmp_path / "none"))
    with pytest.raises(InputError, match="is not set"):
        Autoencoder()
    with pytest.raises(InputError, match="scale=0"):
        Autoencoder(model=str(model), scale=0)


def test_packed_latents_are_those_of_the_images(packed: Path, model: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        members = archive.namelist()
        assert sum(name.endswith(".png") for name in members) == 10
        assert sum(name.endswith(".packed") for name in members) == 11
    representation = Autoencoder(model=str(model))
    data = data_of(packed, representation)
    assert next(iter(data.train_dataloader())).real.dtype == torch.float16
    encoded = data_of(packed.parent / "photos.zip", representation)
    torch.testing.assert_close(first_batch(data), first_batch(encoded), rtol=2e-3, atol=2e-3)
    # images are still what metrics and grids of real ones see
    assert data.real_grid(2).shape == (2, 3, 8, 8)
    plain = data_of(packed)
    assert first_batch(plain).shape == (5, 3, 8, 8), "whoever wants images finds them"


def test_packed_latents_that_do_not_fit(packed: Path, model: Path, tmp_path: Path) -> None:
    other = Autoencoder(model=str(write_autoencoder(tmp_path / "other", seed=1)))
    with pytest.raises(InputError, match=r"representation\.model"):
        data_of(packed, other)
    with pytest.raises(InputError, match=r"data\.flip=true"):
        data_of(packed, Autoencoder(model=str(model)), flip=True)


def test_what_is_measured_is_not_packed(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["data=zip", f"data.root={packed}", f"out={tmp_path}/a.zip"]
    assert launch("prepare-data", [*overrides, "representation=spectrogram"]) == 2
    assert "representation=" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(packed: Path, model: Path) -> Path:
    overrides = [
        *("model=gat", *small.GAT, "model.generator.patch=2", "data=zip", f"data.root={packed}"),
        *chosen(model),
        *("batch_size=4", "total_kimg=0.008", "metrics=none", "trainer=cpu"),
        *("callbacks.samples.rows=2", "callbacks.samples.columns=2", "name=run"),
        f"runs_dir={packed.parent}/runs",
    ]
    assert launch("train", overrides) == 0
    return packed.parent / "runs/run"


def test_samples_grids_and_metrics_are_decoded(run: Path, tmp_path: Path) -> None:
    gan = gan_lab.load(run)
    latents = gan.sample(3)
    assert latents.shape == (3, 4, 4, 4)
    images = gan.spec.decode(torch.Tensor(latents))
    assert images.dtype == torch.uint8 and images.shape == (3, 3, 8, 8)
    measured = GanImages(gan, seed=0).read(0, 3)
    assert torch.equal(measured, images)
    assert launch("generate", [f"run={run}", "num_images=3", f"out={tmp_path}"]) == 0
    files = sorted(file for file in tmp_path.glob("*.png") if file.stem != "grid")
    for file, image in zip(files, images, strict=True):
        np.testing.assert_array_equal(np.array(Image.open(file)), image.permute(1, 2, 0))
    grid = Image.open(sorted((run / "samples").glob("kimg*.png"))[-1])
    assert min(grid.size) >= 16


def test_an_export_needs_no_other_file(run: Path, model: Path, tmp_path: Path) -> None:
    before = gan_lab.load(run).spec.decode(torch.Tensor(gan_lab.load(run).sample(2)))
    assert launch("export", [f"run={run}", f"out={tmp_path}/export"]) == 0
    away = model.with_name("away")
    model.rename(away)
    try:
        gan = gan_lab.load(tmp_path / "export")
        assert torch.equal(gan.spec.decode(torch.Tensor(gan.sample(2))), before)
    finally:
        away.rename(model)


def test_projection_wants_pixels(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("project", [f"run={run}", "dataset_indices=[0]"]) == 2
    assert "makes latents [4, 4, 4]" in capsys.readouterr().err
