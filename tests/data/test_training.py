"""A run on each published format, from the command line to a grid."""

from pathlib import Path
from typing import Any

import pytest

from gan_lab import load
from gan_lab.commands.launch import launch
from gan_lab.sampling.gan import Gan
from tests.helpers.zips import NAMES, write_zip


def train(root: Path, *overrides: str) -> Gan:
    small = ["model=gan", "model.generator.width=8", "model.discriminator.width=4", "batch_size=4"]
    status = launch(
        "train",
        [*small, *overrides, "data.image_size=8", "total_kimg=0.008", "metrics=none", f"runs_dir={root}/runs",
         "name=run", "num_workers=0", "callbacks.samples.columns=2"],
    )  # fmt: skip
    assert status == 0
    assert (root / "runs" / "run" / "samples" / "reals.png").exists()
    return load(root / "runs" / "run")


def test_celeba(celeba: Path, tmp_path: Path) -> None:
    gan = train(tmp_path, "data=celeba", f"data.root={celeba}", "data.attribute=Smiling")
    assert gan.class_names == ["not Smiling", "Smiling"] and sum(gan.class_counts) == 4


def test_lsun(lsun: Path, tmp_path: Path) -> None:
    gan = train(tmp_path, "data=lsun", f"data.root={lsun}")
    assert gan.num_classes == 2 and gan.class_counts == [7, 5]


def test_cifar10(published: Any, tmp_path: Path) -> None:
    gan = train(tmp_path, "data=cifar10", f"data.root={published[0].parent}")
    assert gan.num_classes == 10 and sum(gan.class_counts) == 5 + 6 + 7 + 8 + 9


def test_zip(tmp_path: Path) -> None:
    write_zip(tmp_path / "x.zip", {"labels": [[name, i % 3] for i, name in enumerate(NAMES)]})
    gan = train(tmp_path, "data=zip", f"data.root={tmp_path}/x.zip")
    assert gan.num_classes == 3 and gan.class_counts == [4, 3, 3]
    assert gan.sample(2, labels=[0, 2]).shape == (2, 3, 8, 8)


def test_one_class_is_unconditional(tmp_path: Path) -> None:
    write_zip(tmp_path / "x.zip")
    assert train(tmp_path, "data=zip", f"data.root={tmp_path}/x.zip").num_classes == 0
    overrides = [
        "data=zip",
        f"data.root={tmp_path}/x.zip",
        "data.image_size=8",
        "conditional=true",
        f"runs_dir={tmp_path}",
    ]
    assert launch("train", overrides) == 2


@pytest.mark.parametrize("overrides", [(), ("conditional=false",)])
def test_labels_are_used_where_there_are_some(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    write_zip(tmp_path / "x.zip", {"labels": [[name, i % 3] for i, name in enumerate(NAMES)]})
    gan = train(tmp_path, "data=zip", f"data.root={tmp_path}/x.zip", *overrides)
    assert gan.num_classes == (0 if overrides else 3)
