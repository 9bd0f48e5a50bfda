"""gan-lab mix on a trained run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.images import to_uint8
from tests.helpers.styles import tiny_run, with_attributes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory, "stylegan2")


def mix(run: Path, out: Path, *overrides: str, status: int = 0) -> Path:
    assert launch("mix", [f"run={run}", f"out={out}", *overrides]) == status
    return out


def test_the_sheet(run: Path, tmp_path: Path) -> None:
    overrides = [
        "rows=[1,4]",
        "columns=7-9",
        "row_classes=[0,2]",
        "column_classes=5",
        "truncation=0.8",
    ]
    out = mix(run, tmp_path, *overrides, "layers=[middle,0]", "truncation_center=class", "scale=2")
    gan = gan_lab.load(run)
    expected = (
        to_uint8(
            gan.mix(
                [1, 4],
                [7, 8, 9],
                layers=["middle", 0],
                row_labels=[0, 2],
                column_labels=5,
                truncation=0.8,
                truncation_center="class",
                sheet=True,
            )
        )
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
    )
    with Image.open(out / "mix_middle+0.png") as opened:
        assert opened.size == (4 * 34 + 2, 3 * 34 + 2)
        pixels = np.asarray(opened)
    for i, image in enumerate(expected):
        top, left = 2 + 34 * (i // 4), 2 + 34 * (i % 4)
        assert np.array_equal(pixels[top : top + 32, left : left + 32], image[0].numpy())


def test_attributes_of_rows_and_columns(run: Path, tmp_path: Path) -> None:
    faces = with_attributes(run, tmp_path / "run")
    overrides = ["rows=0-1", "columns=[5]", "row_labels=[{a1: 0},{a1: 1}]", "column_labels={a2: 1}"]
    out = mix(faces, tmp_path, *overrides, "format=latents", "layers=coarse")
    gan = gan_lab.load(faces)
    latents = gan.read_latents(out / "mix_coarse.safetensors")
    mixed = gan.mix(
        [0, 1],
        [5],
        layers="coarse",
        row_labels=[{"a1": 0}, {"a1": 1}],
        column_labels={"a2": 1},
    )
    assert torch.allclose(gan.synthesize(latents), mixed * 1, atol=1e-5)
    assert latents.labels is not None and latents.labels[:, 1].tolist() == [0, 1]


def test_latents_in_and_out(run: Path, tmp_path: Path) -> None:
    overrides = ["rows=0-1", "columns=[5]", "row_classes=1", "column_classes=2"]
    out = mix(run, tmp_path, *overrides, "format=latents", "layers=coarse")
    gan = gan_lab.load(run)
    latents = gan.read_latents(out / "mix_coarse.safetensors")
    mixed = gan.mix([0, 1], [5], layers="coarse", row_labels=1, column_labels=2)
    assert torch.allclose(gan.synthesize(latents), mixed * 1, atol=1e-5)
    assert [p.name for p in out.iterdir()] == ["mix_coarse.safetensors"]
    # as rows of another sheet
    kept = out / "mix_coarse.safetensors"
    again = mix(run, tmp_path / "b", f"row_latents={kept}", "columns=3", "layers=[]", "scale=1")
    pixels = np.asarray(Image.open(again / "mix_none.png"))
    assert np.array_equal(pixels[20:36, 2:18], to_uint8(mixed)[0, 0].numpy())
    assert np.array_equal(pixels[20:36, 20:36], pixels[20:36, 2:18])


def test_the_default_folder(run: Path) -> None:
    assert launch("mix", [f"run={run}", "rows=0", "columns=1-2", "truncation=0.5"]) == 0
    (folder,) = (run / "generated").iterdir()
    assert folder.name.endswith("kimg_ema_0_1-2_truncation0.5_mix_coarse")
    assert (folder / "mix_coarse.png").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["layers=finest"], "choose from coarse (0-2), middle (3-5), all, or numbers from 0 to 5"),
        (["layers=fine"], "images of this size have no such layers"),
        (["layers=4-9"], "layers=4-9 is out of range"),
        (["rows=a"], "rows=a: 'a' is not a seed"),
        (["columns=[]"], "columns=[]: give at least one seed"),
        (["row_classes=[0,1]"], "one for each of 4 images"),
        (["column_classes=ten"], "column_classes: 'ten' is not a class"),
        (["row_latents=none.safetensors"], "does not exist"),
        (["truncation=much"], "truncation='much' must be"),
        (["noise=loud"], "must be const, none, random"),
        (["truncation_center=middle"], "must be mean, class"),
        (["format=gif"], "format='gif' must be sheet, latents"),
        (["scale=0"], "must be a whole number from 1"),
    ],
)
def test_bad_input(
    run: Path,
    tmp_path: Path,
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mix(run, tmp_path / "out", *overrides, status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_without_styles(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix(tiny_run(tmp_path_factory, "biggan"), tmp_path / "out", status=2)
    assert (
        "biggan has no styles w; stylegan, stylegan2, stylegan3 and gat" in capsys.readouterr().err
    )
