"""metrics=auto: what suits the data, and no run stopped for figures that nobody asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.digits import Digits
from gan_lab.data.image_folder import ImageFolder
from gan_lab.metrics.auto import MetricsByData
from gan_lab.metrics.digits import DigitsMetrics
from gan_lab.metrics.inception import InceptionMetrics
from gan_lab.metrics.stacked_digits import StackedDigitsMetrics


def data_of(make: object) -> ImageDataModule:
    return ImageDataModule(
        dataset=make, batch_size=4, d_steps=1, total_images=4, seed=0, num_workers=0
    )  # type: ignore[arg-type]


def auto() -> MetricsByData:
    return MetricsByData(
        digits=DigitsMetrics(), stacked_digits=StackedDigitsMetrics(), other=InceptionMetrics()
    )


def test_digits() -> None:
    metrics = auto()
    assert metrics.best is None
    metrics.prepare(
        data_of(lambda split, flip=False: Digits(split=split, flip=flip, image_size=16))
    )
    assert (metrics.best, metrics.mode) == ("fd_digits", "min")
    assert metrics.protocol["num_images"] == 1437


def test_too_few_pictures_for_fid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    metrics = auto()
    metrics.prepare(
        data_of(lambda split, flip=False: ImageFolder(root=str(tmp_path), split=split, flip=flip))
    )
    assert "training goes on without these figures" in capsys.readouterr().out
    assert metrics.best is None and metrics.compute(lambda count: iter(())) == {}
