"""gan-lab generate on a trained run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import gan_lab
import gan_lab.run
from gan_lab.commands.generate import draw
from gan_lab.commands.launch import launch
from gan_lab.data.image_folder import Zip
from gan_lab.data.images import ImageKind, image_spec, save_png, to_uint8
from gan_lab.distributed.ranks import Ranks
from gan_lab.models import stylegan2
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents
from gan_lab.sampling.writers import (
    GridFile,
    LatentsFile,
    Npz,
    SampleRequest,
    SingleFiles,
    labels_for,
)
from tests.commands.conftest import TINY, short_run

EVERYTHING = "format=[png,jpeg,webp,grid,npz,zip,latents]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory)


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose generator has batch norm."""
    root = tmp_path_factory.mktemp("runs")
    overrides = [*TINY, "model=dcgan", "model.generator.width=4", "total_kimg=0.05"]
    assert launch("train", [*overrides, f"runs_dir={root}", "name=run"]) == 0
    return root / "run"


def styled(**settings: int) -> Gan:
    torch.manual_seed(0)
    arguments = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 64}
    generator = stylegan2.Generator(
        image_size=8, channels=1, num_classes=3, channel_max=8, **arguments
    )
    for module in generator.modules():
        if hasattr(module, "noise_strength"):
            nn.init.ones_(module.noise_strength)
    return Gan(
        generator.eval(),
        spec=image_spec(channels=1, image_size=(8, 8), class_names=["a cat", "dog", "2"]),
    )


def generate(run: Path, out: Path, *overrides: str, status: int = 0) -> Path:
    assert launch("generate", [f"run={run}", f"out={out}", *overrides]) == status
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_carry_seed_and_class(run: Path, tmp_path: Path) -> None:
    out = generate(run, tmp_path, "num_images=2", "classes=[3,7]", "seed=5")
    assert sorted(p.name for p in out.glob("seed*")) == [
        f"seed5_00000{i}_class{c}.png" for i, c in enumerate([3, 3, 7, 7])
    ]
    with Image.open(out / "grid.png") as grid:
        assert grid.size == (2 * 10 + 2, 2 * 10 + 2), "one class a row"


def test_what_a_killed_process_left_is_removed(run: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = gan_lab.run.temporary_path(tmp_path / "images.zip").name.replace(
        f".{os.getpid()}.", f".{dead.pid}."
    )
    (tmp_path / left).touch()
    overrides = [f"run={run}", f"out={tmp_path}", "num_images=1", "format=png"]
    assert launch("generate", overrides) == 0
    assert not (tmp_path / left).exists() and (tmp_path / "generate.json").exists()


def test_an_image_for_each_seed(run: Path, tmp_path: Path) -> None:
    """The image of a seed is that seed's first, and the same for every class."""
    out = generate(run, tmp_path / "a", "seeds=[3,7-8]", "classes=[2,0]", "format=[png,npz]")
    names = [f"seed{seed:06d}_class{label}.png" for label in (2, 0) for seed in (3, 7, 8)]
    assert sorted(p.name for p in out.glob("*.png")) == sorted(names)
    expected = to_uint8(
        gan_lab.load(run).sample(6, seed=[3, 7, 8, 3, 7, 8], labels=[2, 2, 2, 0, 0, 0])
    )
    for name, image in zip(names, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / name)), image[0].numpy())
    assert np.load(out / "images.npz")["seeds"].tolist() == [3, 7, 8, 3, 7, 8]
    first = generate(run, tmp_path / "b", "seed=7", "num_images=1", "classes=2", "format=png")
    (same,) = first.glob("*.png")
    assert same.read_bytes() == (out / "seed000007_class2.png").read_bytes()


def test_the_same_files_whatever_the_batch_size(run: Path, tmp_path: Path) -> None:
    overrides = ["num_images=9", "classes=[1,4]", "truncation=0.8", EVERYTHING]
    first, *others = (
        generate(run, tmp_path / str(size), *overrides, f"batch_size={size}") for size in (64, 7, 1)
    )
    assert len(contents(first)) == 3 * 18 + 4 + 1
    for other in others:
        assert contents(other).keys() == contents(first).keys()
        one, two = (
            np.load(folder / "images.npz")["images"].astype(int) for folder in (first, other)
        )
        assert np.abs(one - two).max() <= 1, "a level, where rounding differs"
        for name in ("latents.safetensors",):
            assert (other / name).read_bytes() == (first / name).read_bytes()


