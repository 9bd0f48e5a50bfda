"""Caches of a test session, shared by all workers: composed configs, enlarged digits, runs to read."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
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


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all workers of this session share."""
    root = factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Make a folder that tests only read; the first worker makes it, others wait."""
    folder = shared_folder(factory) / "once" / name
    folder.parent.mkdir(exist_ok=True)
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


class Pickles:
    """Pickled values by key, in memory and in a folder that the workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._values: dict[object, bytes] = {}
        folder.mkdir(exist_ok=True)

    def get(self, key: object, make: Callable[[], object]) -> bytes:
        """Return a cached value, or make it; `key` is of texts, numbers and tuples."""
        if key not in self._values:
            path = self._folder / hashlib.sha256(repr(key).encode()).hexdigest()
            if not path.exists():
                self._values[key] = pickle.dumps(make())
                with suppress(OSError):  # a test may have filled its disk
                    part = path.with_suffix(f".{os.getpid()}")
                    part.write_bytes(self._values[key])
                    part.rename(path)
            else:
                self._values[key] = path.read_bytes()
        return self._values[key]


def only_own_files(repo: IConfigRepository) -> bool:
    """Whether the search path has only files of the package, which do not change during the tests."""
    paths = [source.path for source in repo.get_sources() if source.scheme() == "file"]
    return paths == [str(conf_dir())]


def compose_once(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Cache the configs that Hydra composes of the package's files, by the chosen options.

    Values on the command line are set on a copy, by Hydra, as always; errors are not kept.
    """
    list_defaults = config_loader_impl.create_defaults_list
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    parse = OverridesParser.parse_rule
    load = ConfigRepository.load_config
    get_mode = Hydra.get_mode
    lists: dict[object, DefaultsList] = {}
    # pickled, which takes less time than a deep copy
    composed = Pickles(folder)
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
            found = composed.get(
                ("defaults", *key), lambda: list_defaults(repo, config_name, options, **settings)
            )
            lists[key] = pickle.loads(found)
        return replace(lists[key], config_overrides=values)

    def merged_once(
        self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        if not only_own_files(repo):
            return merge(self, defaults, repo)
        key = tuple((d.config_path, d.package, d.is_self, d.primary) for d in defaults)
        copied: DictConfig = pickle.loads(composed.get(key, lambda: merge(self, defaults, repo)))
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
        explicit = any("hydra" in word for word in overrides)
        return None if own and not explicit else get_mode(self, config_name, overrides)

    patch.setattr(Hydra, "get_mode", mode)
    patch.setattr(config_loader_impl, "create_defaults_list", defaults_once)
    patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged_once)
    patch.setattr(OverridesParser, "parse_rule", parsed_once)
    patch.setattr(ConfigRepository, "load_config", loaded_once)


def transform_once(patch: pytest.MonkeyPatch) -> None:
    """Cache transformed in-memory images, by pixels and transform."""
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
