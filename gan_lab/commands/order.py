"""What generate is asked for: images, their settings, and where they go."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from torch import Tensor

from gan_lab.commands.folders import check_folder, digest_of, output_folder, source_of, weights_of
from gan_lab.commands.options import (
    check_rendering,
    labels_text,
    open_gan,
    parse_classes,
    parse_labels,
    parse_seeds,
    seeds_text,
    transform_of,
)
from gan_lab.data.sample import SampleKind
from gan_lab.errors import InputError
from gan_lab.sampling.directions import Directions
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import SUFFIX, is_finite_number
from gan_lab.sampling.series import Series, labels_for
from gan_lab.sampling.writers import ENCODINGS

CONTAINERS = {
    "grid": "grid.png",
    "npz": "images.npz",
    "zip": "images.zip",
    "latents": f"latents{SUFFIX}",
}
SOUNDS = ("wav", "flac")
FORMATS = (*ENCODINGS, *SOUNDS, "files", *CONTAINERS)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be drawn, and where it goes.

    Attributes:
        series: the images.
        formats: of files.
        folder: for them.
        settings: all that decides what an image of a seed and class looks like.
        columns: of the grid.
        metadata: of latents.
    """

    series: Series
    formats: list[str]
    folder: Path
    settings: dict[str, Any]
    columns: int
    metadata: dict[str, str] = field(default_factory=dict)


def open_task(config: DictConfig) -> Task:
    """Load the generator and check everything that can be known before an image is drawn.

    Raises:
        InputError: for what cannot be used.
    """
    formats = check_formats(config.format)
    seeds = None if config.seeds is None else parse_seeds(config.seeds)
    if seeds is not None and config.latents is not None:
        raise InputError("seeds= and latents= both say what is drawn; give one of them")
    gan = open_gan(config)
    if config.source is not None:
        gan = gan.with_sources(config.source)
    formats = formats_for(formats, gan, scale=config.scale)
    series = moved(config, series_of(config, gan, seeds))
    settings = settings_of(config, gan)
    folder = output_folder(config, gan, folder_parts(config, seeds))
    stem = Path(config.latents).stem if config.latents is not None else "seed"
    suffixes = {*(f".{kind}" for kind in ENCODINGS), *suffixes_of(gan.spec.kind)}
    names = [f"{stem}*{suffix}" for suffix in sorted(suffixes)] + list(CONTAINERS.values())
    check_folder(folder, settings, names)
    columns = config.columns or default_columns(config, series)
    metadata = {key: str(value) for key, value in settings.items() if value is not None}
    metadata |= {
        "kind": "generate",
        "model": gan.kind,
        "seed": str(config.seed) if seeds is None else seeds_text(seeds),
    }
    return Task(
        series=series,
        formats=formats,
        folder=folder,
        settings=settings,
        columns=columns,
        metadata=metadata,
    )


def series_of(config: DictConfig, gan: Gan, seeds: list[int] | None) -> Series:
    """Return what is to be drawn.

    Raises:
        InputError: for classes or latents that there are not, and what means nothing to the generator.
    """
    check_rendering(config, gan)
    drawn: dict[str, Any] = {
        "gan": gan,
        "truncation": config.truncation,
        "truncation_center": config.truncation_center,
        "noise": config.noise,
        "transform": transform_of(config),
    }
    classes = parse_classes(config.classes, gan)
    given = parse_labels(config.labels, gan) if classes is None else classes
    if config.latents is not None:
        if given is not None:
            what = "classes" if classes is not None else "labels"
            raise InputError(
                f"{what}= and latents=: latents bring their {what} along; leave one out"
            )
        latents = gan.read_latents(config.latents)
        stem = Path(config.latents).stem
        return Series(count=len(latents), seed=config.seed, latents=latents, stem=stem, **drawn)
    if seeds is not None:
        if len(set(seeds)) < len(seeds):
            twice = next(seed for seed, number in Counter(seeds).items() if number > 1)
            raise InputError(f"seeds={config.seeds}: {twice} is given twice")
        if classes is not None:
            classes = list(dict.fromkeys(classes))
            given = classes
        labels = labels_for(given, len(seeds))
        seeds = seeds * len(given or [0])
        return Series(count=len(seeds), seed=seeds, labels=labels, **drawn)
    labels = labels_for(given, config.num_images)
    count = config.num_images if labels is None else len(labels)
    return Series(count=count, seed=config.seed, labels=labels, **drawn)


