"""What every command does again is done once a session: composing the package's files, and enlarging the digits."""

import pickle
from copy import copy
from dataclasses import replace
from typing import Any

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra._internal.hydra import Hydra
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig
from torch import Tensor

from gan_lab.config import conf_dir
from gan_lab.data.base import MemoryImages, digest


def only_own_files(repo: IConfigRepository) -> bool:
    """Whether the search path leads to files of the package alone, which do not change during the tests."""
    paths = [source.path for source in repo.get_sources() if source.scheme() == "file"]
    return paths == [str(conf_dir())]


def compose_once(patch: pytest.MonkeyPatch) -> None:
    """Keep what Hydra reads and merges of the package's files, as functions of the options that were chosen.

    Values on the command line are set on a copy, by Hydra, as always; errors are not kept.
    """
    list_defaults = config_loader_impl.create_defaults_list
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    parse = OverridesParser.parse_rule
    load = ConfigRepository.load_config
    get_mode = Hydra.get_mode
    lists: dict[object, DefaultsList] = {}
    merged: dict[object, bytes] = {}  # pickled, since a deep copy takes longer
    parsed: dict[str, Override] = {}
    loaded: dict[str, bytes] = {}

    def defaults_once(
        repo: IConfigRepository,
        config_name: str | None,
        overrides_list: list[Override],
        **settings: bool,
    ) -> DefaultsList:
        values, options = [], []
        for override in overrides_list:
            is_option = override.is_sweep_override() or repo.group_exists(override.key_or_group)
            (options if is_option else values).append(override)
        key = (config_name, *(o.input_line for o in options), *settings.items())
        if not only_own_files(repo) or any(isinstance(o.value(), dict) for o in options):
            return list_defaults(repo, config_name, overrides_list, **settings)
        if key not in lists:
            lists[key] = list_defaults(repo, config_name, options, **settings)
        return replace(lists[key], config_overrides=values)

    def merged_once(
        self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        if not only_own_files(repo):
            return merge(self, defaults, repo)
        key = tuple((d.config_path, d.package, d.is_self, d.primary) for d in defaults)
        if key not in merged:
            merged[key] = pickle.dumps(merge(self, defaults, repo))
        copied: DictConfig = pickle.loads(merged[key])
        return copied

    def parsed_once(self: OverridesParser, s: str, rule_name: str) -> Any:
        if rule_name != "override":
            return parse(self, s, rule_name)
        if s not in parsed:
            found = parse(self, s, rule_name)
            if found.is_sweep_override():  # which may shuffle
                return found
            parsed[s] = found
        return copy(parsed[s])

    def loaded_once(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        if not only_own_files(self):
            return load(self, config_path)
        if config_path not in loaded:
            loaded[config_path] = pickle.dumps(load(self, config_path))
        copied: ConfigResult | None = pickle.loads(loaded[config_path])
        return copied

    def mode(self: Hydra, config_name: str | None, overrides: list[str]) -> object:
        # composes everything to find hydra.mode, which no file of the package sets
        own = only_own_files(self.config_loader.repository)  # type: ignore[attr-defined]
        asked = any("hydra" in word for word in overrides)
        return None if own and not asked else get_mode(self, config_name, overrides)

    patch.setattr(Hydra, "get_mode", mode)
    patch.setattr(config_loader_impl, "create_defaults_list", defaults_once)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged_once)
    patch.setattr(OverridesParser, "parse_rule", parsed_once)
    patch.setattr(ConfigRepository, "load_config", loaded_once)


def transform_once(patch: pytest.MonkeyPatch) -> None:
    """Keep images that are held in memory, as functions of the pixels and the transform."""
    transform = MemoryImages._transform_all
    kept: dict[str, Tensor] = {}

    def transformed_once(self: MemoryImages) -> Tensor:
        if type(self).load is not MemoryImages.load:
            return transform(self)
        key = digest(self._pixels.shape, self._pixels.tobytes(), self._transform)
        if key not in kept:
            kept[key] = transform(self)
        return kept[key].clone()

    patch.setattr(MemoryImages, "_transform_all", transformed_once)
