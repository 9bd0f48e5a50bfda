"""Every command and every piece of Python in the README runs."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lab.commands.launch import launch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# the same commands, over in seconds
SHORT = {
    "train": ["total_kimg=0.1", "callbacks.samples.columns=2", "metrics=none", "num_workers=0"],
    "evaluate": ["metrics.num_images=80", "metrics.width=64", "metrics.with_score=false"],
    "generate": ["num_images=4"],
    "prepare-data": [],
}


def blocks(language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(program: str) -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


def photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inception_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    lines = commands("gan-lab")
    assert {shlex.split(line)[1] for line in lines} == set(SHORT)
    for line in lines:
        command, *words = shlex.split(line)[1:]
        words = [word for word in words if not word.startswith(("total_kimg=", "num_images="))]
        if command == "evaluate":
            words.append(f"metrics.inception_weights={inception_file}")
        small = (
            ["model.generator.width=8", "model.discriminator.width=8", "batch_size=8"]
            if command == "train"
            else []
        )
        if any(word.startswith("micro_batch_size") for word in words):
            words = ["micro_batch_size=2" if w.startswith("micro_batch_size") else w for w in words]
        words = [word for word in words if not word.startswith("batch_size")]
        assert launch(command, [*words, *small, *SHORT[command]]) == 0, line
    assert (tmp_path / "runs" / "photos" / "evaluation.json").exists()
    assert (tmp_path / "runs" / "photos" / "generated" / "last_ema_seed0" / "grid.png").exists()


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
        folder = ROOT / "conf" / re.findall(r"`(\w+)=", group)[0]
        named = set(re.findall(r"`([\w.]+)`", options)) - {"metrics.jsonl"}
        assert named <= {path.stem for path in folder.iterdir()}, row
