"""Compose a command's config with Hydra, print its help or run it, and format errors."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from gan_lab.config import conf_dir, flatten, literal, register_resolvers, suggestion
from gan_lab.console import in_a_line
from gan_lab.errors import InputError, imported, interrupted
from gan_lab.sweeps import is_sweep, register, sweep_overrides
from gan_lab.sweeps.job import run_job

# Help

# lines for Hydra, which users do not set
HYDRA_LINES = ("defaults:", "hydra:", "# @package")
PLUMBING = "_partial_:"


def print_help(config: DictConfig) -> None:
    """Print the help of the composed command.

    The configuration files themselves are printed: their comments are what a composed configuration lacks.

    Args:
        config: that of the command, with what the command line chose.
    """
    root = HydraConfig.get().job.config_name
    assert root is not None
    command = root.replace("_", "-")
    roots = [root, *included(root)]
    print("\n\n".join(without_hydra_lines(source_of(name)) for name in roots))
    groups = sorted({*(group for name in roots for group in groups_of(name)), *chosen_groups()})
    if groups:
        print("\n\nOptions, as group=option:")
    for group in groups:
        print(f"  {group:13}{' '.join(options_of(group))}")
    for group in groups:
        for option in chosen(group, config):
            text = source_of(f"{group}/{option}")
            where = "" if "# @package _global_" in text else f", keys below {group}."
            print(f"\n\n{group}={option}{where}\n\n{without_hydra_lines(text)}")
    print(
        f"\n\ngan-lab {command} KEY=VALUE ... --help has the keys of other options;\n"
        f"gan-lab {command} KEY=VALUE ... --cfg job prints the composed configuration."
    )


def defaults_of(name: str) -> Sequence[object]:
    """Return the defaults list of a configuration file."""
    config = OmegaConf.create(source_of(name))
    defaults = config.get("defaults") if isinstance(config, DictConfig) else None
    return defaults if isinstance(defaults, ListConfig) else []


def included(name: str) -> list[str]:
    """Return the configurations that one includes, as bench includes train."""
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
    """Yield the groups in the defaults of chosen options, such as a model's conditioning."""
    for group in HydraConfig.get().runtime.choices:
        if not str(group).startswith("hydra/") and "@" not in str(group):
            yield str(group)


def options_of(group: str) -> list[str]:
    """Return the options of a group, including those in subfolders."""
    loader = GlobalHydra.instance().config_loader()
    inner = [
        f"{folder}/{option}"
        for folder in loader.list_groups(group)
        for option in options_of(f"{group}/{folder}")
    ]
    return [*loader.get_group_options(group), *inner]


def chosen(group: str, config: DictConfig) -> list[str]:
    """Return the chosen options of a group; of a list, the names of its parts."""
    choices = HydraConfig.get().runtime.choices
    if group in choices:
        return [] if choices[group] is None else [str(choices[group])]
    nodes = OmegaConf.to_container(config)
    node = nodes.get(group) if isinstance(nodes, dict) else None
    names = node if isinstance(node, dict) else {}
    return [option for name in names for option in nearest_option(group, str(name), names[name])]


def nearest_option(group: str, name: str, node: object) -> list[str]:
    """Return the option of a group that a node came from; several may set the same name, as r1 and r1_lazy."""
    found: dict[str, int] = {}
    values = flatten(node)
    for option in options_of(group):
        file = OmegaConf.to_container(OmegaConf.create(source_of(f"{group}/{option}")))
        content = file.get(group, file) if isinstance(file, dict) else {}
        if isinstance(content, dict) and name in content:
            written = flatten(content[name])
            found[option] = sum(values.get(key) == value for key, value in written.items())
    return [max(found, key=lambda option: (found[option], option == name))] if found else []


def source_of(name: str) -> str:
    """Return the text of a configuration file, the first on the search path."""
    for source in HydraConfig.get().runtime.config_sources:
        path = Path(source.path) / f"{name}.yaml"
        if source.schema == "file" and path.is_file():
            return path.read_text(encoding="utf-8")
    return ""


def without_hydra_lines(text: str) -> str:
    """Return the text of a configuration file without the lines for Hydra."""
    kept: list[str] = []
    skipping = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            skipping = line.startswith(HYDRA_LINES)
        if not skipping and not line.strip().startswith(PLUMBING):
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


# Launch


# the key whose value, or list, arguments without "=" are
POSITIONAL = {"import-weights": "path"}
LISTED = {"compare": "runs"}
# boolean keys that may be written as flags
SWITCHES = {"evaluate": ("preview", "plots"), "train": ("dry_run",)}
# Hydra's flags for help
HELP = ("--help", "-h")

SWEEP = ("-m", "--multirun")

# errors of the machine, not of the code: permission, disk space, file instead of folder, name too long
USER_ERRORS = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    }
)


