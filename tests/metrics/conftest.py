import functools

import pytest

from gan_lab.data.builtin import Digits
from gan_lab.data.datamodule import DataModule


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """One cache for the session's tests, and none of the user's."""
    folder = tmp_path_factory.getbasetemp() / "metrics_cache"
    monkeypatch.setenv("GAN_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def datamodule():
    """Makes a datamodule of a dataset's partial."""
    return functools.partial(
        DataModule, batch_size=8, d_steps=1, total_images=8, seed=0, num_workers=0
    )


@pytest.fixture(scope="session")
def digits_data(datamodule):
    return datamodule(dataset=functools.partial(Digits, image_size=16))
