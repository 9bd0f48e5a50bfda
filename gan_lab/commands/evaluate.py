"""gan-lab evaluate: the figures of a trained run, or of any images against any others, with how they were made."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gan_lab.checkpoint import CONFIG_FILE, checkpoint_path, load, read_config
from gan_lab.commands.generate import measure_statistics, pick_device
from gan_lab.commands.plots import check_curve, save_curve, save_plots
from gan_lab.commands.results import add_result, circumstances
from gan_lab.config import build, cache_dir, check_targets
from gan_lab.console import console, say, warn
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.errors import InputError
from gan_lab.features.weights import file_sha256
from gan_lab.images import save_png
from gan_lab.metrics.auto import MetricsByData
from gan_lab.metrics.chunks import FolderChunks
from gan_lab.metrics.exchange import is_features_file, load_features, save_features
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.figures import Figure
from gan_lab.metrics.generator_figures import GeneratorMeasure
from gan_lab.metrics.images import DatasetImages, GanImages, ImageSource
from gan_lab.metrics.npz import NpzImages
from gan_lab.metrics.opening import open_files
from gan_lab.metrics.pictures import nearest_pairs
from gan_lab.metrics.plots import check_matplotlib
from gan_lab.metrics.preview import preview
from gan_lab.metrics.protocol import Protocol
from gan_lab.seeding import check_seed


def run(config: DictConfig) -> None:
    """Measure, print a table and add the result to the JSON.

    Raises:
        InputError: for images or a protocol that cannot be used, before anything expensive where it can be known.
    """
    check_seed(config.seed)
    fake_path = given(config)
    is_run = holds_run(fake_path)
    trained = read_config(run_folder(fake_path)) if is_run else None
    own_data = trained is not None and (config.real is None or config.get("protocol") is None)
    data = open_data(config, trained, fake_path) if trained is not None and own_data else None
    protocol = choose_protocol(config, trained, data, fake_path)
    protocol.batch_size = config.batch_size
    real, floor = open_real(config, protocol, data)
    fake = open_fake(config, protocol, fake_path, is_run)
    if real is not None:
        compare_shapes(fake, real)
    check_curve(config.curve, plots=config.plots, is_run=is_run)
    if config.plots:
        check_matplotlib()
    features_file = real is None and config.real is not None
    if not features_file:
        protocol.check(real=real, fake=fake)
    protocol.load(pick_device(config.device))
    if features_file:
        protocol.use_real(load_features(Path(config.real), protocol.features, protocol.real_needs))
    if config.preview:
        say(preview(protocol, fake, real, fake_store(protocol, fake)))
        return
    begin = time.perf_counter()
    made, figures = measure(protocol, fake, real, floor)
    result = as_result(protocol, fake, figures)
    result["seed"] = config.seed if is_run else None
    result["seconds"] = time.perf_counter() - begin
    say(as_table(result, fake))
    out = Path(config.out) if config.out else default_out(fake_path, is_run)
    add_result(result, out)
    fake_store(protocol, fake).clear()
    say(f"wrote {out}")
    for path in save_pictures(figures, fake, real, out.parent):
        say(f"wrote {path}")
    if config.plots:
        for path in save_plots(figures, protocol.real, made, out.parent, title=fake.name):
            say(f"wrote {path}")
    if config.curve:
        say(f"wrote {draw_curve(config, protocol, fake_path, out)}")
    if config.export_real and protocol.real is not None:
        save_features(protocol.real, protocol.features, Path(config.export_real))
        say(f"wrote {config.export_real}")


def as_result(protocol: Protocol, fake: ImageSource, figures: list[Figure]) -> dict[str, Any]:
    """Return the figures with all that says how they were made."""
    return {
        "protocol": protocol.name,
        "figures": [vars(figure) for figure in figures],
        "num_fake": protocol.num_fake,
        "num_real": 0 if protocol.real is None else protocol.real.count,
        "fake": dict(fake.description),
        "real": None if protocol.real is None else dict(protocol.real.source.description),
        "extractor": dict(protocol.protocol),
        "settings": protocol.settings,
        **circumstances(protocol.features.device),
    }


def given(config: DictConfig) -> Path:
    """Return the path of what is to be measured.

    Raises:
        InputError: when there is none, or two.
    """
    if (config.run is None) == (config.fake is None):
        raise InputError(
            "run= is missing; give run=runs/<name>, or fake= and real= for images of any other origin"
            if config.run is None
            else "run= and fake= both name what is to be measured; give one of them"
        )
    return Path(config.run or config.fake).expanduser()


def holds_run(path: Path) -> bool:
    """Whether a path is a run folder or a checkpoint, by what is there; what does not exist is taken for a run."""
    if path.suffix in (".npz", ".zip"):
        return False
    return (
        path.suffix == ".ckpt"
        or not path.exists()
        or (path / "checkpoints").is_dir()
        or (path / CONFIG_FILE).exists()
    )


def run_folder(path: Path) -> Path:
    """Return the folder of a run or of one of its checkpoints."""
    return path.parent.parent if path.is_file() else path


def choose_protocol(
    config: DictConfig, trained: DictConfig | None, data: ImageDataModule | None, path: Path
) -> Protocol:
    """Build the protocol that was asked for, or the one that the run was trained with.

    Raises:
        InputError: when there is none.
    """
    node = config.get("protocol")
    if node is None:
        if trained is None:
            raise InputError(
                "protocol= is missing; choose one, such as protocol=fid10k or protocol=kid5k"
            )
        node = trained.metrics
        try:
            check_targets(node, trust=config.trust, origin=run_folder(path) / CONFIG_FILE)
        except ImportError as error:  # a run of an earlier version names classes that are no more
            raise InputError(
                f"the metrics that {path} was trained with are not there any more; choose protocol=, such as fid10k"
            ) from error
    if config.get("features") is not None:
        node = with_features(node, config.features)
    built = build(node)
    if isinstance(built, MetricsByData) and data is not None:
        built = built.suiting(data.train)
    if not isinstance(built, Protocol):
        raise InputError(
            f"{path} was trained without metrics; choose protocol=, such as fid10k or digits"
        )
    return built


def with_features(node: DictConfig, features: DictConfig) -> DictConfig:
    """Return a protocol with another extractor, without the figures that it has no output for."""
    extractor = build(features)
    changed = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    assert isinstance(changed, DictConfig)
    with open_dict(changed):
        changed.features = features
        changed.name = f"{node.name}_{extractor.short}"
        for name, figure in list(changed.figures.items()):
            made = None if figure is None else build(figure)
            if made is None or isinstance(made, GeneratorMeasure):
                continue
            if made.output not in extractor.outputs:
                say(f"figures.{name} is left out: {extractor.name} has no output {made.output!r}")
                changed.figures[name] = None
    return changed


def open_data(config: DictConfig, trained: DictConfig, path: Path) -> ImageDataModule:
    """Open the data of a trained run again."""
    check_targets(trained.data, trust=config.trust, origin=run_folder(path) / CONFIG_FILE)
    return ImageDataModule(
        dataset=build(OmegaConf.merge(trained.data, config.data)),
        batch_size=trained.batch_size,
        d_steps=trained.d_steps,
        total_images=1,
        seed=trained.seed,
        num_workers=trained.num_workers,
    )


def open_real(
    config: DictConfig, protocol: Protocol, data: ImageDataModule | None
) -> tuple[ImageSource | None, ImageSource | None]:
    """Open the real images and those of the protocol's floor; None where there are none, or only their features.

    Raises:
        InputError: when there are none and figures compare with them.
    """
    if config.real is not None:
        path = Path(config.real).expanduser()
        if is_features_file(path):
            return None, None
        if path.exists() and holds_run(path):
            return open_run(config, path, protocol), None
        return open_files(path, num=protocol.num_real, **config.files), None
    if data is not None:
        return protocol.real_images(data), protocol.floor_images(data)
    if protocol.real_needs:
        raise InputError("real= is missing: give the images that fake= is compared with")
    return None, None


def open_fake(config: DictConfig, protocol: Protocol, path: Path, is_run: bool) -> ImageSource:
    """Open what is to be measured."""
    if is_run:
        return open_run(config, path, protocol)
    return open_files(path, num=protocol.num_fake, **config.files)


def open_run(config: DictConfig, path: Path, protocol: Protocol) -> GanImages:
    """Load the generator of a run and return what it draws."""
    weights = config.weights or protocol.weights
    truncation = protocol.truncation if config.truncation is None else config.truncation
    source = checkpoint_path(path, config.checkpoint)
    gan = load(
        path,
        checkpoint=config.checkpoint,
        weights=weights,
        device=pick_device(config.device),
        trust=config.trust,
    )
    gan.check_truncation(truncation)
    with open_dict(config):
        config.truncation = truncation
    measure_statistics(gan, config)
    sha256 = file_sha256(source)
    standing = config.standing_statistics
    return GanImages(
        gan,
        seed=config.seed,
        truncation=truncation,
        origin=f"{sha256} {weights} {standing} {config.seed if standing else ''}",
        name=f"{source.parent.parent} ({source.name}, {gan.kimg:g} kimg, {weights})",
        description={
            "run": str(source.parent.parent),
            "checkpoint": source.name,
            "checkpoint_sha256": sha256,
            "kimg": gan.kimg,
            "weights": weights,
            "standing_statistics": standing,
        },
    )


def compare_shapes(fake: ImageSource, real: ImageSource) -> None:
    """Warn of sets that differ in more than what they show."""
    for what in ("image_size", "channels"):
        ours, theirs = getattr(fake, what), getattr(real, what)
        if ours != theirs:
            warn(
                f"{what} is {ours} of {fake.name} and {theirs} of {real.name}: the figures will tell that difference"
            )


def fake_store(protocol: Protocol, fake: ImageSource) -> FolderChunks:
    """Return where features of generated images wait until their result is written."""
    return FolderChunks(cache_dir() / "features" / f"fake-{protocol.fake_extraction(fake).key}")


def measure(
    protocol: Protocol, fake: ImageSource, real: ImageSource | None, floor: ImageSource | None
) -> tuple[FeatureSet, list[Figure]]:
    """Measure with a progress bar; Ctrl-C loses a few images. Returns the generated images' features, too."""
    try:
        if real is not None:
            with bar("real images", protocol.real_extraction(real).num) as advance:
                protocol.measure_real(real, floor=floor, progress=advance)
        with bar("generated images", protocol.num_fake) as advance:
            made = protocol.extract(fake, fake_store(protocol, fake), advance)
        return made, protocol.figures_of(made)
    except KeyboardInterrupt:
        say(
            "stopped; features that were extracted are kept, and the same command goes on with them"
        )
        raise


