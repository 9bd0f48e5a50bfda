"""Every command and every piece of Python in the README runs."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lab.commands.launch import LISTED, POSITIONAL, launch, listed, with_key
from tests.helpers.published import network_pickle

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# the same commands, over in seconds
SHORT = {
    "train": ["total_kimg=0.1", "callbacks.samples.columns=2", "metrics=none", "num_workers=0"],
    "evaluate": ["protocol.num_fake=12", "+protocol.figures.fid.allow_singular=true"],
    "import-weights": [],
    "generate": [],
    "prepare-data": [],
    "mix": [],
    "interpolate": ["frames=2", "columns=2"],
    "directions": ["samples=50", "count=2", "seeds=[0]"],
    "project": ["steps=2"],
    "export": [],
    "compare": ["columns=2"],
}
SMALL = ["model.generator.width=8", "model.discriminator.width=8", "batch_size=8"]
# those of the published file that the test writes
SMALL_STYLES = [
    "model.generator.z_dim=32",
    "model.generator.w_dim=32",
    *(f"model.{p}.channel_base=512" for p in ("generator", "discriminator")),
    *(f"model.{p}.channel_max=32" for p in ("generator", "discriminator")),
    "batch_size=8",
]


def blocks(language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


def photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")


@pytest.mark.timeout(600)  # some twenty commands
def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inception_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    pickled = network_pickle("stylegan2_uncond_32", tmp_path / "it was run")
    (tmp_path / "stylegan2.pkl").write_bytes(pickled)
    lines = commands("gan-lab")
    assert {shlex.split(line)[1] for line in lines} == set(SHORT)
    for line in lines:
        command, *words = shlex.split(line)[1:]
        words = [path for word in words for path in sorted(glob(word)) or [word]]
        words = listed(with_key(words, POSITIONAL.get(command)), LISTED.get(command))
        words = [word for word in words if not word.startswith(("total_kimg=", "num_images="))]
        if command == "generate" and not any(word.startswith("seeds=") for word in words):
            words.append("num_images=4")
        if command == "evaluate":
            words.append(f"protocol.features.weights={inception_file}")
        small = []
        if command == "train":
            styled = {"model=stylegan2", "experiment=digits/stylegan2"} & set(words)
            small = SMALL_STYLES if styled else SMALL
        if any(word.startswith("micro_batch_size") for word in words):
            words = ["micro_batch_size=2" if w.startswith("micro_batch_size") else w for w in words]
        words = [word for word in words if not word.startswith("batch_size")]
        assert launch(command, [*words, *small, *SHORT[command]]) == 0, line
    assert (tmp_path / "compare.html").exists() and (tmp_path / "digits-gan" / "README.md").exists()
    assert (tmp_path / "runs" / "photos" / "evaluation.json").exists()
    generated = tmp_path / "runs" / "photos" / "generated"
    assert list(generated.glob("last_*kimg_ema_seed0/grid.png"))


def test_the_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["experiment=quickstart", "name=demo", "total_kimg=0.1", "metrics=none"]
    assert launch("train", words) == 0
    found: dict[str, object] = {}
    for block in blocks("python"):
        exec(block, found)
    images = found["images"]
    assert tuple(images.shape) == (16, 1, 16, 16) and images.abs().max() <= 1  # type: ignore[attr-defined]


def test_the_make_commands() -> None:
    targets = [line.split()[1] for line in commands("make")]
    assert targets == ["demo", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_files_and_options_it_names() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
    table = README.split("## What there is to choose")[1].split("\n\n")[1]
    for row in table.splitlines()[2:]:
        group, options = row.strip("|").split("|")[:2]
        folders = [ROOT / "conf" / name for name in re.findall(r"`(\w+)=", group)]
        named = set(re.findall(r"`([\w.]+)`", options)) - {"metrics.jsonl"}
        assert named <= {path.stem for folder in folders for path in folder.iterdir()}, row
