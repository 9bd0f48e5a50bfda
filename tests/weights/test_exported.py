"""An exported model gives the run's images without Lightning and Hydra; damaged ones are rejected."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.weights.exported import DESCRIPTION, file_sha256, is_export, read_about
from tests.helpers.generators import TINY, run_of

WEIGHTS = "model.safetensors"
Change = Callable[[dict[str, Any]], object]


def export(run: Path, out: Path, *overrides: str, status: int = 0) -> Path:
    assert launch("export", [f"run={run}", f"out={out}", *overrides]) == status
    return out


@pytest.mark.parametrize(("model", "classes"), [("dcgan", 0), *((model, 3) for model in TINY)])
def test_the_very_same_images(model: str, classes: int, tmp_path: Path) -> None:
    run = run_of(model, tmp_path / "run", classes=classes, channels=3)
    out = export(run, tmp_path / "model")
    before, after = gan_lab.load(run), gan_lab.load(out)
    assert torch.equal(before.sample(5, seed=3), after.sample(5, seed=3))
    assert (after.kimg, after.num_classes) == (1.5, classes)
    assert (after.class_counts, after.class_names) == (before.class_counts, before.class_names)


def test_raw_weights_and_standing_statistics(tmp_path: Path) -> None:
    run = run_of("dcgan", tmp_path / "run")
    raw = export(run, tmp_path / "raw", "weights=raw")
    expected = gan_lab.load(run, weights="raw").sample(3)
    assert torch.equal(gan_lab.load(raw).sample(3), expected)
    assert not torch.equal(gan_lab.load(run).sample(3), expected)
    overrides = ["standing_statistics=64", "truncation=0.5", "seed=2"]
    standing = gan_lab.load(export(run, tmp_path / "standing", *overrides))
    measured = gan_lab.load(run).measure_statistics(64, seed=2, truncation=0.5)
    assert torch.equal(standing.sample(3), measured.sample(3))


def test_an_encoder_is_exported(tmp_path: Path) -> None:
    run = run_of("bigan", tmp_path / "run")
    images = gan_lab.load(run).sample(3)
    codes = [
        gan_lab.load(source).generator.encode(images)  # type: ignore[operator]
        for source in (run, export(run, tmp_path / "model"))
    ]
    assert torch.equal(*codes)


@pytest.mark.slow
def test_loading_needs_no_lightning_and_hydra(
    styled: Path, styled_run: Path, tmp_path: Path
) -> None:
    code = """if True:
        import sys
        import torch
        import gan_lab
        images = gan_lab.load(sys.argv[1]).sample(6, labels=[0, 1, 2, 0, 1, 2], seed=4, truncation=0.6)
        torch.save(torch.Tensor(images), sys.argv[2])
    """
    subprocess.run([sys.executable, "-c", code, styled, tmp_path / "images.pt"], check=True)
    expected = gan_lab.load(styled_run).sample(6, labels=[0, 1, 2] * 2, seed=4, truncation=0.6)
    assert torch.equal(torch.load(tmp_path / "images.pt"), expected.as_subclass(torch.Tensor))


@pytest.fixture
def model(styled: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(styled, tmp_path / "model")


def change(folder: Path, edit: Change) -> None:
    """Edit `model.json`."""
    description = json.loads((folder / DESCRIPTION).read_text())
    edit(description)
    (folder / DESCRIPTION).write_text(json.dumps(description))


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Edit the weights, and their hash in `model.json` with them."""
    state = load_file(folder / WEIGHTS)
    edit(state)
    save_file(state, folder / WEIGHTS)
    rehash(folder)


def rehash(folder: Path) -> None:
    change(folder, lambda d: d["generator"].update(sha256=file_sha256(folder / WEIGHTS)))


