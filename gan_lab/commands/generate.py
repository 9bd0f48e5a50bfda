"""gan-lab generate: draw samples of a trained run and write them to files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from torch import Tensor, distributed

from gan_lab.commands.options import (
    check_folder,
    check_sampling_options,
    chosen_formats,
    digest_of,
    keep_settings,
    labels_text,
    open_gan,
    output_folder,
    parse_classes,
    parse_labels,
    parse_seeds,
    seeds_text,
    source_of,
    transform_of,
    weights_of,
)
from gan_lab.console import progress_bar, say
from gan_lab.data.sample import SampleKind, SampleSpec
from gan_lab.distributed.processes import run_in_processes
from gan_lab.distributed.ranks import Ranks
from gan_lab.errors import InputError, counted
from gan_lab.run import remove_leftovers
from gan_lab.sampling.directions import Directions
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import SUFFIX, is_finite_number
from gan_lab.sampling.writers import (
    ENCODINGS,
    GridFile,
    ImagesZip,
    JsonLines,
    LatentsFile,
    Npz,
    SampleBlock,
    SampleRequest,
    SingleFiles,
    TextFile,
    Writer,
    labels_for,
    save_image,
)

CONTAINERS = {
    "grid": "grid.png",
    "npz": "images.npz",
    "zip": "images.zip",
    "txt": "samples.txt",
    "jsonl": "samples.jsonl",
    "latents": f"latents{SUFFIX}",
}
OF_TEXT = ("txt", "jsonl")


@dataclass(frozen=True, kw_only=True)
class Task:
    """The samples to draw and the files to write.

    Attributes:
        request: the images.
        formats: of files.
        folder: for them.
        settings: everything that determines the image of a seed and class.
        columns: of the grid.
        metadata: of latents.
    """

    request: SampleRequest
    formats: list[str]
    folder: Path
    settings: dict[str, Any]
    columns: int
    metadata: dict[str, str] = field(default_factory=dict)


def open_task(config: DictConfig) -> Task:
    """Load the generator and check everything before an image is drawn.

    Raises:
        InputError: for invalid options.
    """
    formats = chosen_formats(config.format)
    seeds = None if config.seeds is None else parse_seeds(config.seeds)
    if seeds is not None and config.latents is not None:
        raise InputError("seeds= and latents= cannot be combined; give one of them")
    gan = open_gan(config)
    if config.source is not None:
        gan = gan.with_sources(config.source)
    formats = formats_for(formats, gan, scale=config.scale)
    request = moved(config, request_of(config, gan, seeds))
    settings = settings_of(config, gan)
    folder = output_folder(config, gan, folder_parts(config, seeds))
    stem = Path(config.latents).stem if config.latents is not None else "seed"
    suffixes = {*(f".{kind}" for kind in ENCODINGS), *suffixes_of(gan.spec.kind)}
    names = [f"{stem}*{suffix}" for suffix in sorted(suffixes)] + list(CONTAINERS.values())
    check_folder(folder, settings, names)
    columns = config.columns or default_columns(request)
    metadata = {key: str(value) for key, value in settings.items() if value is not None}
    metadata |= {
        "kind": "generate",
        "model": gan.kind,
        "seed": str(config.seed) if seeds is None else seeds_text(seeds),
    }
    return Task(
        request=request,
        formats=formats,
        folder=folder,
        settings=settings,
        columns=columns,
        metadata=metadata,
    )


def request_of(config: DictConfig, gan: Gan, seeds: list[int] | None) -> SampleRequest:
    """Return the samples to draw.

    Raises:
        InputError: for unknown classes or latents, and options that the generator does not support.
    """
    check_sampling_options(config, gan)
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
                f"{what}= and latents=: saved latents have their own {what}; leave one out"
            )
        latents = gan.read_latents(config.latents)
        stem = Path(config.latents).stem
        return SampleRequest(
            count=len(latents), seed=config.seed, latents=latents, stem=stem, **drawn
        )
    if seeds is not None:
        if len(set(seeds)) < len(seeds):
            twice = next(seed for seed, number in Counter(seeds).items() if number > 1)
            raise InputError(f"seeds={config.seeds}: {twice} is repeated")
        if classes is not None:
            classes = list(dict.fromkeys(classes))
            given = classes
        labels = labels_for(given, len(seeds))
        seeds = seeds * len(given or [0])
        return SampleRequest(count=len(seeds), seed=seeds, labels=labels, **drawn)
    labels = labels_for(given, config.num_images)
    count = config.num_images if labels is None else len(labels)
    return SampleRequest(count=count, seed=config.seed, labels=labels, **drawn)


def moved(config: DictConfig, request: SampleRequest) -> SampleRequest:
    """Return the request with `directions=` applied.

    Raises:
        InputError: for directions without amounts, amounts without directions, and a wrong number of either.
    """
    if (config.directions is None) != (config.move is None):
        raise InputError(
            "directions= and move= go together: a file of gan-lab directions, and how far, such as move=[2,-1]"
        )
    if config.directions is None:
        return request
    directions = Directions.read(config.directions, gan=request.gan)
    given = as_list(config.move)
    if not given or not all(is_finite_number(value) for value in given):
        raise InputError(f"move={config.move} must be numbers, such as [2,-1]")
    if len(given) > len(directions):
        raise InputError(
            f"move={config.move}: {config.directions} has {counted(len(directions), 'direction')}"
        )
    return replace(request, directions=directions, amounts=tuple(map(float, given)))


def as_list(given: object) -> list[Any]:
    """Return the items of a list of a configuration, and one value as one item."""
    return list(given) if isinstance(given, ListConfig) else [given]


def default_columns(request: SampleRequest) -> int:
    """Return the number of columns of a grid: one class or label per row, or about the number of rows."""
    rows = len(request.label_sets)
    if isinstance(request.labels, Tensor):
        rows = len(request.labels.unique_consecutive())
    elif rows < 2:
        return ceil(sqrt(request.count))
    return request.count // rows


def settings_of(config: DictConfig, gan: Gan) -> dict[str, Any]:
    """Return all settings that change the images."""
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
    """Return the parts of the output folder's name."""
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


