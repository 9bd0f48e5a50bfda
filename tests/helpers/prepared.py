"""prepare-data, called as the command line calls it."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from gan_lab.commands import prepare_data
from gan_lab.config import conf_dir
from tests.helpers.once import make_once


def config(*overrides: object) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("prepare_data", overrides=[str(override) for override in overrides])


def prepare(*overrides: object) -> None:
    prepare_data.run(config(*overrides))


def packed_digits(factory: pytest.TempPathFactory) -> Path:
    """Return the digits in 15 shards for training and 4 for validation, of about 44 kB each; tests only read them."""

    def pack(root: Path) -> None:
        prepare("data=digits", f"out={root / 'digits'}", "shard_mb=0.0256")

    return make_once(factory, "shards", pack) / "digits"
