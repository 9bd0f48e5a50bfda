"""prepare-data, called as the command line calls it."""

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from gan_lab.commands import prepare_data
from gan_lab.config import conf_dir


def config(*overrides: object) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("prepare_data", overrides=[str(override) for override in overrides])


def prepare(*overrides: object) -> None:
    prepare_data.run(config(*overrides))
