"""gan-lab evaluate: the metrics of a trained run, or of any two sets of samples."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, open_dict
from pydantic import Field
from rich.table import Table

from gan_lab.commands.options import measure_statistics, pick_device
from gan_lab.config import Count, build, cache_dir, merged, take, to_containers
from gan_lab.console import is_first, progress_bar, say, warn
from gan_lab.data.base import SampleDataset
from gan_lab.data.datamodule import DataModule
from gan_lab.data.images import save_png
from gan_lab.distributed.processes import run_in_processes
from gan_lab.distributed.ranks import Ranks
from gan_lab.errors import InputError
from gan_lab.metrics.base import Metrics, MetricsByData
from gan_lab.metrics.cache import FolderChunks
from gan_lab.metrics.feature_metrics import MetricValue, ProtocolMetric
from gan_lab.metrics.feature_set import FeatureSet, is_features_file, load_features, save_features
from gan_lab.metrics.features import Extractor, file_sha256
from gan_lab.metrics.plots import (
    check_matplotlib,
    draw_classes,
    draw_components,
    draw_truncation,
    nearest_pairs,
    preview,
)
from gan_lab.metrics.protocol import Protocol
from gan_lab.metrics.sources import (
    DatasetImages,
    GanImages,
    ImageSource,
    NpzImages,
    label_difference,
    open_files,
)
from gan_lab.run import add_result, check_writable, circumstances, read_results
from gan_lab.training.checkpoint import CONFIG_FILE, checkpoint_path, read_config
from gan_lab.weights import exported
from gan_lab.weights.exported import is_export
from gan_lab.weights.loading import load, load_discriminator, local

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
            else "run= and fake= cannot be combined; give one of them"
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
    """Build the requested protocol, or the one that the run was trained with.

    Raises:
        InputError: when there is none.
    """
    node = to_containers(config.get("protocol"))
    make: Build = build
    if node is None:
        if trained is None:
            raise InputError(
                "protocol= is missing; choose one, such as protocol=fid10k, or protocol=kid_small for few images"
            )
        file = run_folder(path) / CONFIG_FILE
        node = take(trained, "metrics", dict[str, Any], origin=file)
        make = partial(build, origin=file, trust=config.trust)
    try:
        if config.get("features") is not None:
            built = with_features(node, to_containers(config.features), make)
        else:
            built = make(node, Metrics)
    except InputError as error:
        if trained is None or config.get("protocol") is not None:
            raise
        # a run of an earlier version may name classes that no longer exist
        raise InputError(f"{error}; or choose protocol=, such as fid10k") from error
    if isinstance(built, MetricsByData) and data is not None:
        built = built.choose_for(data.train)
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
        InputError: for metrics that are not a protocol.
    """
    metrics = node.get("metrics")
    if not isinstance(metrics, Mapping):
        raise InputError("features= is for a protocol; choose one, such as protocol=fid10k")
    extractor = build(features, Extractor)
    kept = dict(metrics)
    for name, metric in metrics.items():
        made = None if metric is None else make(metric, ProtocolMetric)
        missing = [] if made is None else sorted({*made.real, *made.fake} - {*extractor.outputs})
        if missing:
            say(f"metrics.{name} is left out: {extractor.name} has no output {missing[0]!r}")
            kept[name] = None
    changed = {**node, "metrics": kept, "name": f"{node.get('name')}_{extractor.short}"}
    return make(changed, Metrics, features=extractor)