def network(description: dict[str, Any]) -> dict[str, Any]:
    return description["generator"]["network"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(format=3, gan_lab="9.0"), r"format 3, written by gan_lab 9\.0"),
        (lambda d: d.update(format="1"), "has no format number"),
        (lambda d: d.pop("kimg"), "damaged: kimg is None"),
        (lambda d: d.update(generator=[]), r"damaged: generator is \[\]"),
        (
            lambda d: network(d).update(_target_="os.system"),
            "would run os.system, which is not part",
        ),
        (
            lambda d: network(d).update(_target_="gan_lab.weights.exported.torch"),
            "would run gan_lab.weights.exported.torch, which is not a class",
        ),
        (
            lambda d: network(d).update(_target_="gan_lab.weights.exported.Path"),
            "not a class of gan_lab",
        ),
        (
            lambda d: network(d).update(_target_="gan_lab.models.new.Generator"),
            "names gan_lab.models.new.Generator, which cannot be imported",
        ),
        (
            lambda d: network(d).update(_target_="gan_lab.training.ema.ExponentialMovingAverage"),
            "ExponentialMovingAverage is not a gan_lab.layers.networks.GeneratorNetwork",
        ),
        (
            lambda d: d["generator"].update(
                network={"_target_": "gan_lab.distributed.ranks.RunningMeans"}
            ),
            "RunningMeans is not a gan_lab.layers.networks.GeneratorNetwork",
        ),
        (lambda d: d["generator"].update(network=[1]), r"generator.network is \[1\]"),
        (lambda d: network(d).update(later={"_target_": "subprocess.run"}), "subprocess.run"),
        (lambda d: network(d).update(unheard=1), "unheard=1"),
        (lambda d: network(d).update(image_size=[3, 3]), "image_size"),
        (lambda d: network(d).update(w_dim=16), "has shape"),
        (lambda d: network(d).update(image_size=[16, 16]), "do not match"),
        # nothing of this size is made
        (lambda d: network(d).update(channel_base=2**26, channel_max=2**24), "has shape"),
    ],
)
def test_invalid_descriptions_are_rejected(edit: Change, message: str, model: Path) -> None:
    change(model, edit)
    with pytest.raises(InputError, match=message):
        gan_lab.load(model)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / WEIGHTS).unlink(), "has no model.safetensors"),
        (
            lambda m: (m / WEIGHTS).write_bytes((m / WEIGHTS).read_bytes()[:-9]),
            "damaged, cut short",
        ),
        (
            lambda m: ((m / WEIGHTS).write_bytes((m / WEIGHTS).read_bytes()[:-9]), rehash(m)),
            "cannot be read",
        ),
        (lambda m: ((m / WEIGHTS).write_bytes(b"no"), rehash(m)), "cannot be read"),
        (
            lambda m: rewrite(m, lambda s: s.pop("mapping.w_avg")),
            r"1 missing \['mapping.w_avg'\]",
        ),
        (lambda m: rewrite(m, lambda s: s.update(more=torch.zeros(1))), r"1 too many \['more'\]"),
        (
            lambda m: rewrite(m, lambda s: s.update({"mapping.w_avg": torch.zeros(9)})),
            r"mapping.w_avg has shape \(9,\), the arguments ask for \(8,\)",
        ),
        (lambda m: (m / DESCRIPTION).write_text("{"), "model.json cannot be read"),
        (lambda m: (m / DESCRIPTION).write_bytes(b"\xff\xfe"), "model.json cannot be read"),
        (lambda m: (m / DESCRIPTION).write_text("[]"), "has no format number"),
        (lambda m: (m / DESCRIPTION).unlink(), "is not a run folder"),
    ],
)
def test_a_damaged_folder(damage: Callable[[Path], object], message: str, model: Path) -> None:
    damage(model)
    with pytest.raises(InputError, match=message):
        gan_lab.load(model)


def test_missing_parts_are_rejected(model: Path) -> None:
    assert is_export(model)
    with pytest.raises(InputError, match="has no checkpoints"):
        gan_lab.load(model, checkpoint="best")
    with pytest.raises(InputError, match="holds the ema weights alone"):
        gan_lab.load(model, weights="raw")
    assert torch.equal(gan_lab.load(model, weights="ema").sample(2), gan_lab.load(model).sample(2))


def test_a_trusted_package(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys.py").write_text(
        "from gan_lab.models import stylegan2\nclass Generator(stylegan2.Generator):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    expected = gan_lab.load(model).sample(2)
    change(model, lambda d: network(d).update(_target_="somebodys.Generator"))
    with pytest.raises(InputError, match=r"would run somebodys.Generator.*trust=\['somebodys'\]"):
        gan_lab.load(model)
    trusted = gan_lab.load(model, trust=["somebodys"])
    assert type(trusted.generator).__module__ == "somebodys"
    assert torch.equal(trusted.sample(2), expected)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("source"),
        lambda d: d.update(source=3),
        lambda d: d.pop("metrics"),
        lambda d: d["generator"].pop("weights"),
        lambda d: network(d).update(_target_="Generator"),
        lambda d: d["sample"].update(shape="large"),
        lambda d: d.update(programs=[]),
        lambda d: d.update(name=3),
    ],
)
def test_exporting_again_keeps_the_description(edit: Change, model: Path) -> None:
    assert read_about(model)["name"]
    change(model, edit)
    with pytest.raises(InputError, match=r"model\.json is damaged"):
        read_about(model)