def launch(command: str, overrides: list[str]) -> int:
    """Run a command; return its exit status: 0, or 2 for bad input. Defects raise."""
    module = command.replace("-", "_")
    # otherwise Hydra prints its own short message and exits
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_resolvers()
    register()
    args = expand_switches(overrides, SWITCHES.get(command, ()))
    args = collect_paths(add_key(args, POSITIONAL.get(command)), LISTED.get(command))
    args = add_plus(quote_values(flags_last(args)))
    shows_help = not set(HELP).isdisjoint(args)
    if shows_help:
        args = [arg for arg in args if arg not in (*HELP, *SWEEP)]
    messages: list[str] = []

    def task(config: DictConfig) -> object:
        try:
            if shows_help:
                print_help(config)
                return None
            keys = import_module("gan_lab.commands.keys")
            work = import_module(f"gan_lab.commands.{module}")
            imported.set()
            keys.check(module, config)
            return work.run(config)
        except (InputError, OmegaConfBaseException, OSError) as error:
            # Hydra would print all overrides before it
            messages.append(format_user_error(error, module))
            return None
        except Exception:
            # Hydra would print a traceback
            if interrupted.is_set():
                raise KeyboardInterrupt from None
            raise

    try:
        sweeping = is_sweep(command, args)
        if sweeping:  # its runs import in processes of their own
            imported.set()
        sys.argv = [f"gan-lab {command}", *(sweep_overrides(args) if sweeping else args)]
        root = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=module)
        root(run_job if sweeping else task)()
    except YAMLError as error:
        messages.append(unreadable_yaml(error))
    except (HydraException, OmegaConfBaseException) as error:
        messages.append(explain_hydra_error(error, module))
    except (InputError, OSError) as error:
        messages.append(format_user_error(error, module))
    return max([print_error(message) for message in messages], default=0)


def format_user_error(error: Exception, root: str) -> str:
    """Format an error that the user can fix; re-raise anything else."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OmegaConfBaseException):
        return explain_hydra_error(error, root)
    if isinstance(error, OSError) and error.errno in USER_ERRORS:
        where = error.filename if error.filename2 is None else error.filename2
        return f"{where or 'a file'}: {error.strerror}; choose another folder, or free disk space"
    raise error


def unreadable_yaml(error: YAMLError) -> str:
    """Return in one line what is wrong with a YAML file, and where."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return f"a configuration file cannot be read: {' '.join(str(error).split())}"
    spaces = "; indent it by spaces, not by tabs" if "\\t" in problem else ""
    return f"{mark.name}: line {mark.line + 1}, column {mark.column + 1}: {problem}{spaces}"


def print_error(message: str) -> int:
    """Print an error and return the exit status for bad input.

    Raises:
        KeyboardInterrupt: after a Ctrl-C.
    """
    if interrupted.is_set():
        raise KeyboardInterrupt
    sys.stdout.flush()
    print(f"gan-lab: error: {in_a_line(message)}", file=sys.stderr)
    return 2


def explain_hydra_error(error: Exception, root: str) -> str:
    """Return Hydra's message with the nearest right key or option where it names a wrong one."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    ambiguous = re.match(
        r"Ambiguous value for argument '(?P<key>[^=]+)=(?P<values>.*)'", str(error)
    )
    if ambiguous:
        key, values = ambiguous["key"].lstrip("+"), ambiguous["values"]
        return (
            f"{key}={values}: write {key}=[{values}] for a list, {key}='\"{values}\"' for a text with commas; "
            "-m tries one after another (gan-lab train alone)"
        )
    message = lines[0] if lines else type(error).__name__
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {message}; brackets and quotes have to be closed"
    # OmegaConf and Hydra do not name the key
    typed = ", ".join(arg for arg in sys.argv[1:] if "${" in arg)
    if isinstance(error, InterpolationResolutionError):
        return f"{error.full_key or typed}: {message}"
    if "resolving interpolation" in message and typed:
        return f"{typed}: {message.partition(',')[0]}"
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        cause = str(error.__cause__).splitlines()
        message = f"{message} ({cause[0]})" if cause and cause[0] not in message else message
    if isinstance(error, MissingMandatoryValue):
        key = message.split()[-1]
        command = root.replace("_", "-")
        return f"{key}= is missing; set it: gan-lab {command} --help describes it"
    keys = list(known_keys(root))
    if unchosen := re.match(r"Could not override '(?P<key>[^']+)'[.]", message):
        key, command = unchosen["key"], root.replace("_", "-")
        inner = ["data.root", *keys] if key == "data" else keys
        below = [f"{one}=" for one in inner if one.startswith(f"{key}.")][:1]
        there = re.search(r"Did you mean to override (?:one of )?(.+)\?", str(error))
        hint = f"; set keys below it, such as {below[0]}" if below else ""
        hint = hint or (f"; did you mean {there[1]}?" if there else "")
        if key == "device" and root in ("train", "bench"):
            hint = "; trainer=cpu, gpu or mps chooses the device of a training"
        return f"{key}= is not a choice that gan-lab {command} has{hint or suggestion(key, keys)}"
    hints = [
        suggestion(wrong, keys) for wrong in between_quotes(message) if wrong not in (root, *keys)
    ]
    hint = next((hint for hint in hints if hint), "")
    options = next(
        (i for i, line in enumerate(lines) if line.startswith("Available options")), None
    )
    if options is not None:
        indented = takewhile(lambda line: line.startswith("\t"), lines[options + 1 :])
        names = [line.strip() for line in indented]
        hint += f"; there are {', '.join(names)}"
    return message.rstrip(".") + hint if hint else "; ".join(line.strip() for line in lines)


def between_quotes(message: str) -> list[str]:
    """Return the text between single quotes."""
    return message.split("'")[1::2]


def known_keys(root: str) -> Iterator[str]:
    """Yield every key of a command's default configuration, every group, and every `group/option`."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose(root), resolve=False)
        yield from flatten(config)
        loader = GlobalHydra.instance().config_loader()
        for group in loader.list_groups(""):
            yield group
            for option in loader.get_group_options(group):
                yield f"{group}/{option}"