def moved(config: DictConfig, series: Series) -> Series:
    """Return the series with its latents moved along directions, where that is asked for.

    Raises:
        InputError: for directions without amounts, amounts without directions, and what does not fit.
    """
    if (config.directions is None) != (config.move is None):
        raise InputError(
            "directions= and move= go together: a file of gan-lab directions, and how far, such as move=[2,-1]"
        )
    if config.directions is None:
        return series
    directions = Directions.read(config.directions, gan=series.gan)
    given = as_list(config.move)
    if not given or not all(is_finite_number(value) for value in given):
        raise InputError(f"move={config.move} must be numbers, such as [2,-1]")
    if len(given) > len(directions):
        raise InputError(
            f"move={config.move}: {config.directions} has {len(directions)} directions"
        )
    return replace(series, directions=directions, amounts=tuple(map(float, given)))


def as_list(given: object) -> list[Any]:
    """Return the items of a list of a configuration, and one value as one item."""
    return list(given) if isinstance(given, ListConfig) else [given]


def default_columns(config: DictConfig, series: Series) -> int:
    """Return how many columns a grid has: a class or a label a row, or about as many as rows."""
    rows = len(series.label_sets)
    if isinstance(series.labels, Tensor):
        rows = len(series.labels.unique_consecutive())
    elif rows < 2:
        return ceil(sqrt(series.count))
    return series.count // rows


def settings_of(config: DictConfig, gan: Gan) -> dict[str, Any]:
    """Return all that decides what an image of a seed and class looks like."""
    standing = config.standing_statistics
    return {
        "source": "/".join(source_of(config)),
        "kimg": gan.kimg,
        "weights": weights_of(config),
        "truncation": config.truncation,
        "truncation_center": config.truncation_center,
        "noise": config.noise,
        "translate": None if config.translate is None else list(config.translate),
        "rotate": config.rotate,
        "standing_statistics": standing,
        "statistics_seed": None if standing is None else config.seed,
        "latents": None if config.latents is None else digest_of(Path(config.latents)),
        "directions": None if config.directions is None else digest_of(Path(config.directions)),
        "move": None if config.move is None else as_list(config.move),
        "labels": None if config.labels is None else str(config.labels),
        "sources": None if config.source is None else str(config.source),
    }


def folder_parts(config: DictConfig, seeds: list[int] | None) -> list[str]:
    """Return what a folder's name says of what changes the images in it."""
    if config.latents is not None:
        parts = [Path(config.latents).stem]
    elif seeds is not None:
        parts = [f"seeds{seeds_text(seeds)}"]
    else:
        parts = [f"seed{config.seed}"]
    if config.labels is not None:
        parts += labels_text(config)
    if config.source is not None:
        parts.append(f"of-{Path(config.source).stem}")
    if config.move is not None:
        parts.append("moved" + ",".join(map(str, as_list(config.move))))
    if config.truncation is not None:
        parts.append(f"truncation{config.truncation}")
    if config.truncation_center != "mean":
        parts.append(f"{config.truncation_center}-center")
    if config.noise != "const":
        parts.append(f"{config.noise}-noise")
    if config.translate is not None:
        parts.append("translate" + ",".join(map(str, config.translate)))
    if config.rotate:
        parts.append(f"rotate{config.rotate}")
    if config.standing_statistics is not None:
        parts.append(f"standing{config.standing_statistics}")
    return parts


def check_formats(formats: str | Sequence[str]) -> list[str]:
    """Return the formats as a list.

    Raises:
        InputError: for one that there is not.
    """
    given = [formats] if isinstance(formats, str) else list(formats)
    wrong = [name for name in given if name not in FORMATS]
    if wrong or not given:
        raise InputError(f"format={given}: choose from {', '.join(FORMATS)}")
    return list(dict.fromkeys(given))


def formats_for(formats: list[str], gan: Gan, *, scale: int) -> list[str]:
    """Return the formats that a generator's samples are written in; files of images are PNG, others by their suffix.

    Raises:
        InputError: for formats of another kind.
    """
    spec = gan.spec
    own = [suffix.removeprefix(".") for suffix in suffixes_of(spec.kind)]
    formats = list(dict.fromkeys(own[0] if name == "files" else name for name in formats))
    allowed = [*(ENCODINGS if spec.is_image else own), *CONTAINERS]
    if not spec.is_image:
        allowed.remove("zip")
    for name in formats:
        if name not in allowed:
            raise InputError(
                f"format={name} is of another kind: {gan.kind} makes {spec.kind.name}; choose from "
                f"{', '.join(['files', *allowed])}"
            )
    if spec.is_image:
        return formats
    if scale != 1:
        raise InputError(f"scale={scale} is for images, and {gan.kind} makes {spec.kind.name}")
    return formats


def suffixes_of(kind: SampleKind) -> tuple[str, ...]:
    """Return the suffixes of files that a kind writes, its own first."""
    return tuple(dict.fromkeys((kind.suffix, *kind.suffixes)))
