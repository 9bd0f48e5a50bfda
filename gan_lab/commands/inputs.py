"""Inputs of evaluate: protocol, generated images, real images."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, open_dict
from pydantic import Field

from gan_lab.commands.options import measure_statistics, pick_device
from gan_lab.config import Count, build, merged, plain, take
from gan_lab.console import say, warn
from gan_lab.data.base import SampleDataset
from gan_lab.data.datamodule import DataModule
from gan_lab.errors import InputError
from gan_lab.metrics.base import Metrics, MetricsByData
from gan_lab.metrics.feature_metrics import ProtocolMetric
from gan_lab.metrics.feature_set import is_features_file
from gan_lab.metrics.features.base import Extractor, file_sha256
from gan_lab.metrics.generator_metrics import GeneratorMetric
from gan_lab.metrics.images import GanImages, ImageSource, label_difference, open_files
from gan_lab.metrics.protocol import Protocol
from gan_lab.training.checkpoint import CONFIG_FILE, checkpoint_path
from gan_lab.weights import exported
from gan_lab.weights.loading import load, local

Build = Callable[..., Any]


def given(config: DictConfig) -> Path:
    """Return the path of the generated images or the run.

    Raises:
        InputError: when there is none, or two.
    """
    if (config.run is None) == (config.fake is None):
        raise InputError(
            "run= is missing; give run=runs/<name>, or fake= and real= for images of any other origin"
            if config.run is None
            else "run= and fake= both name what is to be measured; give one of them"
        )
    return local(config.run or config.fake)


def holds_run(path: Path) -> bool:
    """Whether a path is a run folder, a checkpoint or an exported model; what does not exist is taken for a run."""
    if path.suffix in (".npz", ".zip"):
        return False
    return (
        path.suffix == ".ckpt"
        or not path.exists()
        or (path / "checkpoints").is_dir()
        or (path / CONFIG_FILE).exists()
        or exported.is_export(path)
    )


def run_folder(path: Path) -> Path:
    """Return the folder of a run or of one of its checkpoints."""
    return path.parent.parent if path.is_file() else path


def choose_protocol(
    config: DictConfig, trained: Mapping[str, Any] | None, data: DataModule | None, path: Path
) -> Protocol:
    """Build the protocol that was asked for, or the one that the run was trained with.

    Raises:
        InputError: when there is none.
    """
    node = plain(config.get("protocol"))
    make: Build = build
    if node is None:
        if trained is None:
            raise InputError(
                "protocol= is missing; choose one, such as protocol=fid10k or protocol=kid5k"
            )
        file = run_folder(path) / CONFIG_FILE
        node = take(trained, "metrics", dict[str, Any], origin=file)
        make = partial(build, origin=file, trust=config.trust)
    try:
        if config.get("features") is not None:
            built = with_features(node, plain(config.features), make)
        else:
            built = make(node, Metrics)
    except InputError as error:
        if trained is None or config.get("protocol") is not None:
            raise
        # a run of an earlier version names classes that are no more
        raise InputError(f"{error}; or choose protocol=, such as fid10k") from error
    if isinstance(built, MetricsByData) and data is not None:
        built = built.suiting(data.train)
    if not isinstance(built, Protocol):
        raise InputError(
            f"{path} was trained without metrics; choose protocol=, such as fid10k or digits"
        )
    return built


def with_features(node: Mapping[str, Any], features: Mapping[str, Any], make: Build) -> Any:
    """Build a protocol with another extractor, without the metrics that it has no output for.

    Args:
        node: of the protocol.
        features: node of the extractor.
        make: builds what the protocol's file names.

    Raises:
        InputError: for metrics that are no protocol.
    """
    metrics = node.get("metrics")
    if not isinstance(metrics, Mapping):
        raise InputError("features= is for a protocol; choose one, such as protocol=fid10k")
    extractor = build(features, Extractor)
    kept = dict(metrics)
    for name, metric in metrics.items():
        made = None if metric is None else make(metric, ProtocolMetric)
        if made is None or isinstance(made, GeneratorMetric):
            continue
        if made.output not in extractor.outputs:
            say(f"metrics.{name} is left out: {extractor.name} has no output {made.output!r}")
            kept[name] = None
    changed = {**node, "metrics": kept, "name": f"{node.get('name')}_{extractor.short}"}
    return make(changed, Metrics, features=extractor)


def open_data(config: DictConfig, trained: Mapping[str, Any], path: Path) -> DataModule:
    """Open the data of a trained run again.

    Raises:
        InputError: when its configuration does not say what they are, or names other code.
    """
    file = run_folder(path) / CONFIG_FILE
    data = take(trained, "data", dict[str, Any], origin=file)
    return DataModule(
        dataset=build(
            merged(data, plain(config.data)),
            Callable[..., SampleDataset],
            origin=file,
            trust=config.trust,
        ),
        batch_size=take(trained, "batch_size", Count, origin=file),
        d_steps=take(trained, "d_steps", Count, origin=file),
        total_images=1,
        seed=take(trained, "seed", int, origin=file),
        num_workers=take(
            trained, "num_workers", Annotated[int, Field(ge=0, le=1024)] | None, origin=file
        ),
    )


def open_real(
    config: DictConfig, protocol: Protocol, data: DataModule | None
) -> tuple[ImageSource | None, ImageSource | None]:
    """Open the real images and those of `reference_split`; None where there are none, or only features.

    Raises:
        InputError: when there are none and metrics compare with them.
    """
    if config.real is not None:
        path = local(config.real)
        if is_features_file(path):
            return None, None
        if path.exists() and holds_run(path):
            return open_run(config, path, protocol), None
        return open_files(path, num=protocol.num_real, **config.files), None
    if data is not None:
        return protocol.real_images(data), protocol.floor_images(data)
    if protocol.real_needs:
        raise InputError(
            "real= is missing: give images to compare with, or features of them that save_real_features= has written"
        )
    return None, None


def open_fake(config: DictConfig, protocol: Protocol, path: Path, is_run: bool) -> ImageSource:
    """Open the generated images."""
    if is_run:
        return open_run(config, path, protocol)
    return open_files(path, num=protocol.num_fake, **config.files)


def open_run(config: DictConfig, path: Path, protocol: Protocol) -> GanImages:
    """Load the generator of a run or an exported model and return what it draws."""
    is_export = exported.is_export(path)
    weights = config.weights or (None if is_export or config.ema else protocol.weights)
    truncation = protocol.truncation if config.truncation is None else config.truncation
    gan = load(
        path,
        checkpoint=config.checkpoint,
        weights=weights,
        ema=config.ema,
        device=pick_device(config.device),
        trust=config.trust,
    )
    gan.check_truncation(truncation)
    if config.source is not None:
        gan = gan.with_sources(config.source)
    with open_dict(config):
        config.truncation = truncation
    measure_statistics(gan, config)
    if is_export:
        name, made = of_export(path)
    else:
        which = protocol.weights if config.ema is None else f"ema of length {config.ema:g}"
        name, made = of_run(path, config.checkpoint, weights or which)
    standing = config.standing_statistics
    sha256, weights = made["checkpoint_sha256"], made["weights"]
    return GanImages(
        gan,
        seed=config.seed,
        truncation=truncation,
        origin=f"{sha256} {weights} {standing} {config.seed if standing else ''} {config.source or ''}",
        name=f"{name}, {gan.kimg:g} kimg, {weights})",
        description={**made, "kimg": gan.kimg, "standing_statistics": standing},
    )


def of_run(path: Path, checkpoint: str | None, weights: str) -> tuple[str, dict[str, str]]:
    """Return the name (with an open bracket) and the origin of a run's generator."""
    source = checkpoint_path(path, checkpoint)
    folder = source.parent.parent
    return f"{folder} ({source.name}", {
        "run": str(folder),
        "checkpoint": source.name,
        "checkpoint_sha256": file_sha256(source),
        "weights": weights,
    }


def of_export(folder: Path) -> tuple[str, dict[str, str]]:
    """Return the same of an exported model, whose files were checked when it was loaded."""
    generator = exported.read_description(folder)["generator"]
    return f"{folder} (exported", {
        "run": str(folder),
        "checkpoint": exported.WEIGHTS["generator"],
        "checkpoint_sha256": generator["sha256"],
        "weights": generator["weights"],
    }


def compare_shapes(fake: ImageSource, real: ImageSource) -> None:
    """Warn of sets with different shapes or classes."""
    if fake.shape != real.shape:
        warn(
            f"{fake.name} have the shape {list(fake.shape)} and {real.name} {list(real.shape)}: the metrics will tell "
            "that difference"
        )
    if apart := label_difference(fake, real):
        warn(f"{apart}: the metrics will tell that difference")