# Rewriting the command line for Hydra.

FLAGS_WITH_VALUE = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    *("--package", "-p", "--cfg", "-c", "--experimental-rerun"),
)

# model.generator.width=, but not hydra.job.name= and groups
BELOW = re.compile(r"(?!hydra[.])[A-Za-z_]\w*([.]\w+)+=")

FUNCTIONS = (
    *("choice", "range", "interval", "glob", "sort", "shuffle", "tag", "extend_list"),
    *("str", "int", "float", "bool", "json_str"),
)


def flags_last(args: list[str]) -> list[str]:
    """Put Hydra's flags after the overrides: it takes no override after a flag."""
    flags, overrides, rest = [], [], iter(args)
    for arg in rest:
        if not arg.startswith("-"):
            overrides.append(arg)
            continue
        flags.append(arg)
        if arg in FLAGS_WITH_VALUE:
            flags += [value for value in (next(rest, None),) if value is not None]
    return overrides + flags


def quote_values(args: list[str]) -> list[str]:
    """Quote values that Hydra cannot parse, such as `data.root=~/Bilder/été (1)`.

    A shell expands no `~` after `data.root=`, so it is expanded here.

    Args:
        args: overrides, followed by flags.
    """
    parse = OverridesParser.create().parse_override
    overrides = list(takewhile(lambda arg: not arg.startswith("-"), args))
    return [*(quote_value(arg, parse) for arg in overrides), *args[len(overrides) :]]


def quote_value(arg: str, parse: Callable[[str], Override]) -> str:
    """Quote the value of an override if Hydra cannot parse it otherwise."""
    key, equals, value = arg.partition("=")
    try:
        parsed = parse(arg)
    except HydraException:
        if not equals or is_for_hydra(value):
            return arg
        if re.match(r"~(/|$)", value):
            value = str(Path(value).expanduser())
        return f"{key}={quote(value)}"
    if not names_options(parsed) and (conf_dir() / key).is_dir():
        return f"{key}={quote(value)}"  # so that Hydra lists the options
    return arg


def is_for_hydra(value: str) -> bool:
    """Whether a value is meant as a list, dictionary, quoted text or function; not a pattern like case([0-9]+)."""
    if called := re.match(r"(\w+)\(", value):
        return bool(get_close_matches(called[1], FUNCTIONS))
    return value.startswith(("[", "{", "'", '"'))


def names_options(parsed: Override) -> bool:
    """Whether a value can be that of a group: a name, or a list of names."""
    if parsed.is_sweep_override():
        return True
    value = parsed.value()
    names = value if isinstance(value, list) else [value]
    return all(isinstance(name, str) for name in names)


def add_plus(args: list[str]) -> list[str]:
    """Prefix keys that no file lists with `+`; constructors check them later."""
    return [f"++{arg}" if BELOW.match(arg) else arg for arg in args]


def expand_switches(args: list[str], keys: tuple[str, ...]) -> list[str]:
    """Replace flags `--key` by `key=true`."""
    flags = {f"--{key.replace('_', '-')}": f"{key}=true" for key in keys}
    return [flags.get(arg, arg) for arg in args]


def add_key(args: list[str], key: str | None) -> list[str]:
    """Put `key=` before arguments without one, in quotes, since a path may hold any character."""
    if key is None:
        return args
    return [
        arg
        if "=" in arg or arg.startswith("-") or before in FLAGS_WITH_VALUE
        else f"{key}={quote_path(arg)}"
        for before, arg in zip(["", *args], args, strict=False)
    ]


def collect_paths(args: list[str], key: str | None) -> list[str]:
    """Collect arguments that are existing paths, or no overrides, in a list `key=`."""
    if key is None:
        return args
    paths: list[str] = []
    rest: list[str] = []
    for before, arg in zip(["", *args], args, strict=False):
        # a path may hold a "=", and a flag be followed by its value
        is_path = "=" not in arg and not before.startswith("-")
        is_path = (is_path and not arg.startswith("-")) or os.path.exists(arg)
        (paths if is_path else rest).append(arg)
    return [*([f"{key}=[{','.join(map(quote_path, paths))}]"] if paths else []), *rest]


def quote_path(path: str) -> str:
    """Quote a path for Hydra, literally: a folder may be called ${oc.env:TOKEN}."""
    return quote(str(literal(path)))


def quote(text: str) -> str:
    """Quote a text for Hydra."""
    # backslashes count only before a quote, the last one included
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", r"\'"), text) + "'"
