"""gan-lab directions on trained runs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.images import to_uint8
from gan_lab.sampling.directions import Directions
from tests.helpers.styles import tiny_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {model: tiny_run(tmp_path_factory, model) for model in ("stylegan2", "biggan")}


def find(run: Path, out: Path, *overrides: str, status: int = 0) -> Path:
    assert launch("directions", [f"run={run}", f"out={out}", *overrides]) == status
    return out


def test_directions_in_w_and_generate_along_them(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs["stylegan2"]
    overrides = [
        "layers=coarse",
        "count=3",
        "samples=200",
        "seeds=[4,9]",
        "classes=[1,2]",
        "amounts=[-1,2]",
    ]
    out = find(run, tmp_path / "found", *overrides)
    names = {p.name for p in out.iterdir()}
    assert names == {
        "directions.safetensors",
        "directions.png",
        *(f"direction_0{k}.png" for k in range(3)),
    }
    assert "ganspace in w, layers [0, 1, 2]" in capsys.readouterr().out
    gan = gan_lab.load(run)
    found = Directions.read(out / "directions.safetensors", gan=gan)
    w = gan.latents(seed=[4, 9], labels=[1, 2]).values
    moved = gan.synthesize(found.apply(w, [0.0, 2.0]))
    with Image.open(out / "direction_01.png") as sheet:
        pixels = np.asarray(sheet)
    shown = to_uint8(moved)[1, 0].repeat_interleave(4, 0).repeat_interleave(4, 1).numpy()
    assert np.array_equal(pixels[-67:-3, -67:-3], shown), "the second seed, the last amount"
    overrides = [
        "seeds=[4,9]",
        f"directions={out}/directions.safetensors",
        "move=[0,2]",
        "format=npz",
    ]
    drawn = tmp_path / "drawn"
    assert launch("generate", [f"run={run}", f"out={drawn}", "classes=1", *overrides]) == 0
    images = np.load(drawn / "images.npz")["images"]
    assert np.array_equal(images[0, ..., 0], to_uint8(moved)[0, 0].numpy())


def test_directions_in_z(runs: dict[str, Path]) -> None:
    run = runs["biggan"]
    assert launch("directions", [f"run={run}", "count=2", "seeds=3"]) == 0
    (out,) = (run / "generated").glob("*_sefa")
    found = Directions.read(out / "directions.safetensors", gan=gan_lab.load(run))
    assert found.space == "z" and len(found) == 2


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("biggan", ["method=ganspace"], "use method=sefa"),
        ("biggan", ["layers=0"], "has no styles to choose layers of"),
        ("stylegan2", ["layers=8-9"], "out of range"),
        ("stylegan2", ["amounts=[]"], "amounts=[] must be numbers"),
        ("stylegan2", ["amounts=[a]"], "amounts=['a'] must be"),
        ("stylegan2", ["count=none"], "count='none' must be a whole number"),
        ("stylegan2", ["seeds=-1"], "is not a seed"),
        ("stylegan2", ["truncation=much"], "truncation='much' must be"),
    ],
)
def test_bad_input(
    runs: dict[str, Path],
    tmp_path: Path,
    model: str,
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find(runs[model], tmp_path / "out", *overrides, status=2)
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
