"""gan-lab generate: samples of a trained run as files."""

from collections.abc import Sequence

from omegaconf import DictConfig
from torch import distributed

from gan_lab.commands.folders import keep_settings
from gan_lab.commands.order import CONTAINERS, Task, open_task, suffixes_of
from gan_lab.console import progress_bar, say
from gan_lab.distributed.processes import share
from gan_lab.distributed.ranks import Ranks
from gan_lab.run import remove_leftovers
from gan_lab.sampling.series import Block, Series
from gan_lab.sampling.writers import (
    ENCODINGS,
    GridFile,
    ImagesZip,
    LatentsFile,
    Npz,
    SampleFiles,
    SingleFiles,
    Writer,
)


def run(config: DictConfig) -> None:
    """Draw images and write them; alone, or together with other processes.

    Raises:
        InputError: for a run, seed, class, format or device that there is not, settings that mean nothing to the
            generator, and a folder with images of other settings.
    """
    share(config, check=open_task, work=generate)


def generate(config: DictConfig) -> None:
    """Draw this process's part of the images, and write files; the first process writes those that hold all."""
    task = open_task(config)
    ranks = Ranks.current()
    series, folder = task.series, task.folder
    say(
        f"{series.count} {'image' if series.count == 1 else 'images'} of {config.run} ({series.gan.kimg:g} kimg)"
    )
    if ranks.rank == 0:
        remove_leftovers(folder)
        keep_settings(folder, task.settings)
    ranks.send(None)  # nobody writes before the folder says what is in it
    alone = single_files(task, config)
    together = containers(task, config) if ranks.rank == 0 else []
    ordered = any(name in CONTAINERS for name in task.formats)
    try:
        draw(series, alone, together, config.batch_size, ranks, gather=ordered)
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
    series: Series,
    alone: Sequence[Writer],
    together: Sequence[Writer],
    batch_size: int,
    ranks: Ranks,
    *,
    gather: bool,
) -> None:
    """Draw blocks in turns: process r draws every size-th block, from the r-th on.

    Blocks are fixed by index and `batch_size`, so that files do not depend on the number of processes.

    Args:
        series: the images.
        alone: writers of this process.
        together: writers that get all images in order; only the first process has some.
        batch_size: images of a block, which is one forward pass.
        ranks: the processes.
        gather: whether the first process needs the others' images.
    """
    starts = range(0, series.count, batch_size)
    with progress_bar("images", series.count) as advance:
        for first in range(0, len(starts), ranks.size):
            block = None
            if first + ranks.rank < len(starts):
                start = starts[first + ranks.rank]
                block = series.block(start, min(start + batch_size, series.count))
                for writer in alone:
                    writer.add(block)
            for part in gathered(block, ranks) if gather else []:
                for writer in together:
                    writer.add(part)
            advance(min((first + ranks.size) * batch_size, series.count))


def gathered(block: Block | None, ranks: Ranks) -> list[Block]:
    """Return the blocks of all processes in order, in the first process; nothing in others."""
    if ranks.size == 1:
        return [] if block is None else [block]
    parts: list[Block | None] | None = [None] * ranks.size if ranks.rank == 0 else None
    distributed.gather_object(block, parts)
    return [part for part in parts or [] if part is not None]


def single_files(task: Task, config: DictConfig) -> list[Writer]:
    """Return the writers of single files."""
    series, spec = task.series, task.series.gan.spec
    if spec.is_image:
        return [
            SingleFiles(task.folder, kind=kind, quality=config.quality, count=series.count)
            for kind in task.formats
            if kind in ENCODINGS
        ]
    return [
        SampleFiles(task.folder, kind=spec.kind, suffix=suffix, count=series.count)
        for suffix in suffixes_of(spec.kind)
        if suffix.removeprefix(".") in task.formats
    ]


def containers(task: Task, config: DictConfig) -> list[Writer]:
    """Return the writers of files that hold all images."""
    series, folder = task.series, task.folder
    attributes = series.gan.attributes
    numbers = [] if attributes else [str(i) for i in range(series.gan.num_classes)]
    names = series.gan.class_names or numbers
    path = {name: folder / file for name, file in CONTAINERS.items()}
    make = {
        "grid": lambda: GridFile(
            path["grid"],
            count=series.count,
            columns=task.columns,
            scale=config.scale,
            kind=series.gan.spec.kind,
        ),
        "npz": lambda: Npz(path["npz"], series=series),
        "zip": lambda: ImagesZip(path["zip"], class_names=names, attributes=attributes),
        "latents": lambda: LatentsFile(folder, metadata=task.metadata),
    }
    return [make[name]() for name in task.formats if name in make]