def formats_for(formats: list[str], gan: Gan, *, scale: int) -> list[str]:
    """Return the formats to write; "files" is the usual one of a kind of sample.

    Raises:
        InputError: for formats of another kind of sample.
    """
    spec = gan.spec
    own = file_formats(spec)
    others = [
        name for name in CONTAINERS if name not in OF_TEXT and (spec.is_image or name != "zip")
    ]
    found: list[str] = []
    for name in formats:
        if name not in ("files", *own, *others):
            raise InputError(
                f"format={name} does not suit {spec.kind.name}, which {gan.kind} makes; choose from "
                f"{', '.join(['files', *own, *others])}"
            )
        files = own if own == OF_TEXT else own[:1]
        found += files if name == "files" else [name]
    if scale != 1 and not spec.is_image:
        raise InputError(f"scale={scale} is for images, and {gan.kind} makes {spec.kind.name}")
    return list(dict.fromkeys(found))


def file_formats(spec: SampleSpec) -> tuple[str, ...]:
    """Return the file formats of a kind of sample, the usual one first; text goes to one file."""
    if spec.is_image:
        return tuple(ENCODINGS)
    if is_text(spec):
        return OF_TEXT
    return tuple(suffix.removeprefix(".") for suffix in suffixes_of(spec.kind))


def is_text(spec: SampleSpec) -> bool:
    """Whether samples are texts, which go to one file."""
    return spec.kind.media_type.startswith("text/")


def suffixes_of(kind: SampleKind) -> tuple[str, ...]:
    """Return the suffixes of files that a kind writes, its own first."""
    return tuple(dict.fromkeys((kind.suffix, *kind.suffixes)))


def run(config: DictConfig) -> None:
    """Draw images and write them, in one or several processes.

    Raises:
        InputError: for an unknown run, seed, class, format or device, options that the generator does not support, and
            a folder with images made with other options.
    """
    run_in_processes(config, check=open_task, work=generate)