def open_data(config: DictConfig, trained: Mapping[str, Any], path: Path) -> DataModule:
    """Open a trained run's data.

    Raises:
        InputError: when its config does not describe them, or names other code.
    """
    file = run_folder(path) / CONFIG_FILE
    data = take(trained, "data", dict[str, Any], origin=file)
    return DataModule(
        dataset=build(
            merged(data, to_containers(config.data)),
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
    held_out = None
    if config.held_out is not None:
        held_out = open_files(local(config.held_out), **config.files)
    if config.real is not None:
        path = local(config.real)
        if is_features_file(path):
            return None, held_out
        if path.exists() and holds_run(path):
            return open_run(config, path, protocol), held_out
        return open_files(path, num=protocol.num_real, **config.files), held_out
    if data is not None:
        return protocol.real_images(data), held_out or protocol.reference_images(data)
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
    discriminate = None
    if any(metric.needs_discriminator for metric in protocol.metrics.values()):
        discriminate = load_discriminator(
            path, gan, checkpoint=config.checkpoint, trust=config.trust
        )
    sha256, weights = made["checkpoint_sha256"], made["weights"]
    return GanImages(
        gan,
        seed=config.seed,
        truncation=truncation,
        origin=f"{sha256} {weights} {standing} {config.seed if standing else ''} {config.source or ''}",
        name=f"{name}, {gan.kimg:g} kimg, {weights})",
        description={**made, "kimg": gan.kimg, "standing_statistics": standing},
        discriminate=discriminate,
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
    """Return the name and origin of an exported model, whose files were checked when it was loaded."""
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
            f"{fake.name} have the shape {list(fake.shape)} and {real.name} {list(real.shape)}: the metrics will "
            "measure that difference"
        )
    if difference := label_difference(fake, real):
        warn(f"{difference}: the metrics include that difference")


def run(config: DictConfig) -> None:
    """Compute the metrics, print a table and add the result to the JSON; in one or several processes.

    Raises:
        InputError: for unusable images or protocol, before anything expensive where possible.
    """
    run_in_processes(config, check=open_task, work=evaluate)


@dataclass(frozen=True, kw_only=True)
class Task:
    """The evaluation: protocol, images, and where results go.

    Attributes:
        path: of the images or their generator.
        is_run: whether it is a run or an exported model.
        protocol: of the metrics; nothing is loaded yet.
        fake: the images.
        real: real images; None without, and where only their features are given.
        reference: real images evaluated as if generated, to compare with.
    """

    path: Path
    is_run: bool
    protocol: Protocol
    fake: ImageSource
    real: ImageSource | None
    reference: ImageSource | None


def open_task(config: DictConfig) -> Task:
    """Open all inputs and check them before anything is loaded.

    Raises:
        InputError: for invalid options.
    """
    path = given(config)
    is_run = holds_run(path)
    check_truncations(config.truncations, plots=config.plots, is_run=is_run)
    if config.plots:
        check_matplotlib()
    if not config.preview:
        read_results(out_of(config, path, is_run))
        check_writable(out_of(config, path, is_run))
        if config.save_real_features:
            check_writable(Path(config.save_real_features))
    trained = read_config(run_folder(path)) if is_run and not is_export(path) else None
    own_data = trained is not None and (config.real is None or config.get("protocol") is None)
    data = open_data(config, trained, path) if trained is not None and own_data else None
    protocol = choose_protocol(config, trained, data, path)
    protocol.batch_size = config.batch_size
    real, reference = open_real(config, protocol, data)
    fake = open_fake(config, protocol, path, is_run)
    if isinstance(fake, GanImages) and data is not None:
        fake.use_data(data.sources, data.label_rows)
    if real is not None:
        compare_shapes(fake, real)
    if real is not None or config.real is None:
        protocol.check(real=real, fake=fake, reference=reference)
    return Task(
        path=path, is_run=is_run, protocol=protocol, fake=fake, real=real, reference=reference
    )


def evaluate(config: DictConfig) -> None:
    """Compute the metrics in all processes; the first one writes.

    Raises:
        InputError: as `run`.
    """
    task = open_task(config)
    protocol, fake, real = task.protocol, task.fake, task.real
    protocol.load(pick_device(config.device))
    if real is None and config.real is not None:
        protocol.use_real(load_features(Path(config.real), protocol.features, protocol.real_needs))
    if config.preview:
        if is_first():
            say(preview(protocol, fake, real, fake_store(protocol, fake)))
        return
    begin = time.perf_counter()
    made, metrics = measure(protocol, fake, real, task.reference)
    result = as_result(protocol, fake, metrics)
    result["seed"] = config.seed if task.is_run else None
    result["seconds"] = time.perf_counter() - begin
    # rich would wrap the title to the width of a narrow table
    say(f"{fake.name}, protocol {protocol.name}")
    if fake.description.get("labels"):
        say(f"labels: {fake.description['labels']}")
    say(as_table(result))
    for metric in metrics:
        if "verdict" in metric.detail:
            say(metric.detail["text"])
    out = out_of(config, task.path, task.is_run)
    if is_first():
        add_result(result, out)
        say(f"wrote {out}")
        for path in save_files(config, protocol, metrics, (fake, made), real, out.parent):
            say(f"wrote {path}")
    fake_store(protocol, fake).clear()
    if config.truncations:
        draw_curve(config, protocol, task.path, out)


def save_files(
    config: DictConfig,
    protocol: Protocol,
    metrics: list[MetricValue],
    fake: tuple[ImageSource, FeatureSet],
    real: ImageSource | None,
    folder: Path,
) -> Iterator[Path]:
    """Write plots and images, and yield their files."""
    images, made = fake
    yield from save_images(metrics, images, real, folder)
    if config.plots:
        yield from save_plots(metrics, protocol.real, made, folder, title=images.name)
    if config.save_real_features and protocol.real is not None:
        path = Path(config.save_real_features)
        save_features(protocol.real, protocol.features, path)
        yield path


def as_result(protocol: Protocol, fake: ImageSource, metrics: list[MetricValue]) -> dict[str, Any]:
    """Return the metrics and everything they depend on, as JSON."""
    return {
        "protocol": protocol.name,
        "metrics": [vars(metric) for metric in metrics],
        "num_fake": protocol.num_fake,
        "num_real": 0 if protocol.real is None else protocol.real.count,
        "fake": dict(fake.description),
        "real": None if protocol.real is None else dict(protocol.real.source.description),
        "extractor": dict(protocol.provenance),
        "settings": protocol.settings,
        "processes": Ranks.current().size,
        **circumstances(protocol.features.device),
    }


def fake_store(protocol: Protocol, fake: ImageSource) -> FolderChunks:
    """Return the store of features of generated images (it survives a kill)."""
    return FolderChunks(cache_dir() / "features" / f"fake-{protocol.fake_extraction(fake).key}")


def measure(
    protocol: Protocol, fake: ImageSource, real: ImageSource | None, reference: ImageSource | None
) -> tuple[FeatureSet, list[MetricValue]]:
    """Compute the metrics with a progress bar; Ctrl-C loses few images. Returns the generated images' features, too."""
    try:
        if real is not None:
            with progress_bar("real images", protocol.real_extraction(real).num) as advance:
                protocol.measure_real(real, reference=reference, progress=advance)
        with progress_bar("generated images", protocol.num_fake) as advance:
            made = protocol.extract(fake, fake_store(protocol, fake), advance)
        things = sum(metric.num(protocol.context) for metric in protocol.of_generator)
        with progress_bar("the generator", things) as advance:
            return made, protocol.metrics_of(made, fake_store(protocol, fake), advance)
    except KeyboardInterrupt:
        say("stopped; extracted features are kept, and the same command resumes")
        raise


def draw_curve(config: DictConfig, protocol: Protocol, path: Path, out: Path) -> None:
    """Compute the metrics at each truncation of `truncations=`, add them to the JSON, and plot them."""
    found = {}
    for truncation in sorted(set(config.truncations)):
        at = config.copy()
        at.truncation = truncation
        fake = open_run(at, path, protocol)
        begin = time.perf_counter()
        _, metrics = measure(protocol, fake, None, None)
        result = as_result(protocol, fake, metrics)
        result |= {"seed": config.seed, "seconds": time.perf_counter() - begin}
        if is_first():
            add_result(result, out)
        fake_store(protocol, fake).clear()
        found[truncation] = {metric.key: metric.value for metric in metrics}
    if is_first():
        title = str(run_folder(path))
        say(f"wrote {save_curve(found, protocol.best, out.parent, title=title)}")


def save_images(
    metrics: list[MetricValue], fake: ImageSource, real: ImageSource | None, folder: Path
) -> Iterator[Path]:
    """Write images: generated samples above their nearest real ones."""
    for metric in metrics:
        if "nearest" in metric.detail and isinstance(real, DatasetImages | NpzImages):
            path = folder / f"{metric.key}_nearest.png"
            save_png(nearest_pairs(metric.detail["nearest"], fake, real), path)
            yield path


def out_of(config: DictConfig, path: Path, is_run: bool) -> Path:
    """Return the path of the results."""
    if config.out:
        return Path(config.out)
    return (run_folder(path) if is_run and not is_export(path) else Path()) / "evaluation.json"


def as_table(result: dict[str, Any]) -> Table:
    """Return the metrics as a table."""
    table = Table(show_header=False)
    for metric in result["metrics"]:
        value = (
            f"{metric['value']:.4g}" if abs(metric["value"]) < 1e-2 else f"{metric['value']:.4f}"
        )
        if metric["uncertainty"] is not None:
            value += f" ± {metric['uncertainty']:.2g} ({metric['uncertainty_kind']})"
        table.add_row(metric["key"], value)
    return table


# Plots (plots=true).

_SHARES = ("precision", "recall", "coverage")


def check_truncations(truncations: Sequence[float], *, plots: bool, is_run: bool) -> None:
    """Check `truncations=` before anything is measured.

    Raises:
        InputError: with what to do.
    """
    if not truncations:
        return
    if not (plots and is_run):
        raise InputError(
            f"truncations={list(truncations)} draws metrics over truncation; set plots=true, and run= of a generator"
        )
    if len(set(truncations)) < 2:
        raise InputError(f"truncations={list(truncations)}: give two values of truncation or more")


def save_plots(
    metrics: list[MetricValue],
    real: FeatureSet | None,
    fake: FeatureSet,
    folder: Path,
    *,
    title: str,
) -> Iterator[Path]:
    """Plot features and classes, where the protocol has them, and yield the files."""
    shared = [] if real is None else [o for o in fake.features if o in real.features]
    outputs = [output for output in shared if fake.features[output].shape[1] > 1]
    if real is not None and "features" in outputs:
        path = folder / "features.png"
        draw_components(real.features["features"], fake.features["features"], path, title=title)
        yield path
    else:
        say(
            "no plot of features: this protocol's metrics only need statistics; use protocol=all10k"
        )
    for metric in metrics:
        if "classes" in metric.detail:
            path = folder / f"{metric.key}.png"
            draw_classes(metric.detail["classes"], path, title=metric.key)
            yield path


def save_curve(
    found: Mapping[float, Mapping[str, float]], best: str | None, folder: Path, *, title: str
) -> Path:
    """Draw metrics over truncation.

    Args:
        found: truncation -> key -> value, in order.
        best: key of the distance that is drawn; None draws none.
        folder: of the file.
        title: above the drawing.

    Raises:
        InputError: when there is nothing to draw.
    """
    keys = next(iter(found.values())).keys()
    over = {key: [values[key] for values in found.values()] for key in keys}
    distances = {key: values for key, values in over.items() if key == best}
    shares = {key: values for key, values in over.items() if key.split("_")[0] in _SHARES}
    if not distances and not shares:
        raise InputError(
            "truncations= draws the protocol's best metric, precision, recall and coverage, none of which it has"
        )
    path = folder / "truncation.png"
    draw_truncation(list(found), distances, shares, path, title=title)
    return path
