"""Metrics of an encoder against scikit-learn, and the files of a run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

import gan_lab
from gan_lab.data.builtin import Digits
from gan_lab.data.datamodule import DataModule
from gan_lab.errors import InputError
from gan_lab.training.callbacks.samples import Reconstructions, in_turn
from tests.commands.conftest import TINY, Train, entries, train
from tests.helpers.samples import pair

__all__ = ["train"]

BIGAN = (
    *(word for word in TINY if not word.startswith(("model", "metrics"))),
    "metrics=none",
    "model=bigan",
    "model.generator.width=4",
    "model.generator.encoder_width=4",
    "model.generator.z_dim=6",
    "model.discriminator.width=4",
    "model.discriminator.code_width=8",
    "callbacks.reconstructions.every_kimg=0.1",
    "callbacks.reconstructions.max_images=100",
)


class Exact(nn.Module):
    """An encoder that halves pixels, and a generator that doubles codes."""

    z_dim, num_classes = 64, 0

    def encode(self, images: Tensor) -> Tensor:
        return images.flatten(1) / 2

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return 2 * z.unflatten(1, (1, 8, 8))


class First(Exact):
    """Codes of the upper half alone."""

    def encode(self, images: Tensor) -> Tensor:
        return torch.cat([images.flatten(1)[:, :32], torch.zeros(len(images), 32)], dim=1)


def module_of(generator: nn.Module) -> Any:
    return SimpleNamespace(generator_ema=generator, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def digits() -> DataModule:
    def dataset(*, split: str, flip: bool = False) -> Digits:
        return Digits(split=split, image_size=8, flip=flip)

    return DataModule(dataset=dataset, batch_size=8, d_steps=1, total_images=8, seed=0)


def neighbors(digits: DataModule, pixels: slice) -> float:
    assert digits.val is not None
    sets = []
    for split in (digits.train, digits.val):
        images, labels = pair(split.__getitems__(range(len(split))))
        sets.append((images.flatten(1)[:, pixels].numpy().astype(float), labels.numpy()))
    return KNeighborsClassifier(1).fit(*sets[0]).score(*sets[1])


def test_metrics_of_a_known_encoder(digits: DataModule, tmp_path: Path) -> None:
    callback = Reconstructions(run_dir=tmp_path, every_kimg=1)
    metrics = callback.measure(module_of(Exact()), digits)
    expected = neighbors(digits, slice(0, 64))
    assert metrics == {
        "encoder/error": pytest.approx(0, abs=1e-12),
        "encoder/accuracy_codes": pytest.approx(expected, abs=0.003),
        "encoder/accuracy_pixels": pytest.approx(expected, abs=0.003),
    }


def test_metrics_of_an_encoder_that_leaves_things_out(digits: DataModule, tmp_path: Path) -> None:
    callback = Reconstructions(run_dir=tmp_path, every_kimg=1)
    metrics = callback.measure(module_of(First()), digits)
    assert metrics["encoder/accuracy_codes"] == pytest.approx(
        neighbors(digits, slice(0, 32)), abs=0.003
    )
    assert digits.val is not None
    images, _ = pair(digits.val.__getitems__(range(len(digits.val))))
    pixels = images.flatten(1).double() / 127.5 - 1
    # the upper half comes back doubled, the lower one as 0
    expected = pixels.square().mean()
    assert metrics["encoder/error"] == pytest.approx(float(expected), rel=1e-5)


def test_classes_take_turns() -> None:
    labels = np.array([2, 2, 0, 0, 0, 1])
    assert in_turn(labels).tolist() == [2, 5, 0, 3, 1, 4]


def test_a_run_has_its_grids_and_metrics(train: Train) -> None:
    run = train("conditional=false", base=BIGAN)
    grids = sorted((run / "samples").glob("reconstructions_*.png"))
    assert [path.stem for path in grids] == [
        "reconstructions_kimg000000.112", "reconstructions_kimg000000.208"
    ]  # fmt: skip
    # ten rows and columns of 8 pixels with 2 between them
    assert Image.open(grids[-1]).size == (102, 102)
    metrics = [entry for entry in entries(run) if "encoder/error" in entry]
    assert len(metrics) == 2
    assert all(0 <= entry["encoder/accuracy_codes"] <= 1 for entry in metrics)
    generator = gan_lab.load(run).generator
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    codes = generator.encode(images)  # type: ignore[operator]
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert codes.shape == (5, 6)
    assert torch.equal(
        generator.state_dict()["encoder.1.bias"], state["generator_ema.encoder.1.bias"]
    )
    # evaluation mode: a code does not depend on the images beside it
    torch.testing.assert_close(generator.encode(images[:1]), codes[:1])  # type: ignore[operator]


def test_with_classes_the_reconstructions_get_labels(train: Train) -> None:
    run = train("conditional=true", base=BIGAN)
    assert gan_lab.load(run).num_classes == 10
    assert len(list((run / "samples").glob("reconstructions_*.png"))) == 2


def test_a_run_that_was_stopped_goes_on_bit_by_bit(train: Train) -> None:
    straight = train(base=BIGAN, name="straight")
    train("total_kimg=0.1", base=BIGAN, name="stopped")
    stopped = train(base=BIGAN, name="stopped")
    ours, theirs = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (stopped, straight)
    )
    assert any(name.startswith("generator_ema.encoder.") for name in theirs)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rows=3 must be even"):
        Reconstructions(run_dir=tmp_path, every_kimg=1, rows=3)
    with pytest.raises(InputError, match="every_kimg=0"):
        Reconstructions(run_dir=tmp_path, every_kimg=0)


def test_a_generator_without_an_encoder_is_rejected(tmp_path: Path) -> None:
    callback = Reconstructions(run_dir=tmp_path, every_kimg=1)
    with pytest.raises(InputError, match="use model=bigan"):
        callback.on_fit_start(SimpleNamespace(), module_of(nn.Linear(1, 1)))  # type: ignore[arg-type]
