"""Commands on a full disk: one line that names the file, nothing cut short under a final name, nothing left over."""

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.data.audio import Audio
from gan_lab.data.high_bit_depth import HighBitDepthImage
from gan_lab.data.images import ImageKind
from gan_lab.data.sample import SampleKind
from gan_lab.data.text import Text
from gan_lab.errors import InputError
from tests.helpers.generators import run_of

COMMANDS = {
    "model.safetensors": ("export", "out={out}"),
    "grid.png": ("generate", "out={out}", "num_images=2000", "format=grid"),
    "images.zip": ("generate", "out={out}", "num_images=2000", "format=zip"),
    "images.npz": ("generate", "out={out}", "num_images=2000", "format=npz"),
    "latents.safetensors": ("generate", "out={out}", "num_images=2000", "format=latents"),
    "compare.html": ("compare", "out={out}"),
    "interpolation.mp4": ("interpolate", "out={out}", "seeds=0-3", "format=mp4", "fps=30"),
    "interpolation.gif": ("interpolate", "out={out}", "seeds=0-3", "format=gif", "fps=30"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("gan", tmp_path_factory.mktemp("runs") / "run")


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit files to 4 kB: the kernel rejects writes beyond it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NOISE = torch.Generator().manual_seed(0)
SAMPLES: dict[str, tuple[SampleKind, torch.Tensor]] = {
    "a.png": (ImageKind(), torch.randint(256, (3, 64, 64), generator=NOISE, dtype=torch.uint8)),
    "a.wav": (Audio(rate=8000), torch.randint(-9999, 9999, (1, 9000), generator=NOISE, dtype=torch.int16)),
    "a.flac": (Audio(rate=8000), torch.randint(-9999, 9999, (1, 9000), generator=NOISE, dtype=torch.int16)),
    "a.tif": (HighBitDepthImage(bits=32, channels=1, window=(0, 1)), torch.randn(1, 64, 64, generator=NOISE)),
    "deep.png": (
        HighBitDepthImage(bits=16, channels=1, window=(0, 1)),
        torch.randint(65536, (1, 64, 64), generator=NOISE).to(torch.uint16),
    ),
    "a.txt": (Text(alphabet="ab", length=9000, padding=None, unknown=None), torch.zeros(9000, dtype=torch.uint8)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_every_kind_on_a_full_disk(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, stored = SAMPLES[name]
    with (
        full_disk(),
        pytest.raises(InputError, match=f"{name} could not be written: File too large"),
    ):
        kind.write(stored, tmp_path / name)
    gc.collect()  # what was half written may have its say
    assert not list(tmp_path.iterdir()) and not capfd.readouterr().err
    kind.write(stored, tmp_path / name)
    assert torch.equal(kind.read(tmp_path / name), stored)


@pytest.mark.parametrize("file", COMMANDS)
def test_a_full_disk(
    run: Path, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *overrides = COMMANDS[file]
    which = f"runs=[{run}]" if command == "compare" else f"run={run}"
    out = tmp_path / "out"
    with full_disk():
        status = launch(command, [which, *(word.format(out=out) for word in overrides)])
    assert status == 2
    said = capsys.readouterr().err
    assert f"{file} could not be written: File too large" in said and "Traceback" not in said
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"generate.json"}, "neither the file nor a part of it"


def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_measured(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("gan_lab.commands.evaluate.measure", never)
    monkeypatch.setattr("gan_lab.metrics.protocol.Protocol.load", never)
    (tmp_path / "file").touch()
    overrides = [f"run={run}", "device=cpu", f"out={tmp_path}/file/evaluation.json"]
    assert launch("evaluate", overrides) == 2
    assert "evaluation.json could not be written" in capsys.readouterr().err
    for command in ("project", "directions"):
        monkeypatch.setattr(f"gan_lab.commands.{command}.{command}", never)
        given = [f"run={run}", "device=cpu", f"out={tmp_path}/file/below"]
        given += ["images=photo.png"] if command == "project" else []
        assert launch(command, given) == 2
        assert f"{tmp_path}/file is a file; give a folder" in capsys.readouterr().err
    (tmp_path / "evaluation.json").write_bytes(b"\xff{")
    assert launch("evaluate", [*overrides[:2], f"out={tmp_path}/evaluation.json"]) == 2
    assert "evaluation.json cannot be read" in capsys.readouterr().err