def draw_curve(config: DictConfig, protocol: Protocol, path: Path, out: Path) -> Path:
    """Measure at each truncation of `curve=`, add the results to the JSON, and draw them."""

    def measured(truncation: float) -> list[Figure]:
        at = config.copy()
        at.truncation = truncation
        fake = open_run(at, path, protocol)
        begin = time.perf_counter()
        _, figures = measure(protocol, fake, None, None)
        result = as_result(protocol, fake, figures)
        result |= {"seed": config.seed, "seconds": time.perf_counter() - begin}
        add_result(result, out)
        fake_store(protocol, fake).clear()
        return figures

    best = protocol.best
    return save_curve(config.curve, measured, best, out.parent, title=str(run_folder(path)))


@contextmanager
def bar(what: str, total: int) -> Iterator[Any]:
    """Show progress on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        task = shown.add_task(what, total=total)
        yield lambda done: shown.update(task, completed=done)


def save_pictures(
    figures: list[Figure], fake: ImageSource, real: ImageSource | None, folder: Path
) -> Iterator[Path]:
    """Write what figures have found that can be seen: generated images above their nearest real ones."""
    for figure in figures:
        if "nearest" in figure.detail and isinstance(real, DatasetImages | NpzImages):
            path = folder / f"{figure.key}_nearest.png"
            save_png(nearest_pairs(figure.detail["nearest"], fake, real), path)
            yield path


def default_out(path: Path, is_run: bool) -> Path:
    """Return where results go."""
    return (run_folder(path) if is_run else Path()) / "evaluation.json"


def as_table(result: dict[str, Any], fake: ImageSource) -> Table:
    """Return the figures as a table."""
    title = f"{fake.name}, protocol {result['protocol']}"
    table = Table(title=title, title_justify="left", show_header=False)
    for figure in result["figures"]:
        value = (
            f"{figure['value']:.4g}" if abs(figure["value"]) < 1e-2 else f"{figure['value']:.4f}"
        )
        if figure["uncertainty"] is not None:
            value += f" ± {figure['uncertainty']:.2g} ({figure['uncertainty_kind']})"
        table.add_row(figure["key"], value)
    return table
