"""gan-lab generate on a trained run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lab.commands.launch import launch
from tests.commands.conftest import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    assert launch("train", [*TINY, "total_kimg=0.1", f"runs_dir={root}", "name=run"]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose generator has batch norm."""
    root = tmp_path_factory.mktemp("runs")
    words = [*TINY, "model=dcgan", "model.generator.width=4", "total_kimg=0.05"]
    assert launch("train", [*words, f"runs_dir={root}", "name=run"]) == 0
    return root / "run"


def generate(run: Path, out: Path, *words: str, status: int = 0) -> Path:
    assert launch("generate", [f"run={run}", f"out={out}", *words]) == status
    return out


def test_files_carry_seed_and_class(run: Path, tmp_path: Path) -> None:
    out = generate(run, tmp_path, "num_images=2", "classes=[3,7]", "seed=5")
    assert sorted(p.name for p in out.glob("seed*")) == [
        f"seed5_00000{i}_class{c}.png" for i, c in enumerate([3, 3, 7, 7])
    ]
    with Image.open(out / "grid.png") as grid:
        assert grid.size == (2 * 10 + 2, 2 * 10 + 2), "one class a row"


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_same_files_whatever_the_batch_size(run: Path, tmp_path: Path, batch_size: int) -> None:
    first = generate(run, tmp_path / "a", "num_images=20", "format=png")
    second = generate(
        run, tmp_path / "b", "num_images=20", "format=png", f"batch_size={batch_size}"
    )
    files = sorted(p.name for p in first.iterdir())
    assert len(files) == 20 and files == sorted(p.name for p in second.iterdir())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_one_class_needs_no_brackets(run: Path, tmp_path: Path) -> None:
    out = generate(run, tmp_path, "num_images=1", "classes=3")
    assert [p.name for p in out.glob("seed*")] == ["seed0_000000_class3.png"]


def test_npz_holds_the_same_images(run: Path, tmp_path: Path) -> None:
    out = generate(run, tmp_path, "num_images=3", "classes=all", "format=[npz,png]")
    arrays = np.load(out / "images.npz")
    assert arrays["images"].shape == (30, 8, 8, 1) and arrays["labels"].tolist() == [
        i // 3 for i in range(30)
    ]
    with Image.open(out / "seed0_000004_class1.png") as image:
        assert np.array_equal(np.asarray(image), arrays["images"][4, :, :, 0])


def test_the_default_folder_is_in_the_run(run: Path) -> None:
    assert launch("generate", [f"run={run}", "num_images=1", "seed=9"]) == 0
    assert (run / "generated" / "best_ema_seed9" / "grid.png").exists()


def test_truncation_and_standing_statistics_change_the_images(normed: Path, tmp_path: Path) -> None:
    def images(name: str, *words: str) -> np.ndarray:
        out = generate(normed, tmp_path / name, "num_images=4", "format=npz", *words)
        return np.load(out / "images.npz")["images"]

    plain, held = images("a"), images("b", "truncation=0.3")
    assert not np.array_equal(plain, held)
    assert np.array_equal(held, images("c", "truncation=0.3", "batch_size=3"))
    standing = images("d", "standing_statistics=128")
    assert not np.array_equal(plain, standing)
    assert np.array_equal(standing, images("e", "standing_statistics=128", "batch_size=3"))


def test_the_default_folder_tells_what_changes_images(normed: Path) -> None:
    words = ["num_images=1", "truncation=0.5", "standing_statistics=64"]
    assert launch("generate", [f"run={normed}", *words]) == 0
    assert (normed / "generated" / "best_ema_seed0_truncation0.5_standing64" / "grid.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["truncation=0"], "truncation=0: of gan it is the threshold"),
        (["truncation=some"], "truncation='some' must be a number"),
        (["standing_statistics=many"], "must be a number of images, such as 10000"),
        (["standing_statistics=1"], "must be at least 2 images"),
        (["standing_statistics=64"], "are for generators with batch normalisation"),
        (["classes=[10]"], "class 10 is out of range"),
        (["seed=-1"], "seed=-1 must be from 0"),
        (["classes=[a]"], "give numbers, 0 to 9, or all"),
        (["classes=some"], "give all, or a list"),
        (["format=jpg"], "choose from png, grid, npz"),
        (["num_images=0"], "must be at least 1"),
        (["device=quantum"], "use auto or cpu"),
        (["checkpoint=first"], "checkpoints there: best, last"),
    ],
)
def test_bad_input(
    run: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(run, tmp_path / "out", *words, status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path / "none", tmp_path, status=2)
    assert "is not a run folder" in capsys.readouterr().err
    assert launch("generate", []) == 2
    assert "run= is missing" in capsys.readouterr().err
