"""Commands on a full disk: one line that names the file, nothing cut short under a final name, nothing left over."""

import resource
from pathlib import Path

import pytest

from gan_lab.commands.launch import launch
from tests.helpers.generators import run_of

COMMANDS = {
    "model.safetensors": ("export", "out={out}"),
    "grid.png": ("generate", "out={out}", "num_images=2000", "format=grid"),
    "images.zip": ("generate", "out={out}", "num_images=2000", "format=zip"),
    "images.npz": ("generate", "out={out}", "num_images=2000", "format=npz"),
    "latents.safetensors": ("generate", "out={out}", "num_images=2000", "format=latents"),
    "compare.html": ("compare", "out={out}"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("gan", tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("file", COMMANDS)
def test_a_full_disk(
    run: Path, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *words = COMMANDS[file]
    which = f"runs=[{run}]" if command == "compare" else f"run={run}"
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the kernel refuses what makes a file larger, in the middle of a write
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        status = launch(command, [which, *(word.format(out=out) for word in words)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    said = capsys.readouterr().err
    assert f"{file} could not be written: File too large" in said and "Traceback" not in said
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"generate.json"}, "neither the file nor a part of it"


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("gan_lab.commands.evaluate.measure", never)
    monkeypatch.setattr("gan_lab.metrics.protocol.Protocol.load", never)
    (tmp_path / "file").touch()
    words = [f"run={run}", "device=cpu", f"out={tmp_path}/file/evaluation.json"]
    assert launch("evaluate", words) == 2
    assert "evaluation.json could not be written" in capsys.readouterr().err
    (tmp_path / "evaluation.json").write_bytes(b"\xff{")
    assert launch("evaluate", [*words[:2], f"out={tmp_path}/evaluation.json"]) == 2
    assert "evaluation.json cannot be read" in capsys.readouterr().err
