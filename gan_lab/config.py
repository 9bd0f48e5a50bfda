"""Configs: their folder, run names, reading files safely, and building classes from them."""

import hashlib
import inspect
import json
import os
import re
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Never,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import SchemaError

from gan_lab.errors import InputError, first_line

# how, where and how long, not what is trained: these do not change the run's name
NOT_IN_THE_NAME = (
    "name",
    "runs_dir",
    "total_kimg",
    "logger",
    "trainer",
    "callbacks",
    "metrics",
    "num_workers",
    "hydra",
    "threads",
    "rank_timeout",
    "compile",
    "dry_run",
    "new_data",
    "data_fingerprint",
    "sweep",
    "swept_keys",
    "objective",
    "objective_mode",
)
CHOICES = ("experiment", "model", "data", "loss", "regularizer", "augment")
# a file name has at most 255 bytes
LONGEST_NAME = 120

# limits for configs from an untrusted source
MOST_BYTES = 4 * 2**20
MOST_EVENTS = 500_000
MOST_DEPTH = 64
LARGEST_INTEGER = 2**64  # seeds are the largest integers in our files
LARGEST_ARGUMENT = 10**8

# descriptions of data in run folders and exports
ClassNames = list[str]
ClassCounts = list[Annotated[int, Field(ge=0, le=2**48)]]
Count = Annotated[int, Field(ge=1, le=10**6)]

MISSING = "???"
LENIENT = ConfigDict(arbitrary_types_allowed=True)


