"""Six things that people will add, each one Python file and one YAML outside the package, from training to export."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gan_lab
from gan_lab.commands.generate import formats_for
from gan_lab.commands.launch import launch
from gan_lab.commands.options import check_image
from gan_lab.data.image_folder import Zip
from gan_lab.data.images import save_png
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.training.augment.diffaugment import DiffAugment
from gan_lab.training.loggers.files import read_metrics

HERE = Path(__file__).parent
SHORT = (
    "batch_size=16",
    "total_kimg=0.64",
    "callbacks.training_log.every_kimg=0.16",
    "callbacks.samples.every_kimg=0.32",
    "callbacks.samples.rows=2",
    "callbacks.samples.columns=4",
    "callbacks.evaluation.every_kimg=0.32",
    "callbacks.checkpointing.every_kimg=0.16",
    "trainer=cpu",
)


def train_and_exit(overrides: list[str]) -> None:
    sys.exit(launch("train", overrides))


@dataclass(frozen=True)
class Probe:
    """One of them, in a folder of its own.

    Attributes:
        name: of its module and of its YAML.
        root: the folder.
    """

    name: str
    root: Path

    def overrides(self, run: str) -> list[str]:
        flags = ["--config-dir", f"{self.root}/conf"]
        return [f"model={self.name}", *SHORT, f"runs_dir={self.root}/runs", f"name={run}", *flags]

    def train(self, run: str) -> Path:
        assert launch("train", self.overrides(run)) == 0
        return self.root / "runs" / run

    def train_killed(self, run: str) -> Path:
        """Train in a child process that is killed after its first checkpoint, and resume here."""
        last = self.root / "runs" / run / "checkpoints" / "last.ckpt"
        child = multiprocessing.get_context("fork").Process(
            target=train_and_exit, args=(self.overrides(run),)
        )
        child.start()
        deadline = time.monotonic() + 90
        while child.is_alive() and not last.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert child.is_alive(), "the run was over before it could be killed"
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert torch.load(last, weights_only=True)["clock"]["images_seen"] < 640
        return self.train(run)

    def do(self, command: str, *overrides: str) -> None:
        assert launch(command, [*overrides, f"trust=[{self.name}]", "device=cpu"]) == 0

    def through(self, *options: str) -> tuple[Path, Gan, Path]:
        """Train, export and generate; return the run, the exported generator, and the folder of samples."""
        straight, run = self.train("straight"), self.train_killed("killed")
        states = [
            torch.load(each / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for each in (straight, run)
        ]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
        for grid in ("reals.png", "kimg000000.640.png"):
            with Image.open(run / "samples" / grid) as image:
                assert image.width > 4
        made = self.root / "made"
        self.do("generate", f"run={run}", "num_images=5", f"out={made}", *options)
        out = self.root / "exported"
        overrides = [f"run={run}", f"out={out}", f"trust=[{self.name}]"]
        assert launch("export", [*overrides, *(o for o in options if o.startswith("source="))]) == 0
        assert (out / "grid.png").exists() and (out / "README.md").exists()
        gan = gan_lab.load(out, trust=[self.name])
        self.do("evaluate", f"run={run}")
        (result,) = json.loads((run / "evaluation.json").read_text())
        (metric,) = result["metrics"]
        logged = read_metrics(run / "metrics.jsonl")
        name = f"metrics/{metric['key']}"
        last = [line[name] for line in logged if name in line]
        assert last and all(value >= 0 for value in last)
        return run, gan, made


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Probe]:
    """Copy the two files of a probe to a folder of a user."""

    def placed(name: str) -> Probe:
        for folder, suffix in (("code", "py"), ("conf/model", "yaml")):
            (tmp_path / folder).mkdir(parents=True)
            shutil.copy(HERE / f"{name}.{suffix}", tmp_path / folder)
        monkeypatch.syspath_prepend(tmp_path / "code")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return Probe(name, tmp_path)

    return placed


def module(name: str) -> Any:
    """Return a probe's module."""
    return sys.modules[name]


