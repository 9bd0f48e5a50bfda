"""Sound from training to export, by every command: WaveGAN on waveforms, and a model of images on spectrograms."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.audio import read_sound
from gan_lab.data.media import Samples
from tests.helpers.sounds import write_sines

COMMON = (
    "data=audio",
    "data.rate=8000",
    "metrics=none",
    "batch_size=8",
    "total_kimg=0.16",
    "callbacks.training_log.every_kimg=0.04",
    "callbacks.samples.every_kimg=0.08",
    "callbacks.samples.columns=2",
    "callbacks.checkpointing.every_kimg=0.08",
    "trainer=cpu",
)
WAVES = (
    "model=wavegan",
    "d_steps=2",
    "data.length=256",
    "model.generator.width=2",
    "model.discriminator.width=2",
)
SPECTROGRAMS = (
    "model=stylegan2",
    "representation=spectrogram",
    "representation.window=64",
    "representation.hop=16",
    "representation.iterations=4",
    "data.length=512",
    "model.generator.channel_base=128",
    "model.generator.channel_max=8",
    "model.discriminator.channel_base=128",
    "model.discriminator.channel_max=8",
)


def overrides(root: Path, kind: tuple[str, ...], name: str) -> list[str]:
    clips = root / "clips"
    if not clips.exists():
        write_sines(clips, length=600)
    return [*COMMON, *kind, f"data.root={clips}", f"runs_dir={root}/runs", f"name={name}"]


def state(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sound")


@pytest.fixture(scope="module")
def waves(root: Path) -> Path:
    assert launch("train", overrides(root, WAVES, "waves")) == 0
    return root / "runs/waves"


@pytest.fixture(scope="module")
def spectrograms(root: Path) -> Path:
    assert launch("train", overrides(root, SPECTROGRAMS, "spectrograms")) == 0
    return root / "runs/spectrograms"


@pytest.mark.parametrize("kind", [WAVES, SPECTROGRAMS], ids=["waves", "spectrograms"])
def test_a_run_that_goes_on_is_the_same_to_the_bit(
    root: Path, kind: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    name = "waves" if kind is WAVES else "spectrograms"
    whole = request.getfixturevalue(name)
    given = overrides(root, kind, f"{name}_resumed")
    assert launch("train", [*given, "total_kimg=0.08"]) == 0
    assert launch("train", given) == 0
    ours, theirs = state(root / "runs" / f"{name}_resumed"), state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_statistics_are_kept_with_run_and_export(spectrograms: Path, tmp_path: Path) -> None:
    measured = {k: v for k, v in state(spectrograms).items() if k.startswith("representation.")}
    assert set(measured) == {"representation.mean", "representation.std"}
    assert measured["representation.std"].unique().numel() > 2
    out = tmp_path / "export"
    assert launch("export", [f"run={spectrograms}", f"out={out}"]) == 0
    kept = load_file(out / "representation.safetensors")
    assert torch.equal(kept["mean"], measured["representation.mean"])
    sample = json.loads((out / "model.json").read_text())["sample"]
    assert sample["kind"] == {"_target_": "gan_lab.data.audio.Audio", "rate": 8000}
    ours, theirs = gan_lab.load(out), gan_lab.load(spectrograms)
    clips = ours.spec.decode(ours.sample(2))
    assert clips.shape == (2, 1, 512)
    assert torch.equal(clips, theirs.spec.decode(theirs.sample(2)))
    assert isinstance(ours.sample(1), Samples) and "<audio" in str(ours.sample(1)._repr_html_())


def test_generate_writes_every_format(waves: Path, tmp_path: Path) -> None:
    formats = "format=[wav,flac,npz,grid,latents]"
    assert launch("generate", [f"run={waves}", "num_images=3", f"out={tmp_path}", formats]) == 0
    gan = gan_lab.load(waves)
    expected = gan.spec.decode(gan.sample(3))
    files = sorted(tmp_path.glob("*.wav"))
    assert len(files) == len(list(tmp_path.glob("*.flac"))) == 3
    for file, clip in zip(files, expected, strict=True):
        with wave.open(str(file)) as opened:
            assert (opened.getframerate(), opened.getnframes()) == (8000, 256)
        assert (gan.spec.kind.read(file).int() - clip.int()).abs().max() <= 1
        values, rate = read_sound(file.with_suffix(".flac"))
        assert rate == 8000 and np.abs(values * 32768 - clip.numpy()).max() <= 1.1
    with np.load(tmp_path / "images.npz") as file:
        assert file["samples"].shape == (3, 1, 256) and file["samples"].dtype == np.int16
    assert Image.open(tmp_path / "grid.png").mode == "RGB"


@pytest.mark.parametrize("name", ["waves", "spectrograms"])
def test_clips_on_the_way_from_seed_to_seed(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(name)
    given = ["seeds=0-1", "frames=2", "format=[files,strip]", "columns=3", f"out={tmp_path}"]
    assert launch("interpolate", [f"run={run}", *given]) == 0
    gan = gan_lab.load(run)
    files = sorted((tmp_path / "files").glob("*.wav"))
    path = gan.spec.decode(gan.interpolate([0, 1], frames=2))
    assert len(files) == len(path) == 3
    for file, clip in zip(files, path, strict=True):
        assert (gan.spec.kind.read(file).int() - clip.int()).abs().max() <= 2
    assert Image.open(tmp_path / "strip.png").width > 3 * 128


def test_runs_are_compared_and_clips_can_be_played(
    waves: Path, spectrograms: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    assert launch("compare", [f"runs=[{waves},{spectrograms}]", f"out={out}", "columns=2"]) == 0
    text = out.read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    for run in data["runs"]:
        assert run["grid"]["same"] and run["grid"]["src"]
        assert all(clip.startswith("<audio controls") for clip in run["grid"]["clips"])
        assert len(run["grid"]["clips"]) == 4
    assert "media-src data:" in text


def test_dry_runs_and_benchmarks(root: Path) -> None:
    given = overrides(root, WAVES, "dry")
    assert launch("train", [*given, "dry_run=true"]) == 0
    assert not (root / "runs/dry").exists()
    parts = ["parts=[steps]", "rounds=1", "warmup=0", f"out={root}/bench.json"]
    assert launch("bench", [*given, *parts]) == 0


@pytest.mark.slow
def test_sweeps(root: Path) -> None:
    unnamed = [word for word in overrides(root, WAVES, "dry") if not word.startswith("name=")]
    swept = [*unnamed, "-m", "seed=0,1", "sweep=tiny", "total_kimg=0.08"]
    assert launch("train", swept) == 0
    assert len(list((root / "runs/tiny").glob("seed*/checkpoints/last.ckpt"))) == 2


@pytest.mark.parametrize(
    ("command", "given", "words_said"),
    [
        ("generate", ["format=png"], "wav, flac"),
        ("generate", ["format=zip"], "wav, flac"),
        ("generate", ["scale=2", "format=files"], "scale=2"),
        ("generate", ["truncation=0.7"], "uniform"),
        ("interpolate", ["format=mp4"], "format=mp4 is for images"),
        ("interpolate", ["format=frames"], "format=frames is for images"),
        ("mix", ["rows=0", "columns=1"], "no styles"),
        ("project", ["images=clip.png"], "images"),
    ],
)
def test_what_makes_no_sense_is_rejected(
    waves: Path,
    command: str,
    given: list[str],
    words_said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert launch(command, [f"run={waves}", *given, f"out={tmp_path}/made"]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert words_said in said
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("given", "words_said"),
    [
        (["metrics=fid"], "[1, 256]"),
        (["augment=ada"], "images"),
        (["data.length=300"], "300 samples"),
        (["representation=spectrogram"], "sound [channels, samples]"),
        (["data=digits", "model=gan", "representation=spectrogram"], "is for sound"),
    ],
)
def test_training_that_makes_no_sense_is_rejected(
    root: Path,
    given: list[str],
    words_said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    base = overrides(root, WAVES, "rejected")
    if "data=digits" in given:
        base = ["name=rejected", "total_kimg=0.1", "metrics=none"]
    assert launch("train", [*base, f"runs_dir={tmp_path}", *given]) != 0
    assert words_said in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "rejected").glob("checkpoints/*"))
    # what was rejected is not in the way of another model of this name
    other = ["model=gan", "data=digits", "metrics=none", "batch_size=8", "total_kimg=0.008"]
    assert launch("train", [*other, "name=rejected", f"runs_dir={tmp_path}", "trainer=cpu"]) == 0


def test_mixed_styles_of_spectrograms_are_a_sheet(spectrograms: Path, tmp_path: Path) -> None:
    given = ["rows=0-1", "columns=2", "layers=coarse", f"out={tmp_path}"]
    assert launch("mix", [f"run={spectrograms}", *given]) == 0
    assert Image.open(tmp_path / "mix_coarse.png").width > 2 * 128