@pytest.mark.parametrize("noise", ["const", "random"])
def test_the_same_images_in_any_order(noise: str) -> None:
    request = SampleRequest(
        gan=styled(), truncation=0.7, truncation_center="class", noise=noise, count=20, seed=2
    )
    whole = request.block(0, 20)
    for i in torch.randperm(20).tolist():
        one = request.block(i, i + 1)
        assert (one.samples[0].int() - whole.samples[i].int()).abs().max() <= 1
        assert torch.equal(one.samples, request.block(i, i + 1).samples)
        assert one.names[0] == whole.names[i]
    assert len(whole.samples.flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_images(size: int, tmp_path: Path) -> None:
    """Processes draw blocks in turn; together they write the same files as one."""
    request = SampleRequest(gan=styled(), noise="random", count=11, seed=[5, *range(20, 30)])
    for name, ranks in (
        ("one", [Ranks()]),
        ("many", [Ranks(rank, size) for rank in reversed(range(size))]),
    ):
        for each in ranks:
            files = SingleFiles(tmp_path / name, suffix=".png", save=save_png, count=11)
            draw(request, [files], [], 2, each, gather=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert len(contents(tmp_path / "one")) == 11


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_give_the_same_files(run: Path, tmp_path: Path) -> None:
    overrides = ["num_images=21", "batch_size=4", EVERYTHING]
    alone = contents(generate(run, tmp_path / "alone", *overrides))
    spawned = contents(generate(run, tmp_path / "spawned", *overrides, "devices=2", "device=cpu"))
    assert alone == spawned
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "gan_lab", "generate", f"run={run}", f"out={tmp_path / 'torchrun'}"]
    root = Path(__file__).parents[2]
    subprocess.run([*command, *overrides], check=True, cwd=root, env={**os.environ})
    assert contents(tmp_path / "torchrun") == alone


def test_one_class_needs_no_brackets(run: Path, tmp_path: Path) -> None:
    out = generate(run, tmp_path, "num_images=1", "classes=3")
    assert [p.name for p in out.glob("seed*")] == ["seed0_000000_class3.png"]


def test_npz_holds_the_same_images(run: Path, tmp_path: Path) -> None:
    out = generate(run, tmp_path, "num_images=3", "classes=all", "format=[npz,png]")
    arrays = np.load(out / "images.npz")
    assert arrays["images"].shape == (30, 8, 8, 1) and arrays["labels"].tolist() == [
        i // 3 for i in range(30)
    ]
    assert arrays["seed"] == 0
    with Image.open(out / "seed0_000004_class1.png") as image:
        assert np.array_equal(np.asarray(image), arrays["images"][4, :, :, 0])


def test_the_zip_is_a_data_set(run: Path, tmp_path: Path) -> None:
    out = generate(
        run, tmp_path, "num_images=2", "classes=[9,4]", "format=[zip,npz]", "batch_size=3"
    )
    data = Zip(split="train", root=out / "images.zip")
    assert data.num_stored == 4 and data.class_names == [str(i) for i in range(10)]
    arrays = np.load(out / "images.npz")
    by_name = {data.name(i): (data.load(i), data.labels[i]) for i in range(4)}
    for i, label in enumerate(arrays["labels"]):
        image, kept = by_name[f"{label}/seed0_{i:06d}_class{label}.png"]
        assert kept == label and np.array_equal(image[0].numpy(), arrays["images"][i, :, :, 0])


def test_lossless_and_other_images(run: Path, tmp_path: Path) -> None:
    out = generate(run, tmp_path, "num_images=2", "classes=1", "format=[png,webp,jpeg]")
    for path in out.glob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L"), dtype=int)
        assert np.array_equal(
            np.asarray(Image.open(path.with_suffix(".webp")).convert("L")), pixels
        )
        distance = np.abs(np.asarray(Image.open(path.with_suffix(".jpeg")), dtype=int) - pixels)
        assert 0 < distance.mean() < 10


def test_latents_give_the_same_images_again(run: Path, tmp_path: Path) -> None:
    overrides = ["num_images=5", "seed=3", "truncation=0.5"]
    out = generate(run, tmp_path / "a", *overrides, "format=[npz,latents]")
    kept = out / "latents.safetensors"
    points = gan_lab.load(run).read_latents(kept)
    assert points.z is not None and points.z.abs().max() <= 0.5
    assert points.metadata["seed"] == "3" and points.metadata["kind"] == "generate"
    again = generate(run, tmp_path / "b", f"latents={kept}", "format=[npz,png]")
    first, second = (np.load(folder / "images.npz") for folder in (out, again))
    assert np.array_equal(first["images"], second["images"])
    assert np.array_equal(first["labels"], second["labels"])
    names = sorted(p.name for p in again.glob("*.png"))
    assert names == [f"latents_00000{i}_class{c}.png" for i, c in enumerate(first["labels"])]


def test_styles_are_kept_as_they_were_drawn(tmp_path: Path) -> None:
    gan = styled()
    request = SampleRequest(gan=gan, truncation=0.5, count=5, seed=1)
    writer = LatentsFile(tmp_path, metadata={"kind": "generate"})
    block = request.block(0, 5)
    writer.add(block)
    writer.finish()
    points = gan.read_latents(tmp_path / "latents.safetensors")
    assert points.w is not None and torch.equal(points.w, block.latents.values)
    again = SampleRequest(gan=gan, count=5, latents=points).block(0, 5)
    assert torch.equal(again.samples, block.samples)


def test_moved_along_directions(run: Path, tmp_path: Path) -> None:
    gan = gan_lab.load(run)
    found = gan.directions(count=3)
    kept = found.save(tmp_path / "directions.safetensors")
    overrides = ["seeds=[4,9]", "classes=2", "format=[npz,latents]"]
    out = generate(run, tmp_path / "a", *overrides, f"directions={kept}", "move=[2,0,-1]")
    z = found.apply(gan.latents(seed=[4, 9]).values, [2.0, 0.0, -1.0])
    expected = to_uint8(gan.synthesize(Latents(z=z, labels=torch.tensor([2, 2]))))
    assert np.array_equal(np.load(out / "images.npz")["images"][..., 0], expected[:, 0].numpy())
    assert torch.equal(Latents.read(out / "latents.safetensors").values, z)
    still = generate(run, tmp_path / "b", *overrides, f"directions={kept}", "move=0")
    plain = generate(run, tmp_path / "c", *overrides)
    both = [np.load(folder / "images.npz")["images"] for folder in (still, plain)]
    assert np.array_equal(*both)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["move=[1]"], "directions= and move= go together"),
        (["directions={kept}"], "directions= and move= go together"),
        (["directions={kept}", "move=[1,2,3]"], "has 2 directions"),
        (["directions={kept}", "move=[a]"], "move=['a'] must be"),
        (["directions={kept}", "move=[]"], "move=[] must be"),
        (["directions=none.safetensors", "move=1"], "does not exist"),
    ],
)
def test_directions_unknown(
    run: Path,
    tmp_path: Path,
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = gan_lab.load(run).directions(count=2).save(tmp_path / "directions.safetensors")
    overrides = [word.format(kept=kept) for word in overrides]
    generate(run, tmp_path / "out", *overrides, status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_of_classes(tmp_path: Path) -> None:
    request = SampleRequest(gan=styled(), count=3, seed=[4, 4, 4], labels=labels_for([0, 1, 2], 1))
    assert request.block(0, 3).names == [
        "seed000004_class0_a-cat",
        "seed000004_class1_dog",
        "seed000004_class2",
    ]


def test_a_large_grid_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_lab.sampling.writers._LARGEST_SIDE", 50)
    request = SampleRequest(gan=styled(), count=30)
    grid = GridFile(tmp_path / "grid.png", count=30, columns=10, scale=1, kind=ImageKind())
    npz = Npz(tmp_path / "images.npz", request=request)
    draw(request, [], [grid, npz], 7, Ranks(), gather=True)
    grid.finish(), npz.finish()
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (3 * 10 + 2, 5 * 10 + 2)
    kept = np.load(tmp_path / "images.npz")["images"]
    assert np.array_equal(pixels[12:20, 32:40], kept[13, :, :, 0]), "row 1, column 3"


def test_the_default_folder_is_in_the_run(run: Path) -> None:
    assert launch("generate", [f"run={run}", "num_images=1", "seed=9"]) == 0
    kimg = f"{gan_lab.load(run).kimg:g}"
    assert (run / "generated" / f"best_{kimg}kimg_ema_seed9" / "grid.png").exists()


def test_truncation_and_standing_statistics_change_the_images(normed: Path, tmp_path: Path) -> None:
    def images(name: str, *overrides: str) -> np.ndarray:
        out = generate(normed, tmp_path / name, "num_images=4", "format=npz", *overrides)
        return np.load(out / "images.npz")["images"]

    plain, held = images("a"), images("b", "truncation=0.3")
    assert not np.array_equal(plain, held)
    assert np.array_equal(held, images("c", "truncation=0.3", "batch_size=3"))
    standing = images("d", "standing_statistics=128")
    assert not np.array_equal(plain, standing)
    assert np.array_equal(standing, images("e", "standing_statistics=128", "batch_size=3"))


def test_the_default_folder_is_named_by_what_changes_images(normed: Path) -> None:
    overrides = ["num_images=1", "truncation=0.5", "standing_statistics=64"]
    assert launch("generate", [f"run={normed}", *overrides]) == 0
    (folder,) = (normed / "generated").iterdir()
    assert folder.name.endswith("kimg_ema_seed0_truncation0.5_standing64")


def test_images_of_other_settings_do_not_come_into_one_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = generate(run, tmp_path / "a", "seeds=0-1", "format=png")
    generate(run, out, "seeds=2-3", "classes=1", "format=[png,grid]")
    before = contents(out)
    assert len(before) == 2 + 2 + 1 + 1
    generate(run, out, "seeds=0-1", "truncation=0.5", status=2)
    assert "made with other options (truncation: None there, 0.5 now)" in capsys.readouterr().err
    generate(run, out, "seeds=0-1", "weights=raw", status=2)
    assert contents(out) == before
    (out / "generate.json").unlink()
    generate(run, out, "seeds=9", status=2)
    assert "says how it was made" in capsys.readouterr().err
    (tmp_path / "file").touch()
    generate(run, tmp_path / "file", status=2)
    assert "is a file" in capsys.readouterr().err


def test_an_interrupted_write_leaves_no_partial_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = SampleRequest.block

    def broken(self: SampleRequest, start: int, stop: int) -> object:
        if start:
            raise KeyboardInterrupt
        return block(self, start, stop)

    monkeypatch.setattr(SampleRequest, "block", broken)
    with pytest.raises(KeyboardInterrupt):
        generate(run, tmp_path, "num_images=4", "batch_size=2", "format=[npz,zip,grid]")
    assert [path.name for path in tmp_path.iterdir()] == ["generate.json"]
    assert json.loads((tmp_path / "generate.json").read_text())["noise"] == "const"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["truncation=0"], "truncation=0: of gan it is the threshold"),
        (["truncation=some"], "truncation='some' must be"),
        (["standing_statistics=many"], "standing_statistics='many' must be"),
        (["standing_statistics=1"], "must be at least 2 images"),
        (["standing_statistics=64"], "standing statistics need"),
        (["classes=[10]"], "class 10 is out of range; there are 10, 0 to 9"),
        (["classes=-1"], "'-1' is not a class"),
        (["seed=-1"], "seed=-1 must be"),
        (["classes=[a]"], "'a' is not a class; there are 10, 0 to 9"),
        (["classes=[]"], "give at least one class"),
        (["seeds=3-1"], "ends before it begins"),
        (["seeds=[1,0-3]"], "1 is repeated"),
        (["seeds=[x]"], "'x' is not a seed"),
        (["seeds=[]"], "give at least one seed"),
        (["seeds=99999999999"], "must be from 0 to 4294967295"),
        (["seeds=1", "latents=a.safetensors"], "give one of them"),
        (["latents=a.safetensors"], "does not exist"),
        (["format=jpg"], "format='jpg' must be"),
        (["num_images=0"], "must be a whole number from 1"),
        (["batch_size=0"], "must be a whole number from 1"),
        (["columns=0"], "must be a whole number from 1"),
        (["quality=101"], "from 1 to 100"),
        (["device=quantum"], "use auto or cpu"),
        (["devices=1000"], "there are"),
        (["checkpoint=first"], "checkpoint='first' must be best, last"),
        (["truncation_center=class"], "gan has no styles"),
        (["truncation_center=middle"], "must be mean, class"),
        (["noise=loud"], "must be const, none, random"),
        (["noise=random"], "gan has no noise inputs"),
        (["translate=[0.1,0]"], "gan has none; leave them out"),
        (["rotate=90"], "gan has none; leave them out"),
        (["translate=0.5"], "must be a list"),
        (["translate=[a,b]"], "must be a list"),
        (["rotate=left"], "rotate='left' must be"),
    ],
)
def test_bad_input(
    run: Path,
    tmp_path: Path,
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    generate(run, tmp_path / "out", *overrides, status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path / "none", tmp_path, status=2)
    assert "is not a run folder" in capsys.readouterr().err
    assert launch("generate", []) == 2
    assert "run= is missing" in capsys.readouterr().err