def conf_dir() -> Path:
    """Return the folder of configurations: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").exists():
            return folder
    raise InputError(f"no conf/ beside or in {package}; reinstall gan_lab")


def cache_dir() -> Path:
    """Return the cache folder for statistics and small networks: GAN_LAB_CACHE, or the user's."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("GAN_LAB_CACHE") or base / "gan_lab")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_name(overrides: Sequence[str], swept_keys: Sequence[str] = ()) -> str:
    """Name a run by its overrides, so that the same command finds its folder again.

    `["model=dcgan", "loss=hinge", "model.generator.width=64"]` gives `dcgan_hinge_model.generator.width-64`. The end
    of a long name is replaced by a hash.

    Args:
        overrides: `key=value`, as on the command line.
        swept_keys: keys that differ within a sweep; then the name is made of these alone.
    """
    parts = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        unnamed = key.split(".")[0].split("/")[0] in NOT_IN_THE_NAME
        if key not in swept_keys if swept_keys else unnamed:
            continue
        value = re.sub(r"[^\w.,+-]+", "-", value).strip("-")
        parts.append(value if key in CHOICES else f"{key.replace('/', '.')}-{value}")
    name = "_".join(parts) or "default"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def register_resolvers() -> None:
    """Register the resolvers `${run_name:keys}` and `${path:a,b}`."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver(
        "run_name",
        lambda swept_keys=(): run_name(HydraConfig.get().overrides.task, swept_keys),
        replace=True,
    )
    # parts that are null are skipped
    OmegaConf.register_new_resolver(
        "path",
        lambda *parts: str(Path(*(str(part) for part in parts if part is not None))),
        replace=True,
    )


# Reading untrusted files ---------------------------------------------------------------------


def read_yaml(path: Path) -> Any:
    r"""Read an untrusted YAML file: only JSON values, literal texts, and no code.

    Tags and aliases are errors, interpolations stay text; `\${` is `literal`'s escape of `${`.

    Raises:
        InputError: when it cannot be read, or is too long, deep or large.
    """
    text = read_text(path)
    try:
        for event in limited_events(text, path):
            if getattr(event, "anchor", None) is not None:
                raise InputError(f"{path} has the alias {shorten(event.anchor)}; write it out")
            if getattr(event, "tag", None) is not None:
                raise InputError(
                    f"{path} has the tag {shorten(event.tag)}; only values of JSON are read"
                )
        value = yaml.load(text, Loader=JsonLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError) and str(error).startswith(str(path)):
            raise
        raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return unescape(limited(value, path))


def read_json(path: Path, *, most: int = MOST_BYTES) -> Any:
    """Read an untrusted JSON file.

    Args:
        path: of the file.
        most: bytes allowed.

    Raises:
        InputError: as `read_yaml`.
    """
    text = read_text(path, most=most)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return limited(value, path)


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """Read a small text file.

    Raises:
        InputError: when it is not a file, is too long, or is not UTF-8.
    """
    try:
        if not path.is_file():  # reading a pipe would never end
            raise InputError(f"{path} cannot be read: it is not a file")
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise InputError(f"{path} cannot be read: it is longer than {most:,} bytes")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float")}
_LONGEST_INTEGER = 80  # 64 bits in binary, with some underscores
# as OmegaConf writes floats: YAML 1.1 takes 1e-3 for a text
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)


class JsonLoader(_Loader):  # type: ignore[misc]
    """A SafeLoader for JSON values only: no dates, sets, binaries and merges."""

    yaml_implicit_resolvers: ClassVar = {
        first: [
            (tag, re.compile(f"(?:{_FLOAT.pattern})$") if tag.endswith("float") else pattern)
            for tag, pattern in resolvers
            if tag in _SCALARS
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors: ClassVar = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag in _SCALARS | {f"{_TAG}{name}" for name in ("str", "seq", "map")} or tag is None
    }

    def construct_yaml_int(self, node: Any) -> int:
        """Read an integer; long ones take quadratic time, and collide as keys.

        Raises:
            InputError: for one above 2^64.
        """
        if len(node.value) <= _LONGEST_INTEGER:
            number: int = super().construct_yaml_int(node)
            if abs(number) <= LARGEST_INTEGER:
                return number
        raise InputError(f"it holds the number {node.value[:20]}..., which is too large")


JsonLoader.yaml_constructors[f"{_TAG}int"] = JsonLoader.construct_yaml_int


def limited_events(text: str, path: Path) -> Iterator[Any]:
    """Yield the events of a YAML text, checking their number and depth.

    Raises:
        InputError: for too many, or too deep ones.
    """
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH or count > MOST_EVENTS:
            what = f"deeper than {MOST_DEPTH}" if depth > MOST_DEPTH else "longer"
            raise InputError(f"{path} cannot be read: it is {what} than allowed")
        yield event


def limited(value: Any, path: Path) -> Any:
    """Return values after checking their depth and numbers.

    Raises:
        InputError: for too deep containers, and numbers that are too large or not finite.
    """
    level = [value]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, int) and abs(one) > LARGEST_INTEGER:
                raise InputError(f"{path} holds the number {shorten(one)}, which is too large")
            if isinstance(one, Mapping):
                if wrong := next((key for key in one if not isinstance(key, str | int)), None):
                    raise InputError(f"{path} has the key {shorten(wrong)}; a key is a text")
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        if not below:
            return value
        level = below
    raise InputError(f"{path} cannot be read: it is deeper than {MOST_DEPTH}")


def shorten(value: object) -> str:
    """Shorten a value for a message."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return "above 2^64"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def take(content: Any, key: str, kind: Any, *, origin: Path) -> Any:
    """Return the value of a dotted key of a file's content, checked against a type.

    Args:
        content: of the file.
        key: of the value, "sample.class_names".
        kind: its type, which may state a range: `Annotated[int, Field(ge=1)]`. Only lists are converted, to
            tuples.
        origin: the file, for the message.

    Raises:
        InputError: when it is missing, or not of this type.
    """
    value = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    try:
        # a JSON has no tuples
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([key, *map(str, first["loc"])])
        raise InputError(
            f"{origin} is damaged: {where} is {shorten(first['input'])} ({first['msg']})"
        ) from error