def test_waveforms(probe: Callable[[str], Probe]) -> None:
    _, gan, made = probe("waveforms").through()
    files = sorted(made.glob("*.wav"))
    assert len(files) == 5
    expected = gan.spec.decode(gan.sample(5, seed=0))
    assert expected.shape == (5, 1, 32) and expected.dtype == torch.int16
    for file, samples in zip(files, expected, strict=True):
        assert (gan.spec.kind.read(file).int() - samples.int()).abs().max() <= 1
    assert Image.open(made / "grid.png").height > module("waveforms").HEIGHT


def test_patches_with_a_reconstruction(probe: Callable[[str], Probe]) -> None:
    run, gan, made = probe("patches").through()
    keys = {key for line in read_metrics(run / "metrics.jsonl") for key in line}
    assert "loss/d_reconstruction_real" in keys
    assert not keys & {"loss/d_reconstruction_fake", "loss/g_reconstruction"}
    assert gan.sample(2).shape == (2, 1, 8, 8) and len(list(made.glob("seed*.png"))) == 5


def test_words(probe: Callable[[str], Probe]) -> None:
    _, gan, made = probe("words").through("format=[files,grid,npz,latents]")
    kind = gan.spec.kind
    expected = [kind.text(one) for one in gan.spec.decode(gan.sample(5, seed=0))]  # type: ignore[attr-defined]
    assert [file.read_text().strip() for file in sorted(made.glob("*.txt"))] == expected
    assert np.load(made / "images.npz")["samples"].shape == (5, 8, 6)
    with pytest.raises(InputError, match="format=png"):
        formats_for(["png"], gan, scale=1)
    with pytest.raises(InputError, match="text"):
        check_image(gan, "explore")
    with pytest.raises(InputError, match="DiffAugment"):
        DiffAugment().check(gan.spec)


def test_attributes(probe: Callable[[str], Probe]) -> None:
    run, gan, made = probe("attributes").through(
        "labels={width: 0.5}", "format=[files,latents,zip]"
    )
    given = gan.read_latents(made / "latents.safetensors").labels
    drawn = gan.labels(5)
    assert given is not None and drawn is not None
    assert given[:, 0].tolist() == [0.5] * 5 and torch.equal(given[:, 1], drawn[:, 1])
    assert len(drawn.unique(dim=0)) > 1
    assert not torch.equal(gan.sample(2, labels=[0.9, 1.0]), gan.sample(2, labels=[-0.9, -1.0]))
    assert len(list(made.glob("seed*.png"))) == 5
    again = Zip(split="train", root=made / "images.zip")
    assert again.spec.attributes == ("width", "brightness")
    assert torch.equal(torch.from_numpy(again.labels), given)
    (result,) = json.loads((run / "evaluation.json").read_text())
    assert "all 96 rows" in result["fake"]["labels"]
    assert "64 rows" in str(gan.labels_drawn)


def test_stages(probe: Callable[[str], Probe]) -> None:
    _, gan, made = probe("stages").through()
    z = gan.latents(2)
    halves, images = gan.generator(z.values)
    assert halves.shape == (2, 1, 4, 4)
    torch.testing.assert_close(gan.synthesize(z), images)
    assert len(list(made.glob("seed*.png"))) == 5


def test_pairs(probe: Callable[[str], Probe], tmp_path: Path) -> None:
    given = [torch.full((1, 8, 8), value, dtype=torch.uint8) for value in (0, 128, 255)]
    for i, image in enumerate(given):
        save_png(image, tmp_path / "sources" / f"{i}.png")
    run, gan, made = probe("pairs").through(f"source={tmp_path}/sources")
    assert "loss/g_l1" in {key for line in read_metrics(run / "metrics.jsonl") for key in line}
    assert len(list(made.glob("seed*.png"))) == 5
    with pytest.raises(InputError, match="source="):
        gan.sample(1)
    drawn = gan.with_sources(torch.stack(given)).latents(5)
    assert drawn.source is not None and drawn.source[:, 0, 0, 0].tolist() == [0, 128, 255, 0, 128]
