"""The keys of each command and their types, checked before anything expensive."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from gan_lab.config import (
    BatchSize,
    FolderName,
    Keys,
    Seed,
    Text,
    Threads,
    check_keys,
    check_node,
    conf_dir,
    shorten,
    suggestion,
    to_containers,
    unknown_key,
    value_of,
)
from gan_lab.errors import InputError
from gan_lab.training.auto import placeholders
from gan_lab.training.checks import TrainKeys
from gan_lab.training.ema import LONGEST

Positive = Annotated[int, Field(ge=1, le=100_000)]
Natural = Annotated[int, Field(ge=0, le=10**7)]
Number = Annotated[int, Field(ge=0, le=2**32 - 1)]
Share = Annotated[float, Field(ge=0)]
Length = Annotated[float, Field(gt=0, le=LONGEST)]
Part = Number | Text
Numbers = Part | list[Part]
Classes = Part | list[Part]
Size = (
    Annotated[int, Field(ge=1, le=65_536)]
    | tuple[Annotated[int, Field(ge=1, le=65_536)], Annotated[int, Field(ge=1, le=65_536)]]
)
# one vector, by name or in order, or several
Attributes = float | list[float] | dict[Text, float] | list[dict[Text, float] | list[float]] | None
Devices = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
Statistics = Annotated[int, Field(ge=1, le=10**8)]
Trust = list[Text]
Center = Literal["mean", "class"]
Noise = Literal["const", "none", "random"]
DrawnFormat = Literal[
    "files", "png", "jpeg", "webp", "wav", "flac", "grid", "npz", "zip", "txt", "jsonl", "latents"
]
WayFormat = Literal["strip", "gif", "webp", "mp4", "frames", "files"]
SheetFormat = Literal["sheet", "latents"]


class GeneratorKeys(Keys):
    """Keys of commands that load a trained generator."""

    run: Text
    checkpoint: Literal["best", "last", "previous"] | None
    weights: Literal["ema", "raw"] | None
    trust: Trust


class BenchKeys(TrainKeys):
    """Keys of gan-lab bench."""

    parts: Annotated[
        list[Literal["steps", "loop", "data", "metrics", "ranks"]], Field(min_length=1)
    ]
    ranks: Annotated[int, Field(ge=2, le=1024)]
    rounds: Positive
    warmup: Natural
    at_kimg: Share
    out: Text | None


class CompareKeys(Keys):
    """Keys of gan-lab compare."""

    runs: Text | list[Text] | None
    checkpoint: Literal["best", "last", "previous"] | None
    weights: Literal["ema", "raw"]
    seed: Seed
    columns: Annotated[int, Field(ge=1, le=32)] | None
    device: Text
    out: Text | None
    trust: Trust


class DashboardKeys(Keys):
    """Keys of gan-lab dashboard."""

    project: Text
    entity: Text | None
    name: Text
    metric_keys: list[Text] | None
    sweep: Text | None


class DirectionsKeys(GeneratorKeys):
    """Keys of gan-lab directions."""

    method: Literal["auto", "ganspace", "sefa"]
    layers: Numbers
    count: Positive
    classes: Classes | None
    within: bool
    samples: Annotated[int, Field(ge=1, le=10**8)]
    seed: Seed
    seeds: Numbers
    amounts: list[float]
    truncation: float | None
    truncation_center: Center
    noise: Noise
    device: Text
    out: Text | None


class FileKeys(Keys):
    """Keys of gan-lab evaluate for reading folders and zips."""

    image_size: Size | None
    channels: Literal[1, 3] | None
    skip_unreadable: bool
    max_megapixels: Annotated[float, Field(gt=0)]


class EvaluateKeys(GeneratorKeys):
    """Keys of gan-lab evaluate."""

    ema: Length | None

    source: Text | None
    run: Text | None  # type: ignore[assignment]
    fake: Text | None
    real: Text | None
    seed: Seed
    truncation: float | None
    standing_statistics: Statistics | None
    batch_size: BatchSize
    device: Text
    devices: Devices
    data: dict[str, Any]
    files: FileKeys
    preview: bool
    plots: bool
    truncations: list[float]
    save_real_features: Text | None
    held_out: Text | None
    out: Text | None


class EmaKeys(GeneratorKeys):
    """Keys of gan-lab ema."""

    lengths: Annotated[list[Length], Field(min_length=1)]
    seed: Seed
    truncation: float | None
    standing_statistics: Statistics | None
    batch_size: BatchSize
    device: Text
    out: Text | None


class ExploreKeys(GeneratorKeys):
    """Keys of gan-lab explore."""

    other: Text | None
    standing_statistics: Statistics | None
    seed: Seed
    truncation: float | None
    host: Text
    port: Annotated[int, Field(ge=0, le=65_535)]
    frame_ancestors: list[Annotated[str, Field(pattern=r"^https?://[\w.:*-]+$")]]
    threads: Threads | None
    device: Text


class ExportKeys(GeneratorKeys):
    """Keys of gan-lab export."""

    source: Text | None
    format: (
        Literal["safetensors", "torch", "onnx", "nvidia"]
        | list[Literal["safetensors", "torch", "onnx", "nvidia"]]
        | None
    )
    name: Text | None
    license: Text | None
    with_discriminator: bool
    out: Text | None
    overwrite: bool
    seed: Seed
    truncation: float | None
    standing_statistics: Statistics | None
    device: Text
    push: Text | None
    space: Text | None
    private: bool


class GenerateKeys(GeneratorKeys):
    """Keys of gan-lab generate."""

    ema: Length | None

    seeds: Numbers | None
    num_images: Annotated[int, Field(ge=1, le=10**9)]
    labels: Attributes
    source: Text | None
    classes: Classes | None
    seed: Seed
    latents: Text | None
    directions: Text | None
    move: float | list[float] | None
    truncation: float | None
    truncation_center: Center
    noise: Noise
    translate: tuple[float, float] | None
    rotate: float | None
    standing_statistics: Statistics | None
    format: DrawnFormat | Annotated[list[DrawnFormat], Field(min_length=1)]
    quality: Annotated[int, Field(ge=1, le=100)]
    columns: Positive | None
    scale: Annotated[int, Field(ge=1, le=1024)]
    batch_size: BatchSize
    device: Text
    devices: Devices
    out: Text | None


class ImportWeightsKeys(Keys):
    """Keys of gan-lab import-weights."""

    path: Text
    name: FolderName
    runs_dir: Text
    arguments: dict[str, Any]


class InterpolateKeys(GeneratorKeys):
    """Keys of gan-lab interpolate."""

    seeds: Numbers
    classes: Classes | None
    labels: Attributes
    latents: Text | None
    space: Literal["z", "w"] | None
    method: Literal["linear", "spherical", "spline"] | None
    loop: bool
    frames: Positive
    grid: tuple[Positive, Positive]
    truncation: float | None
    truncation_center: Center
    noise: Literal["const", "none"]
    standing_statistics: Statistics | None
    seed: Seed
    format: WayFormat | Annotated[list[WayFormat], Field(min_length=1)]
    columns: Annotated[int, Field(ge=2, le=100_000)]
    fps: Annotated[float, Field(gt=0, le=1000)]
    scale: Annotated[int, Field(ge=1, le=1024)] | None
    batch_size: BatchSize
    device: Text
    out: Text | None


class MixKeys(GeneratorKeys):
    """Keys of gan-lab mix."""

    rows: Numbers
    columns: Numbers
    layers: Numbers
    row_classes: Classes | None
    column_classes: Classes | None
    row_labels: Attributes
    column_labels: Attributes
    row_latents: Text | None
    column_latents: Text | None
    truncation: float | None
    truncation_center: Center
    noise: Noise
    format: SheetFormat | Annotated[list[SheetFormat], Field(min_length=1)]
    scale: Annotated[int, Field(ge=1, le=1024)] | None
    device: Text
    out: Text | None


class PrefetchKeys(Keys):
    """Keys of gan-lab prefetch: none besides its features."""


class PrepareDataKeys(Keys):
    """Keys of gan-lab prepare-data."""

    out: Text | None
    size: Size | None
    crop: Literal["center", "none", "pixels"] | Size | None
    resample: Literal["lanczos", "box", "bicubic", "bilinear"] | None
    split: Literal["all", "train", "val"]
    overwrite: bool
    num_threads: Threads | None
    processes: Threads
    device: Text
    shard_mb: Annotated[float, Field(gt=0, le=4000)]
    part: Text | None
    merge: bool


class TuneKeys(Keys):
    """Keys of gan-lab project for pivotal tuning."""

    steps: Natural
    lr: Annotated[float, Field(gt=0)]
    l2: Share
    locality: Share
    radius: Share


class ProjectKeys(GeneratorKeys):
    """Keys of gan-lab project."""

    images: Text | Annotated[list[Text], Field(min_length=1)] | None
    dataset_indices: Numbers | None
    split: Literal["val", "train"]
    data: dict[str, Any]
    classes: Classes | None
    space: Literal["w", "w+", "z", "auto"]
    steps: Natural | None
    restarts: Positive | None
    lr: Annotated[float, Field(gt=0)]
    jitter: Share
    prior: Share
    noise: bool | None
    noise_weight: Share
    distance: Literal["lpips", "pyramid", "auto"]
    vgg16: Text | None
    tune: TuneKeys
    video: Literal["mp4", "gif", "webp"] | None
    fps: Annotated[float, Field(gt=0, le=1000)]
    seed: Seed
    batch_size: BatchSize
    device: Text
    out: Text | None


KEYS: dict[str, type[Keys]] = {
    "bench": BenchKeys,
    "compare": CompareKeys,
    "dashboard": DashboardKeys,
    "directions": DirectionsKeys,
    "ema": EmaKeys,
    "evaluate": EvaluateKeys,
    "explore": ExploreKeys,
    "export": ExportKeys,
    "generate": GenerateKeys,
    "import_weights": ImportWeightsKeys,
    "interpolate": InterpolateKeys,
    "mix": MixKeys,
    "prefetch": PrefetchKeys,
    "prepare_data": PrepareDataKeys,
    "project": ProjectKeys,
    "train": TrainKeys,
}
# keys that hold a node, or null
SINGLE = (
    *("data", "representation", "loss", "model", "metrics", "trainer"),
    *("protocol", "features", "conditioning"),
)
# keys that hold nodes by their names
NAMED = ("callbacks", "logger", "regularizer", "augment")
# of these, files may set keys of what is not chosen: they are ignored
LEFT_OUT = ("regularizer", "augment")


def check(command: str, config: DictConfig) -> None:
    """Check overrides and files; numbers become the typed text where a key takes text.

    Args:
        command: its module.
        config: that Hydra has composed for it; changed in place.

    Raises:
        InputError: with the key, the value and what is allowed.
        MissingMandatoryValue: for a value that was not given.
    """
    with placeholders(config):
        check_values(command, config, typed_texts(HydraConfig.get().overrides.task))


def check_values(command: str, config: DictConfig, typed: Mapping[str, str]) -> None:
    """Check a configuration in which nothing is `auto`; see `check`.

    Raises:
        InputError: as `check`.
    """
    kinds = KEYS[command]
    check_keys(config, kinds, typed)
    check_further(config, kinds)
    for key in NAMED:
        nodes = value_of(config, key, complete=True) or {}
        for name, node in nodes.items():
            if isinstance(node, Mapping) and "_target_" in node:
                put_back(config, check_node(node, Any, f"{key}.{name}", typed))
            elif node is not None and (key not in LEFT_OUT or not isinstance(node, Mapping)):
                hint = suggestion(str(name), [one for one in nodes if one != name])
                raise InputError(
                    f"{key}.{name}={shorten(node)} is set, but {name} is not among what was chosen as {key}={hint}; "
                    "choose it, or leave it out"
                )
            elif ignored := [one for one in typed if one.startswith(f"{key}.{name}.")]:
                chosen = [one for one, other in nodes.items() if "_target_" in (other or ())]
                raise InputError(
                    f"{ignored[0]}={typed[ignored[0]]} would have no effect: {key}={name} is not chosen, but "
                    f"{key}=[{','.join(chosen)}]; set a key of these, or choose {name}"
                )
    for key in SINGLE:
        if key in kinds.model_fields or key not in config:
            continue
        node = value_of(config, key, complete=True)
        if node is None:
            continue
        if key == "features" and command == "prefetch" and "," in typed.get("features", ""):
            continue  # of several Hydra merges the files
        if isinstance(node, Mapping) and "_target_" not in node and key in node:
            raise InputError(
                f"{key}={typed.get(key, '')} sets keys below {key}.; its file has to begin with the line "
                "# @package _global_"
            )
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise InputError(
                f"{key}={shorten(node)} must be one of the options of {key}=, or have a _target_"
            )
        put_back(config, check_node(without_unchosen(node), Any, key, typed))


def check_further(config: DictConfig, kinds: type[Keys]) -> None:
    """Check for unknown keys; training configs may have extra ones, for interpolations.

    Raises:
        InputError: with the nearest one.
    """
    if "experiment" in config:
        raise InputError(
            f"experiment={shorten(to_containers(config.experiment))} sets keys below experiment.; begin its file "
            "with the line # @package _global_"
        )
    names = list(kinds.model_fields)
    for key in config:
        if key in (*names, *SINGLE, *NAMED):
            continue
        if not issubclass(kinds, TrainKeys):
            raise InputError(unknown_key(str(key), config[key], names))
        name = str(key)
        is_group = (conf_dir() / name).is_dir()
        if not is_group and isinstance(config.get("model"), DictConfig) and name in config.model:
            raise InputError(f"{name}= is not a key of its own; did you mean model.{name}?")


def without_unchosen(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node without penalties and augmentations that are set but not chosen."""
    left = dict(model)
    for key in ("regularizers", "augmentations"):
        if isinstance(left.get(key), Mapping):
            left[key] = {n: v for n, v in left[key].items() if v is None or "_target_" in v}
    return left


def put_back(config: DictConfig, texts: Mapping[str, str]) -> None:
    """Set keys to the texts that were typed."""
    for key, text in texts.items():
        OmegaConf.update(config, key, text, force_add=True)


def typed_texts(overrides: Sequence[str]) -> dict[str, str]:
    """Return {"a.b": "007"} of "a.b=007"."""
    pairs = (word.lstrip("+").partition("=") for word in overrides)
    return {key: value.strip() for key, _, value in pairs}