def literal(value: Any) -> Any:
    """Escape `${` in texts, so that names in the data are not interpolations."""
    if isinstance(value, Mapping):
        return {key: literal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def unescape(value: Any) -> Any:
    """Undo `literal`; an unescaped `${` stays."""
    if isinstance(value, Mapping):
        return {key: unescape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [unescape(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"((?:\\\\)*)\\\$\{", lambda m: m[1][: len(m[1]) // 2] + "${", value)
    return value


def to_containers(node: Any, *, complete: bool = False) -> Any:
    """Return a config node as plain containers, with interpolations resolved; other values unchanged.

    Args:
        node: of a configuration.
        complete: whether a missing value (???) raises MissingMandatoryValue.
    """
    if node is None or isinstance(node, dict | list | str | int | float):
        return node
    from omegaconf import OmegaConf

    if not OmegaConf.is_config(node):
        return node
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=complete)


def resolved(config: Any) -> Any:
    """Return a config with all interpolations resolved, and `${` in values escaped."""
    from omegaconf import OmegaConf

    return OmegaConf.create(literal(OmegaConf.to_container(config, resolve=True)))


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain containers with some values changed."""
    both = dict(before)
    for key, value in changes.items():
        old = both.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            both[key] = merged(old, value)
        else:
            both[key] = value
    return both


# Building ------------------------------------------------------------------------------------------------


def build(
    node: Any,
    base: Any = Any,
    *,
    origin: Path | None = None,
    trust: Sequence[str] = (),
    **extra: Any,
) -> Any:
    """Build the object that a config node describes; the only place where a name becomes a class.

    Args:
        node: `{"_target_": "package.module.Class", argument: value, ...}`, or a mapping or list of such nodes. With
            `_partial_: true` it gives a function that takes the rest of the arguments; `_args_` are those by position.
        base: what it has to be, as an annotation: a class, `Mapping[str, Regularizer]`, or for a node with `_partial_`
            `Callable[..., ImageDataset]`. Nodes among the arguments have to be what the constructor's annotations say.
            A class is checked before it is called.
        origin: the file that the node was read from, which is not trusted: targets are classes of gan_lab and trusted
            packages only, arguments without annotation are modules or plain values, numbers are finite and limited.
            None for the user's own config.
        trust: packages besides gan_lab whose classes may be imported and called.
        extra: further arguments of the target, as they are.

    Raises:
        InputError: raised by a target; or for what is wrong, with its key and file.
    """
    key = ""
    if not isinstance(node, dict | list) and hasattr(node, "_get_full_key"):
        key = str(node._get_full_key(None))
    return _Builder(origin, ("gan_lab", *trust)).build(node, base, key, extra)


def check_node(node: Any, base: Any, key: str, typed: Mapping[str, str]) -> dict[str, str]:
    """Check a node as `build` does, without building anything.

    Args:
        node: as `build`'s.
        base: as `build`'s.
        key: of the node.
        typed: key -> what was typed for it. It counts where the key takes text and 007 was read as a number.

    Returns:
        The keys whose values are such texts.

    Raises:
        InputError: as `build`, for everything that can be checked without calling a constructor.
    """
    checker = _Builder(None, ("gan_lab",), typed=typed)
    checker.build(node, base, key, {})
    return checker.texts


@dataclass(frozen=True)
class _Builder:
    origin: Path | None
    packages: tuple[str, ...]
    typed: Mapping[str, str] | None = None  # only checks, where it is given
    texts: dict[str, str] = field(default_factory=dict)

    def build(self, node: Any, base: Any, key: str, extra: Mapping[str, Any]) -> Any:
        node = to_containers(node, complete=True)
        if not has_nodes(node):
            self.check_value(node, base, key)
            return {**node, **extra} if isinstance(node, dict) else node
        if isinstance(node, list):
            inner = element_of(base)
            return [self.build(value, inner, f"{key}[{i}]", {}) for i, value in enumerate(node)]
        if "_target_" not in node:
            inner = element_of(base)
            built = {
                name: self.build(one, inner, join_key(key, name), {}) for name, one in node.items()
            }
            return {**built, **extra}
        values = {name: value for name, value in node.items() if name not in extra}
        target, later = values.pop("_target_"), values.pop("_partial_", False)
        found = self.find(target, key)
        if not isinstance(later, bool):
            raise self.error(key, target, f"has _partial_={shorten(later)}; it is true or false")
        if not self.may_be(found, base, later=later):
            what = "with _partial_=true " if later else ""
            wrong = "does not belong here" if base is Never else f"is not a {describe(base)}"
            raise self.error(key, target, f"{what}{wrong}")
        hints = annotations_of(found)
        positional = values.pop("_args_", [])
        if not isinstance(positional, list):
            raise self.error(key, target, f"has _args_={shorten(positional)}; it is a list")
        arguments = [
            self.build(value, hints.at(i), f"{join_key(key, '_args_')}[{i}]", {})
            for i, value in enumerate(positional)
        ]
        keywords: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(name, str) or re.fullmatch("_[a-z]+_", name):
                raise self.error(key, target, f"has {shorten(name)}, which nothing here reads")
            hints.check_name(name, value, join_key(key, name), self.where)
            keywords[name] = self.build(value, hints.of(name), join_key(key, name), {})
        try:
            if later:
                hints.check(arguments, {**keywords, **extra})
            if self.typed is not None:
                return None
            if later:
                return partial(found, *arguments, **keywords, **extra)
            return found(*arguments, **keywords, **extra)
        except InputError as error:
            if self.origin is None or str(error).startswith(str(self.origin)):
                raise
            raise InputError(f"{self.origin}: {error}") from error
        except Exception as error:
            raise self.error(
                key, target, f"cannot be built with these settings ({cause(error)})"
            ) from error

    def check_value(self, value: Any, base: Any, key: str) -> None:
        """Check a value against an annotation: type, finite numbers, and for files their limits.

        Raises:
            InputError: with the key, the value and what is allowed.
        """
        if self.origin is not None and isinstance(value, int) and abs(value) > LARGEST_ARGUMENT:
            raise InputError(
                f"{self.origin}: {key}={shorten(value)} must be a whole number of at most {LARGEST_ARGUMENT:,}"
            )
        text = as_allowed(value, base, key, (self.typed or {}).get(key), self.where)
        if text is not value:
            self.texts[key] = text

    @property
    def where(self) -> str:
        """Return the beginning of a message: the file."""
        return f"{self.origin}: " if self.origin is not None else ""

    def find(self, target: Any, key: str) -> Callable[..., Any]:
        """Import a target, if that is allowed."""
        if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
            raise self.error(
                join_key(key, "_target_"),
                shorten(target),
                "is not a class; one is named package.module.Class",
            )
        package = target.split(".")[0]
        if self.origin is not None and package not in self.packages:
            raise InputError(
                f"{self.origin} would run {target}, which is not part of gan_lab; if you trust it, load with "
                f"trust={[package]}"
            )
        try:
            found = import_name(target)
        except Exception as error:  # importing may raise anything
            if self.origin is not None:
                raise InputError(
                    f"{self.origin} names {target}, which cannot be imported ({cause(error)}); it may be from another "
                    f"version of {package}"
                ) from error
            raise self.error(
                key,
                target,
                f"cannot be imported ({cause(error)}); a class is named package.module.Class, and PYTHONPATH has to "
                "have the folder that its package is in",
            ) from error
        # modules expose their imports, such as gan_lab.training.checkpoint.torch.load
        own = isinstance(found, type) and found.__module__.split(".")[0] in self.packages
        if self.origin is not None and not own:
            raise InputError(f"{self.origin} would run {target}, which is not a class of {package}")
        if not callable(found):
            raise self.error(key, target, "is not a class")
        return found

    def may_be(self, found: Callable[..., Any], base: Any, *, later: bool) -> bool:
        """Whether calling a class, now or later, gives a valid value for its key."""
        if later:
            if not is_callable_hint(base):
                return False
            base = returned_by(base)
        if not isinstance(found, type):  # a function of the user; its return type is not known yet
            return True
        fitting = fits(found, base)
        if fitting is None:
            from torch import nn

            return self.origin is None or issubclass(found, nn.Module)
        return fitting

    def error(self, key: str, target: str, wrong: str) -> InputError:
        return InputError(f"{self.where}{f'{key}: ' if key else ''}{target} {wrong}")


def has_nodes(value: Any) -> bool:
    """Whether a value contains nodes to build."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(has_nodes, value.values()))
    return isinstance(value, list) and any(map(has_nodes, value))


def join_key(key: str, name: object) -> str:
    """Join two parts of a dotted key."""
    return f"{key}.{name}" if key else str(name)


def import_name(target: str) -> Any:
    """Import the class, function or method of a dotted name.

    Raises:
        ImportError, AttributeError: when it does not exist; anything that importing raises.
    """
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            found = import_module(name)
        except ModuleNotFoundError as error:
            if length > 1 and error.name is not None and f"{name}.".startswith(f"{error.name}."):
                continue  # it may be a class, or a name of a module's
            raise
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(target)


def cause(error: BaseException) -> str:
    """Describe an exception with its file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    # skip frames of the caller
    others = [f for f in frames if "importlib" not in f.filename and f.filename != __file__]
    frame = others[-1] if others else None
    where = f", {frame.filename}:{frame.lineno}" if frame else ""
    return f"{type(error).__name__}: {error}{where}"


@dataclass(frozen=True)
class Annotations:
    """The annotations of a constructor's parameters."""

    signature: inspect.Signature | None
    types: Mapping[str, Any]

    def of(self, name: str) -> Any:
        """Return a parameter's annotation, or that of `**rest`; Any without."""
        if self.signature is not None and name not in self.signature.parameters:
            name = self._rest(inspect.Parameter.VAR_KEYWORD)
        return self.types.get(name, Any)

    def at(self, index: int) -> Any:
        """Return a positional parameter's annotation, or that of `*rest`."""
        if self.signature is None:
            return Any
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [name for name, one in self.signature.parameters.items() if one.kind in kinds]
        name = names[index] if index < len(names) else self._rest(inspect.Parameter.VAR_POSITIONAL)
        return self.types.get(name, Any)

    def check(self, positional: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Raise TypeError for unknown arguments."""
        if self.signature is not None:
            self.signature.bind_partial(*positional, **keywords)

    def check_name(self, name: str, value: Any, key: str, where: str) -> None:
        """Check that a keyword exists.

        Raises:
            InputError: with the nearest one.
        """
        if self.signature is None or self._rest(inspect.Parameter.VAR_KEYWORD):
            return
        names = [
            one.name
            for one in self.signature.parameters.values()
            if one.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        ]
        if name not in names:
            raise InputError(f"{where}{unknown_key(key, value, names)}")

    def _rest(self, kind: Any) -> str:
        parameters = self.signature.parameters if self.signature is not None else {}
        return next((name for name, one in parameters.items() if one.kind is kind), "")


def annotations_of(found: Callable[..., Any]) -> Annotations:
    """Return the annotations of a class's or function's parameters that can be evaluated."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # some classes written in C
        signature = None
    try:
        called = found.__init__ if isinstance(found, type) else found  # type: ignore[misc]
        hints = get_type_hints(called, include_extras=True)
    except (AttributeError, NameError, TypeError):
        hints = {}
    return Annotations(signature, hints)


def fits(found: type, base: Any) -> bool | None:
    """Whether a class satisfies an annotation; None when undecided."""
    if get_origin(base) is Annotated:
        return fits(found, get_args(base)[0])
    if base in (Any, object, inspect.Parameter.empty) or isinstance(base, TypeVar):
        return None
    if get_origin(base) in (Union, types.UnionType):
        answers = [fits(found, one) for one in get_args(base)]
        return None if None in answers and True not in answers else True in answers
    kind = get_origin(base) or base
    if base is Never:
        return False
    if not isinstance(kind, type):
        return None
    if getattr(kind, "_is_protocol", False):
        # attributes may be set in a constructor, methods are there before
        functions = [name for name, value in vars(kind).items() if inspect.isfunction(value)]
        methods = [name for name in functions if not name.startswith("_")]
        return all(callable(getattr(found, name, None)) for name in methods)
    return issubclass(found, kind)


def element_of(base: Any) -> Any:
    """Return the element type of an annotated list or mapping; Any without."""
    if get_origin(base) is Annotated:
        return element_of(get_args(base)[0])
    if get_origin(base) in (Union, types.UnionType):
        return Union[tuple(element_of(one) for one in get_args(base))]  # noqa: UP007 (made at run time)
    kind, arguments = get_origin(base) or base, [a for a in get_args(base) if a is not Ellipsis]
    if not isinstance(kind, type) or kind in (Any, object):
        return Any
    if not issubclass(kind, Iterable) or issubclass(kind, str):
        return Never
    if not arguments:
        return Any
    return arguments[-1] if issubclass(kind, Mapping) else Union[tuple(arguments)]  # noqa: UP007


def is_callable_hint(base: Any) -> bool:
    """Whether an annotation is a callable."""
    if get_origin(base) in (Union, types.UnionType, Annotated):
        return any(is_callable_hint(one) for one in get_args(base))
    kind = get_origin(base) or base
    return kind in (Any, object, Callable) or (
        getattr(kind, "_is_protocol", False) and "__call__" in vars(kind)
    )


def returned_by(base: Any) -> Any:
    """Return the return type of an annotated callable; Any without."""
    if get_origin(base) in (Union, types.UnionType, Annotated):
        return next((returned_by(one) for one in get_args(base) if is_callable_hint(one)), Any)
    return get_args(base)[-1] if get_origin(base) is Callable else Any


def describe(base: Any) -> str:
    """Return an annotation as text."""
    if isinstance(base, type) and not get_args(base):
        return f"{base.__module__}.{base.__qualname__}"
    return str(base)


# Types of keys -----------------------------------------------------------------------------------------------


class Keys(BaseModel):
    """The keys of a command and their types; other keys may be anything."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)


def folder_name(name: str) -> str:
    """Check the name of a subfolder and return it.

    Raises:
        ValueError: for an empty name, one that leads out of its folder, and one with spaces around it.
    """
    if (
        not name
        or Path(name).is_absolute()
        or not {".", ".."}.isdisjoint(re.split(r"[/\\]", name))
        or not name.isprintable()
        or any(part != part.strip() for part in re.split(r"[/\\]", name))
    ):
        raise ValueError("leads out of its folder")
    return name


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Text = Annotated[str, Field(min_length=1, description="a text")]
FolderName = Annotated[
    str,
    AfterValidator(folder_name),
    Field(description="the name of a folder below another, such as faces"),
]


def check_keys(config: Any, kinds: type[Keys], typed: Mapping[str, str]) -> None:
    """Check the keys of a config; a number becomes the typed text where the key takes text.

    Args:
        config: of a command; changed in place.
        kinds: types of its keys.
        typed: key -> what was typed for it.

    Raises:
        InputError: with the key, the value and what is allowed.
        MissingMandatoryValue: for a value that was not given.
    """
    from omegaconf import OmegaConf

    there = [
        name for name in kinds.model_fields if name in config or OmegaConf.is_missing(config, name)
    ]
    values = {name: value_of(config, name) for name in there}
    for key, value in texts_of(values, kinds, "", typed).items():
        OmegaConf.update(config, key, value, force_add=True)


def value_of(config: Any, key: str, *, complete: bool = False) -> Any:
    """Return the value of a config key as plain containers.

    Raises:
        InputError: for an interpolation of an unknown key.
        MissingMandatoryValue: as `to_containers`.
    """
    from omegaconf.errors import InterpolationResolutionError

    try:
        return to_containers(config.get(key) if complete else config[key], complete=complete)
    except InterpolationResolutionError as error:
        typed = dict(config.items_ex(resolve=False)).get(key)
        raise InputError(
            f"{error.full_key or key} in {key}={shorten(typed)} refers to an unknown key "
            f"({first_line(error)})"
        ) from error


def texts_of(
    values: Mapping[str, Any], kinds: type[Keys], prefix: str, typed: Mapping[str, str]
) -> dict[str, str]:
    """Return the keys that take text and were read as numbers, with the typed text.

    Raises:
        InputError: as `check_keys`.
    """
    found: dict[str, str] = {}
    for name, declared in kinds.model_fields.items():
        if name not in values:
            continue
        key, value = join_key(prefix, name), values[name]
        kind = declared.annotation
        if isinstance(kind, type) and issubclass(kind, Keys) and isinstance(value, Mapping):
            names = list(kind.model_fields)
            for unknown in [one for one in value if one not in names]:
                raise InputError(unknown_key(join_key(key, unknown), value[unknown], names))
            found |= texts_of(value, kind, key, typed)
            continue
        full = Annotated[kind, Field(description=declared.description), *declared.metadata]  # type: ignore[valid-type]
        text = as_allowed(value, full, key, typed.get(key), "")
        if text is not value:
            found[key] = text
    return found


def unknown_key(key: str, value: Any, names: Sequence[str]) -> str:
    """Return the message for an unknown key."""
    name = key.split(".")[-1]
    hint = suggestion(name, names) or f"; there are {', '.join(names) or 'none'}"
    return f"{key}={shorten(value)}: there is no {name}{hint}"


def as_allowed(value: Any, kind: Any, key: str, typed: str | None, where: str) -> Any:
    """Return a value that an annotation allows, or the typed text of a number where only text is allowed.

    Raises:
        InputError: with the key, the value and what is allowed.
    """
    if value == MISSING or is_allowed(value, kind):
        return value
    if isinstance(value, bool | int | float):
        text = str(value) if typed is None else typed
        if is_allowed(text, kind):
            return text
    hint = suggestion(value, options_of(kind)) if isinstance(value, str) else ""
    raise InputError(f"{where}{key}={shorten(value)} must be {allowed(kind)}{hint}")


def is_allowed(value: Any, kind: Any) -> bool:
    """Whether an annotation allows a value; True for objects, and for annotations of other kinds."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:  # NaN is never valid
        return False
    except TypeError:
        return True
    if kind is Any:
        return True
    if get_origin(kind) in (Union, types.UnionType):
        return any(is_allowed(value, one) for one in get_args(kind))
    if getattr(kind, "_is_protocol", False) or (isinstance(value, dict) and is_dataclass(kind)):
        return False  # a node without its _target_, which pydantic would take for the object
    try:
        adapter = TypeAdapter(kind, config=LENIENT)
    except PydanticUserError:
        adapter = None
    except (SchemaError, TypeError):
        return True
    try:
        (adapter or TypeAdapter(kind)).validate_json(text, strict=True)
    except ValidationError:
        return False
    except (PydanticUserError, SchemaError, TypeError):
        return True
    return True


def allowed(kind: Any) -> str:
    """Describe what an annotation allows."""
    kind = getattr(kind, "__value__", kind)
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        fields = [one for one in arguments[1:] if isinstance(one, FieldInfo)]
        said = next((one.description for one in fields if one.description), None)
        rules = [*arguments[1:], *(rule for one in fields for rule in one.metadata)]
        return said or f"{allowed(arguments[0])}{limits(rules)}"
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(allowed, arguments)))
    if get_origin(kind) is Literal:
        return ", ".join(map(str, arguments))
    plain_kinds: dict[Any, str] = {
        **{int: "a whole number", float: "a finite number", bool: "true or false"},
        **{str: "a text", Path: "a path", type(None): "null", Any: "finite"},
    }
    if kind in plain_kinds:
        return plain_kinds[kind]
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = dict.fromkeys(allowed(one) for one in arguments if one is not Ellipsis)
        return f"a list, each {' or '.join(inner)}" if inner else "a list"
    return f"a {describe(kind)}"


def options_of(kind: Any) -> list[str]:
    """Return the literal strings that an annotation allows, also within lists."""
    if get_origin(kind) is Literal:
        return [one for one in get_args(kind) if isinstance(one, str)]
    return list(dict.fromkeys(word for one in get_args(kind) for word in options_of(one)))


def limits(rules: Iterable[Any]) -> str:
    """Describe the range of numbers."""
    words = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
    found = {
        name: getattr(rule, name)
        for rule in rules
        for name in words
        if getattr(rule, name, None) is not None
    }
    return "".join(f" {words[name].format(found[name])}" for name in words if name in found)


# Changes -----------------------------------------------------------------------------------------------------


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return {"a.b.c": value} of nested containers."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def differences(old: Any, new: Any) -> list[str]:
    """Return one line for each key whose value differs, `key: old -> new`."""
    before, after = (flatten(to_containers(config)) for config in (old, new))
    keys = [key for key in [*after, *(k for k in before if k not in after)] if not derived(key)]
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in keys
        if before.get(key, "absent") != after.get(key, "absent")
    ]


def derived(key: str) -> bool:
    """Whether a key only depends on the run's folder or sweep: a renamed folder is no change."""
    if key.startswith("callbacks.pruning."):
        return True
    return key.split(".")[-1] in ("run_dir", "runs_dir", "name", "sweep", "swept_keys")


def suggestion(wrong: str, keys: Sequence[str]) -> str:
    """Return the nearest known keys as a hint for the end of an error message, or ""."""
    leaf = wrong.split(".")[-1]
    close = get_close_matches(wrong, keys, n=3, cutoff=0.6)
    close += [key for key in keys if key.split(".")[-1] == leaf and key not in close][:3]
    return f"; did you mean {' or '.join(dict.fromkeys(close[:3]))}?" if close else ""
