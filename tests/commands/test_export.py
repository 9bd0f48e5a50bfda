"""gan-lab export: what it writes, replaces, uploads and rejects."""

import json
import os
from multiprocessing import Process
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

import gan_lab
from gan_lab.commands import export as command
from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.run import temporary_path
from gan_lab.weights.exported import file_sha256
from tests.commands.conftest import Train
from tests.helpers.generators import run_of
from tests.helpers.small import STYLEGANS

USUAL = {"README.md", "grid.png", "model.json", "model.safetensors"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("gan", tmp_path_factory.mktemp("runs") / "run")


def export(source: Path | str, out: Path, *overrides: str, status: int = 0) -> Path:
    assert launch("export", [f"run={source}", f"out={out}", *overrides]) == status
    return out


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_it_writes(run: Path, tmp_path: Path) -> None:
    out = export(run, tmp_path / "model")
    assert names(out) == USUAL and names(tmp_path) == {"model"}
    description = json.loads((out / "model.json").read_text())
    assert description["generator"]["sha256"] == file_sha256(out / "model.safetensors")
    assert description["source"]["sha256"] == file_sha256(run / "checkpoints" / "best.ckpt")
    generator = gan_lab.load(run).generator
    assert description["generator"]["parameters"] == sum(p.numel() for p in generator.parameters())
    assert description["best"] == {"key": "fid50k", "value": 12.5}
    assert (out / "model.safetensors").stat().st_mode & 0o044 == 0o044, "others may read it"


def test_the_default_folder_is_in_the_run(run: Path) -> None:
    assert launch("export", [f"run={run}"]) == 0
    assert names(run / "exported" / "best_ema") == USUAL


def test_another_model_is_replaced_only_with_overwrite(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = export(run, tmp_path / "model")
    (out / "notes.txt").write_text("mine")
    export(run, out)  # the same model: brought up to date
    export(run, out, "weights=raw", status=2)
    assert "holds another model, run of 1.5 kimg" in capsys.readouterr().err
    before = file_sha256(out / "model.safetensors")
    export(run, out, "weights=raw", "overwrite=true")
    assert file_sha256(out / "model.safetensors") != before
    assert names(out) == {*USUAL, "notes.txt"} and names(tmp_path) == {"model"}


def test_a_failure_changes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(run, tmp_path / "model")
    before = {name: (out / name).read_bytes() for name in names(out)}

    def fail(*_: Any, **__: Any) -> None:
        raise InputError("no such luck")

    monkeypatch.setattr(command, "write_program", fail)
    export(run, out, "format=torch", status=2)
    export(run, tmp_path / "new", "format=torch", status=2)
    assert {name: (out / name).read_bytes() for name in names(out)} == before
    assert names(tmp_path) == {"model"}


@pytest.mark.parametrize("moved", [False, True])
def test_what_a_kill_left_undone_is_done_by_the_next(
    run: Path, tmp_path: Path, moved: bool
) -> None:
    """Killed after the old folder was moved away, before or after the new one replaced it."""
    out = export(run, tmp_path / "model")
    (out / "notes.txt").write_text("mine")
    out.rename(tmp_path / ".model.before")
    dead = Process(target=int)
    dead.start()
    dead.join()
    part = temporary_path(out)
    part = part.with_name(part.name.replace(f".{os.getpid()}.", f".{dead.pid}."))
    part.mkdir()
    (part / "model.json").write_text("{")
    if moved:
        export(run, tmp_path / "again").rename(out)
    export(run, out)
    assert names(tmp_path) == {"model"} and names(out) == {*USUAL, "notes.txt"}


def test_an_export_is_exported_again(run: Path, tmp_path: Path) -> None:
    first = export(run, tmp_path / "first", "weights=raw")
    second = export(first, tmp_path / "second", "license=mit", "name=other")
    assert torch.equal(gan_lab.load(second).sample(3), gan_lab.load(first).sample(3))
    card = (second / "README.md").read_text()
    assert "license: mit" in card and "# other" in card and "not their moving average" in card
    assert launch("export", [f"run={first}", "license=cc0-1.0"]) == 0
    assert "license: cc0-1.0" in (first / "README.md").read_text()


def test_training_begins_from_an_export(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train()
    out = export(trained, tmp_path / "model", "with_discriminator=true")
    again = export(out, tmp_path / "again")
    for folder in (out, again):
        assert names(folder) == {*USUAL, "discriminator.safetensors"}
    alone = export(trained, tmp_path / "alone")
    capsys.readouterr()
    train(f"init_from={again}", name="both")
    output = capsys.readouterr().out
    assert output.count("100.0% of the parameters; 0 new") == 3
    train(f"init_from={alone}", name="one")
    output = capsys.readouterr().out
    assert output.count("100.0% of the parameters; 0 new") == 2
    assert "none of the discriminator's weights fits: it starts untrained" in output


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_generate_takes_an_export(weights: str, run: Path, tmp_path: Path) -> None:
    out = export(run, tmp_path / "model", f"weights={weights}")
    common = ["num_images=3", "format=png"]
    for source, name, more in ((out, "a", []), (run, "b", [f"weights={weights}"])):
        overrides = [f"run={source}", f"out={tmp_path / name}", *common, *more]
        assert launch("generate", overrides) == 0
    images = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert len(images) == 3
    for image in images:
        assert (tmp_path / "a" / image).read_bytes() == (tmp_path / "b" / image).read_bytes()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["format=jpg"], "must be safetensors, torch, onnx"),
        (["checkpoint=last"], "has no last.ckpt"),
        (["weights=mean"], "weights='mean' must be ema, raw"),
        (["truncation=0"], "of gan it is the threshold"),
        (["standing_statistics=64"], "standing statistics need"),
        (["standing_statistics=many"], "standing_statistics='many' must be"),
        (["seed=-1"], "seed=-1 must be"),
        (["with_discriminator=true"], "has none"),
        (["push=somebody"], "is not a model of the Hugging Face hub: give user/name"),
    ],
)
def test_bad_input(
    overrides: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    export(run, tmp_path / "model", *overrides, status=2)
    assert message in capsys.readouterr().err
    assert not names(tmp_path)


def test_output_folders_with_other_content(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    export(run, tmp_path / "notes", status=2)
    assert "holds other files than an exported model" in capsys.readouterr().err
    export(run, tmp_path / "notes" / "a.txt", status=2)
    assert "is a file" in capsys.readouterr().err
    export(tmp_path / "none", tmp_path / "model", status=2)
    assert "is not a run folder" in capsys.readouterr().err


def test_pushed_is_what_was_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []

    def upload(api: object, **settings: Any) -> SimpleNamespace:
        calls.append(settings)
        return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", upload)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    out = export(run, tmp_path / "model", "push=somebody/digits")
    created, uploaded = calls
    assert (created["repo_id"], created["private"]) == ("somebody/digits", True)
    assert uploaded["folder_path"] == str(out) and set(uploaded["allow_patterns"]) == USUAL
    assert 'gan_lab.load("hf://somebody/digits")' in (out / "README.md").read_text()
    assert "pushed https://hub/commit/1" in capsys.readouterr().out

    def refuse(api: object, **settings: Any) -> None:
        raise OSError("403 forbidden\nrequest id 1")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", refuse)
    export(run, out, "push=somebody/digits", status=2)
    error = capsys.readouterr().err
    assert "push=somebody/digits failed (OSError: 403 forbidden)" in error
    assert "is complete" in error and names(out) == USUAL


def test_without_a_token_nothing_is_started(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    export(run, tmp_path / "model", "push=somebody/digits", status=2)
    assert "HF_TOKEN" in capsys.readouterr().err and not names(tmp_path)


STYLED = (
    *("model=stylegan2", *STYLEGANS["stylegan2"], "data.image_size=8", "batch_size=8"),
    *("metrics=none", "callbacks.samples.columns=3", "callbacks.checkpointing.every_kimg=0.1"),
)


def test_for_nvidias_code_and_back(
    tmp_path: Path, run: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written is read again by import-weights, without the run."""
    source = train("total_kimg=0.016", base=STYLED)
    out = export(source, tmp_path / "model", "format=nvidia", "with_discriminator=true")
    files = {"nvidia.json", "nvidia_generator.pt", "nvidia_discriminator.pt"}
    assert names(out) == {*USUAL, *files, "discriminator.safetensors"}
    arguments = json.loads((out / "nvidia.json").read_text())
    assert arguments["classes"]["generator"] == "training.networks_stylegan2.Generator"
    assert "nvidia_generator.pt" in (out / "README.md").read_text()
    overrides = [f"path={out / 'nvidia_generator.pt'}", "name=back", f"runs_dir={tmp_path}"]
    assert launch("import-weights", overrides) == 0
    before, after = gan_lab.load(out), gan_lab.load(tmp_path / "back")
    assert torch.equal(before.sample(3, seed=1, labels=0), after.sample(3, seed=1, labels=0))
    both = [
        {
            name: value
            for name, value in torch.load(path, weights_only=True)["state_dict"].items()
            if name.startswith("discriminator.")
        }
        for path in (source / "checkpoints" / "last.ckpt", tmp_path / "back/checkpoints/last.ckpt")
    ]
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(value, both[1][name]) for name, value in both[0].items())
    # exported again it keeps them, and a model that NVIDIA has not is rejected before anything is written
    assert names(export(out, tmp_path / "copy")) == names(out)
    capsys.readouterr()
    export(run, tmp_path / "other", "format=nvidia", status=2)
    assert "format=nvidia" in capsys.readouterr().err and not (tmp_path / "other").exists()