def generate(config: DictConfig) -> None:
    """Draw this process's part of the images and write files; rank 0 writes those that hold all images."""
    task = open_task(config)
    ranks = Ranks.current()
    request, folder = task.request, task.folder
    say(f"{counted(request.count, 'sample')} of {config.run} ({request.gan.kimg:g} kimg)")
    if ranks.rank == 0:
        remove_leftovers(folder)
        keep_settings(folder, task.settings)
    ranks.send(None)  # write the settings before any image
    alone = single_files(task, config)
    together = containers(task, config) if ranks.rank == 0 else []
    ordered = any(name in CONTAINERS for name in task.formats)
    try:
        draw(request, alone, together, config.batch_size, ranks, gather=ordered)
        written = [writer.finish() for writer in (*alone, *together)]
    except BaseException:
        for writer in (*alone, *together):
            writer.abandon()
        raise
    if ranks.size > 1:
        distributed.barrier()
    for name in written:
        say(f"wrote {folder / name}")


def draw(
    request: SampleRequest,
    alone: Sequence[Writer],
    together: Sequence[Writer],
    batch_size: int,
    ranks: Ranks,
    *,
    gather: bool,
) -> None:
    """Draw blocks round-robin: process r draws blocks r, r + size, ...

    Blocks are fixed by index and `batch_size`, so that files do not depend on the number of processes.

    Args:
        request: the images.
        alone: writers of this process.
        together: writers that get all images in order; only the first process has some.
        batch_size: images of a block, which is one forward pass.
        ranks: the processes.
        gather: whether the first process needs the others' images.
    """
    starts = range(0, request.count, batch_size)
    with progress_bar("images", request.count) as advance:
        for first in range(0, len(starts), ranks.size):
            block = None
            if first + ranks.rank < len(starts):
                start = starts[first + ranks.rank]
                block = request.block(start, min(start + batch_size, request.count))
                for writer in alone:
                    writer.add(block)
            for part in gathered(block, ranks) if gather else []:
                for writer in together:
                    writer.add(part)
            advance(min((first + ranks.size) * batch_size, request.count))


def gathered(block: SampleBlock | None, ranks: Ranks) -> list[SampleBlock]:
    """Gather blocks of all processes in order on rank 0; others return nothing."""
    if ranks.size == 1:
        return [] if block is None else [block]
    parts: list[SampleBlock | None] | None = [None] * ranks.size if ranks.rank == 0 else None
    distributed.gather_object(block, parts)
    return [part for part in parts or [] if part is not None]


def single_files(task: Task, config: DictConfig) -> list[Writer]:
    """Return the writers of single files."""
    request, spec = task.request, task.request.gan.spec
    chosen = [name for name in file_formats(spec) if name in task.formats and not is_text(spec)]
    save = partial(save_image, quality=config.quality) if spec.is_image else spec.kind.write
    return [
        SingleFiles(task.folder, suffix=f".{name}", save=save, count=request.count)
        for name in chosen
    ]


def containers(task: Task, config: DictConfig) -> list[Writer]:
    """Return the writers of files that hold all images."""
    request, folder = task.request, task.folder
    attributes = request.gan.attributes
    numbers = [] if attributes else [str(i) for i in range(request.gan.num_classes)]
    names = request.gan.class_names or numbers
    path = {name: folder / file for name, file in CONTAINERS.items()}
    make = {
        "grid": lambda: GridFile(
            path["grid"],
            count=request.count,
            columns=task.columns,
            scale=config.scale,
            kind=request.gan.spec.kind,
        ),
        "npz": lambda: Npz(path["npz"], request=request),
        "zip": lambda: ImagesZip(path["zip"], class_names=names, attributes=attributes),
        "txt": lambda: TextFile(path["txt"], kind=request.gan.spec.kind),
        "jsonl": lambda: JsonLines(path["jsonl"], kind=request.gan.spec.kind, class_names=names),
        "latents": lambda: LatentsFile(folder, metadata=task.metadata),
    }
    if not is_text(request.gan.spec):  # a file a sample may be called .txt, too
        make = {name: writer for name, writer in make.items() if name not in OF_TEXT}
    return [make[name]() for name in task.formats if name in make]
