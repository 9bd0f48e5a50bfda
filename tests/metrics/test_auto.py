"""metrics=auto: metrics by the data, and no run aborted by default metrics."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from gan_lab.config import build, conf_dir
from gan_lab.data.builtin import Digits, StackedDigits
from gan_lab.data.datamodule import DataModule
from gan_lab.data.image_folder import ImageFolder
from gan_lab.errors import InputError
from gan_lab.metrics.base import MetricsByData, NoMetrics


def data_of(make: object) -> DataModule:
    return DataModule(
        dataset=make,  # type: ignore[arg-type]
        batch_size=4,
        d_steps=1,
        total_images=4,
        seed=0,
        num_workers=0,
    )


@pytest.fixture
def auto() -> MetricsByData:
    with initialize_config_dir(version_base=None, config_dir=str(conf_dir())):
        metrics: MetricsByData = build(compose(overrides=["+metrics=auto"]).metrics)
    return metrics


def test_digits(auto: MetricsByData) -> None:
    assert auto.best is None
    auto.prepare(data_of(lambda split, flip=False: Digits(split=split, flip=flip, image_size=16)))
    assert (auto.best, auto.mode) == ("fd_digits", "min")
    assert auto.provenance["num_images"] == 1437


def test_stacked_digits(auto: MetricsByData) -> None:
    auto.prepare(
        data_of(lambda split, flip=False: StackedDigits(split=split, flip=flip, num_images=99))
    )
    assert auto.best == "kl_modes"


def test_too_few_images_for_fid(
    auto: MetricsByData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    auto.prepare(
        data_of(lambda split, flip=False: ImageFolder(root=str(tmp_path), split=split, flip=flip))
    )
    # Inception's weights may be here
    said = {None: "warning", "kid2k_full": "takes kid2k_full"}
    assert said[auto.best] in capsys.readouterr().out


class Small(NoMetrics):
    """Metrics that take any data."""

    def __init__(self) -> None:
        super().__init__()
        self.best = "kid"


class Picky(NoMetrics):
    """Metrics that take none."""

    def prepare(self, data: DataModule) -> None:
        raise InputError("too few; give more")


def test_few_images_are_measured_by_kid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    data = data_of(lambda split, flip=False: ImageFolder(root=str(tmp_path), split=split))
    kinds = {"digits": NoMetrics(), "stacked_digits": NoMetrics(), "text": NoMetrics()}
    for other, best, said in [(Picky(), "kid", "takes kid: too few"), (NoMetrics(), None, "")]:
        metrics = MetricsByData(**kinds, other=other, small=Small())
        metrics.prepare(data)
        assert metrics.best == best and said in capsys.readouterr().out
    metrics = MetricsByData(**kinds, other=Picky(), small=Picky())
    metrics.prepare(data)
    assert metrics.best is None and "goes on without" in capsys.readouterr().out
