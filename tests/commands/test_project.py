"""gan-lab project on trained runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.images import to_uint8
from tests.helpers.styles import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory, "stylegan2")


def project(run: Path, out: Path, *overrides: str, status: int = 0) -> Path:
    assert launch("project", [f"run={run}", f"out={out}", *overrides]) == status
    return out


def test_held_out_images_of_the_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [
        "dataset_indices=[0,2-3]",
        "classes=data",
        "steps=4",
        "tune.steps=2",
        "video=gif",
        "fps=10",
    ]
    out = project(run, tmp_path, *overrides)
    there = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert there == {
        *("latents.safetensors", "projection.json", "projection.png", "projection.gif"),
        *(f"images/000{i}_val-{n}.png" for i, n in enumerate([0, 2, 3])),
        *(f"tuned/{name}" for name in ("README.md", "model.json", "model.safetensors")),
    }
    tuned = gan_lab.load(out / "tuned")
    points = tuned.read_latents(out / "latents.safetensors")
    assert points.w is not None and points.labels is not None
    with Image.open(out / "images" / "0001_val-2.png") as image:
        assert np.array_equal(np.asarray(image), to_uint8(tuned.synthesize(points.w))[1, 0].numpy())
    kept = json.loads((out / "projection.json").read_text())
    assert kept["space"] == "w" and kept["steps"] == 4 and kept["tune"]["steps"] == 2
    assert [row["name"] for row in kept["images"]] == ["val 0", "val 2", "val 3"]
    assert [row["label"] for row in kept["images"]] == points.labels.tolist()
    assert kept["mse"] == pytest.approx(np.mean([row["mse"] for row in kept["images"]]))
    with Image.open(out / "projection.gif") as video:
        assert video.n_frames >= 6
    said = capsys.readouterr().out
    assert "3 images in w, 4 steps" in said and "distance: laplacian pyramid" in said
    untuned = gan_lab.load(run)
    assert not torch.equal(untuned.synthesize(points.w), tuned.synthesize(points.w))


def test_files_noise_and_where_results_go(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(tmp_path / "my photo.png")
    assert (
        launch(
            "project", [f"run={run}", f"images='{tmp_path}/my photo.png'", "steps=2", "space=w+"]
        )
        == 0
    )
    (out,) = (run / "generated").glob("*_project_w+_my-photo")
    there = {p.name for p in out.iterdir()}
    assert {"noise.safetensors", "latents.safetensors"} <= there and "tuned" not in there
    (note,) = json.loads((out / "projection.json").read_text())["notes"]
    assert note.endswith("my photo.png: 30x20 pixels, cropped to the 20x20 in the middle")
    drawn = tmp_path / "drawn"
    overrides = [f"run={run}", f"latents={out}/latents.safetensors", f"out={drawn}", "format=png"]
    assert launch("generate", overrides) == 0 and len(list(drawn.glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "give images=, a file, a folder or a list of them, or dataset_indices="),
        (["dataset_indices=0", "images=a.png"], "not both"),
        (["images=none.png"], "none.png does not exist"),
        (["dataset_indices=360"], "val has 360 images, 0 to 359"),
        (["dataset_indices=0", "split=test"], "split='test' must be val, train"),
        (["dataset_indices=first"], "dataset_indices=first"),
        (["dataset_indices=0", "video=avi"], "video='avi' must be mp4, gif, webp"),
        (["dataset_indices=0", "space=v"], "space='v' must be w, w+, z, auto"),
        (["dataset_indices=0", "classes=10"], "class 10 is out of range"),
        (["dataset_indices=0", "tune.steps=many"], "tune.steps='many'"),
        (["dataset_indices=0", "vgg16=none.pth"], "none.pth is not a file"),
    ],
)
def test_bad_input(
    run: Path,
    tmp_path: Path,
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project(run, tmp_path / "out", *overrides, status=2)
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_classes_of_data_need_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    project(run, tmp_path / "out", f"images={tmp_path}/a.png", "classes=data", status=2)
    assert "needs dataset_indices=" in capsys.readouterr().err
