"""Help of a command: its keys with their comments, the options, and the keys of chosen ones."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from gan_lab.config import flatten

# what Hydra is told, and what no user sets
UNSAID = ("defaults:", "hydra:", "# @package")
PLUMBING = "_partial_:"


def print_manual(config: DictConfig) -> None:
    """Print the help of the composed command.

    The configuration files themselves are printed: their comments are what a composed configuration lacks.

    Args:
        config: that of the command, with what the command line chose.
    """
    root = HydraConfig.get().job.config_name
    assert root is not None
    command = root.replace("_", "-")
    roots = [root, *included(root)]
    print("\n\n".join(said(source_of(name)) for name in roots))
    groups = sorted({*(group for name in roots for group in groups_of(name)), *chosen_groups()})
    if groups:
        print("\n\nWhat there is to choose, as group=option:")
    for group in groups:
        print(f"  {group:13}{' '.join(options_of(group))}")
    for group in groups:
        for option in chosen(group, config):
            text = source_of(f"{group}/{option}")
            where = "" if "# @package _global_" in text else f", keys below {group}."
            print(f"\n\n{group}={option}{where}\n\n{said(text)}")
    print(
        f"\n\ngan-lab {command} KEY=VALUE ... --help has the keys of other options;\n"
        f"gan-lab {command} KEY=VALUE ... --cfg job prints the configuration that these words make."
    )


def defaults_of(name: str) -> Sequence[object]:
    """Return the defaults list of a configuration file."""
    config = OmegaConf.create(source_of(name))
    listed = config.get("defaults") if isinstance(config, DictConfig) else None
    return listed if isinstance(listed, ListConfig) else []


def included(name: str) -> list[str]:
    """Return the whole configurations that one begins from, such as train's of bench's."""
    return [
        str(entry) for entry in defaults_of(name) if isinstance(entry, str) and entry != "_self_"
    ]


def groups_of(name: str) -> Iterator[str]:
    """Yield the groups that a configuration chooses from."""
    for entry in defaults_of(name):
        if isinstance(entry, DictConfig):
            group = str(next(iter(entry)))
            if not group.startswith("override "):
                yield group


def chosen_groups() -> Iterator[str]:
    """Yield the groups that chosen options choose from in turn, such as a model's conditioning."""
    for group in HydraConfig.get().runtime.choices:
        if not str(group).startswith("hydra/") and "@" not in str(group):
            yield str(group)


def options_of(group: str) -> list[str]:
    """Return the options of a group, those in folders of it included."""
    loader = GlobalHydra.instance().config_loader()
    inner = [
        f"{folder}/{option}"
        for folder in loader.list_groups(group)
        for option in options_of(f"{group}/{folder}")
    ]
    return [*loader.get_group_options(group), *inner]


def chosen(group: str, config: DictConfig) -> list[str]:
    """Return the options of a group that were chosen; those of a list are the names of its parts."""
    choices = HydraConfig.get().runtime.choices
    if group in choices:
        return [] if choices[group] is None else [str(choices[group])]
    nodes = OmegaConf.to_container(config)
    node = nodes.get(group) if isinstance(nodes, dict) else None
    names = node if isinstance(node, dict) else {}
    return [option for name in names for option in nearest_option(group, str(name), names[name])]


def nearest_option(group: str, name: str, node: object) -> list[str]:
    """Return the option of a group that a node came from: several may be called by one name, as r1 and r1_lazy are."""
    found: dict[str, int] = {}
    values = flatten(node)
    for option in options_of(group):
        file = OmegaConf.to_container(OmegaConf.create(source_of(f"{group}/{option}")))
        held = file.get(group, file) if isinstance(file, dict) else {}
        if isinstance(held, dict) and name in held:
            written = flatten(held[name])
            found[option] = sum(values.get(key) == value for key, value in written.items())
    return [max(found, key=lambda option: (found[option], option == name))] if found else []


def source_of(name: str) -> str:
    """Return the text of a configuration file, the first that the search path has."""
    for source in HydraConfig.get().runtime.config_sources:
        path = Path(source.path) / f"{name}.yaml"
        if source.schema == "file" and path.is_file():
            return path.read_text(encoding="utf-8")
    return ""


def said(text: str) -> str:
    """Return the text of a configuration file without what only Hydra reads."""
    kept: list[str] = []
    skipping = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            skipping = line.startswith(UNSAID)
        if not skipping and not line.strip().startswith(PLUMBING):
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
