"""gan-lab interpolate on trained runs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.images import Images, to_uint8
from tests.helpers.styles import tiny_run, with_attributes


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {model: tiny_run(tmp_path_factory, model) for model in ("stylegan2", "biggan")}


def interpolate(run: Path, out: Path, *overrides: str, status: int = 0) -> Path:
    assert launch("interpolate", [f"run={run}", f"out={out}", *overrides]) == status
    return out


def tile(sheet: Path, row: int, column: int) -> np.ndarray:
    """An image of 16 pixels in a strip that was not enlarged."""
    top, left = 2 + 18 * row, 2 + 18 * column
    return np.asarray(Image.open(sheet))[top : top + 16, left : left + 16]


def test_frames_are_those_of_python(runs: dict[str, Path], tmp_path: Path) -> None:
    overrides = ["seeds=[3,1,4]", "classes=[0,5,2]", "frames=4", "format=frames", "scale=1"]
    out = interpolate(runs["stylegan2"], tmp_path, *overrides, "batch_size=5", "truncation=0.7")
    gan = gan_lab.load(runs["stylegan2"])
    expected = gan.interpolate([3, 1, 4], labels=[0, 5, 2], frames=4, truncation=0.7)
    files = sorted((out / "frames").iterdir())
    assert [path.name for path in files] == [f"frame{i:06d}.png" for i in range(9)]
    for path, image in zip(files, to_uint8(expected), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), image[0].numpy())


def test_from_attribute_to_attribute(runs: dict[str, Path], tmp_path: Path) -> None:
    run = with_attributes(runs["biggan"], tmp_path / "run")
    overrides = ["seeds=[0]", "labels=[{a3: 0},{a3: 1}]", "columns=3", "scale=1"]
    out = interpolate(run, tmp_path, *overrides)
    gan = gan_lab.load(run)
    ends = (gan.sample(seed=[0], labels={"a3": value}) for value in (0, 1))
    for column, image in zip((0, 2), ends, strict=True):
        expected = to_uint8(image)[0, 0].numpy()
        assert np.array_equal(tile(out / "strip.png", 0, column), expected)
    interpolate(run, tmp_path, "seeds=0-1", "classes=1", status=2)


def test_the_strip_shows_every_part_with_both_ends(runs: dict[str, Path], tmp_path: Path) -> None:
    overrides = ["seeds=[0]", "classes=[3,8]", "columns=5", "scale=1", "frames=2"]
    out = interpolate(runs["biggan"], tmp_path / "a", *overrides)
    gan = gan_lab.load(runs["biggan"])
    three, eight = (to_uint8(gan.sample(seed=[0], labels=label))[0, 0].numpy() for label in (3, 8))
    assert Image.open(out / "strip.png").size == (5 * 18 + 2, 18 + 2)
    assert np.array_equal(tile(out / "strip.png", 0, 0), three)
    assert np.array_equal(tile(out / "strip.png", 0, 4), eight)
    # a loop has one part more, which ends where it began
    loop = interpolate(runs["biggan"], tmp_path / "b", *overrides, "loop=true")
    assert Image.open(loop / "strip.png").size == (5 * 18 + 2, 2 * 18 + 2)
    assert np.array_equal(tile(loop / "strip.png", 1, 4), three)


def test_videos(runs: dict[str, Path], tmp_path: Path) -> None:
    overrides = ["seeds=0-2", "classes=1", "loop=true", "frames=3", "fps=10", "scale=2"]
    out = interpolate(runs["stylegan2"], tmp_path, *overrides, "format=[gif,webp]")
    frames = gan_lab.load(runs["stylegan2"]).interpolate([0, 1, 2], labels=1, frames=3, loop=True)
    for name in ("gif", "webp"):
        with Image.open(out / f"interpolation.{name}") as opened:
            assert opened.size == (32, 32) and opened.n_frames == 9
            opened.seek(4)
            pixels = np.asarray(opened.convert("L"), dtype=int)
            assert opened.info["duration"] == 100 and opened.info["loop"] == 0
        expected = np.asarray(Images(frames[4]).grid(scale=2), dtype=int)
        assert np.abs(pixels - expected).mean() < 6


def test_paths_side_by_side(runs: dict[str, Path], tmp_path: Path) -> None:
    overrides = [
        "seeds=0-7",
        "classes=2",
        "frames=1",
        "grid=[2,2]",
        "format=[frames,strip]",
        "scale=1",
    ]
    out = interpolate(runs["stylegan2"], tmp_path, *overrides, "columns=2")
    images = to_uint8(gan_lab.load(runs["stylegan2"]).sample(seed=range(8), labels=2))[:, 0].numpy()
    for frame in range(2):
        path = out / "frames" / f"frame{frame:06d}.png"
        for cell in range(4):
            shown = tile(path, cell // 2, cell % 2)
            assert np.abs(shown.astype(int) - images[2 * cell + frame]).max() <= 1
            strip = tile(out / "strip.png", cell, frame)
            assert np.abs(strip.astype(int) - images[2 * cell + frame]).max() <= 1


def test_latents_of_other_commands(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs["stylegan2"]
    overrides = [
        f"run={run}",
        f"out={tmp_path / 'a'}",
        "seeds=[4,6]",
        "truncation=0.5",
        "format=latents",
    ]
    assert launch("generate", overrides) == 0
    kept = tmp_path / "a" / "latents.safetensors"
    both = [
        interpolate(run, tmp_path / name, *given, "columns=3")
        for name, given in (
            ("b", [f"latents={kept}"]),
            ("c", ["seeds=[4,6]", "truncation=0.5"]),
        )
    ]
    assert (both[0] / "strip.png").read_bytes() == (both[1] / "strip.png").read_bytes()


def test_the_default_folder(runs: dict[str, Path]) -> None:
    overrides = [
        f"run={runs['biggan']}",
        "seeds=0-1",
        "classes=3",
        "loop=true",
        "frames=1",
        "columns=2",
    ]
    assert launch("interpolate", overrides) == 0
    (folder,) = (runs["biggan"] / "generated").iterdir()
    assert folder.name.endswith("kimg_ema_interpolation_seeds0-1_classes3_loop")
    assert (folder / "strip.png").exists()


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("stylegan2", ["seeds=3"], "two or more for each; give 2 seeds"),
        ("stylegan2", ["seeds=0-4", "grid=[2,1]"], "cannot be divided among 2 paths"),
        ("stylegan2", ["seeds=0-2", "classes=[1,2]"], "3 seeds and 2 classes"),
        ("stylegan2", ["method=round"], "must be linear, spherical, spline"),
        ("stylegan2", ["space=y"], "must be z, w"),
        ("stylegan2", ["noise=random"], "noise='random' must be const, none"),
        ("stylegan2", ["format=avi"], "must be strip, gif, webp, mp4, frames, files"),
        ("stylegan2", ["format=gif", "fps=60"], "at most 50 frames a second"),
        ("stylegan2", ["frames=0"], "frames=0 must be"),
        ("stylegan2", ["columns=1"], "columns=1 must be"),
        ("stylegan2", ["grid=2"], "grid=2 must be a list"),
        ("stylegan2", ["loop=maybe"], "must be true or false"),
        ("stylegan2", ["scale=0.5"], "must be a whole number from 1"),
        ("stylegan2", ["latents=none.safetensors"], "does not exist"),
        ("stylegan2", ["classes=10"], "class 10 is out of range; there are 10, 0 to 9"),
        ("biggan", ["space=w"], "biggan has no styles w; set space=z"),
        ("biggan", ["truncation=-1"], "it is the threshold"),
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
    interpolate(runs[model], tmp_path / "out", *overrides, status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
