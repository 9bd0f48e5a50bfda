"""gan-lab interpolate: images and videos of paths between seeds, classes or saved latents."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from gan_lab.commands.mix import save_sheet
from gan_lab.commands.options import (
    chosen_formats,
    labels_of,
    labels_text,
    open_gan,
    output_folder,
    parse_seeds,
    seeds_text,
)
from gan_lab.console import progress_bar, say
from gan_lab.data.images import save_png, to_uint8
from gan_lab.data.media import enlarged, grid
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.run import write as write_whole
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.interpolation import Interpolation, interpolation
from gan_lab.sampling.latents import Latents
from gan_lab.sampling.video import check_video, readable_scale, write_video

VIDEOS = ("gif", "webp", "mp4")
OF_IMAGES = (*VIDEOS, "frames")


@dataclass(frozen=True)
class Film:
    """Interpolations shown side by side.

    Attributes:
        interpolations: one for each cell, row by row.
        columns: of cells.
        positions: of the frames on each path, [T].
        batch_size: images computed at a time.
    """

    interpolations: list[Interpolation]
    columns: int
    positions: Tensor
    batch_size: int

    def frames(self, scale: int = 1) -> Iterator[Tensor]:
        """Yield frames uint8 [C, H, W] with images whose pixels are repeated `scale` times in both directions."""
        size = self.batch_size
        for positions in self.positions.split(size):
            made = torch.stack(
                [
                    to_uint8(each.images(positions, batch_size=size)).cpu()
                    for each in self.interpolations
                ],
                dim=1,
            )
            for cells in enlarged(made, scale):
                yield cells[0] if len(cells) == 1 else grid(cells, self.columns)

    def strip(self, columns: int) -> Tensor:
        """Return images [segments * columns, C, H, W] of every segment of every path, with both ends."""
        made = []
        for each in self.interpolations:
            shares = torch.linspace(0, 1, columns, dtype=torch.float64)
            positions = torch.cat([shares + part for part in range(each.path.segments)])
            made.append(each.images(positions, batch_size=self.batch_size).cpu())
        return torch.cat(made)


def run(config: DictConfig) -> None:
    """Interpolate and write the images.

    Raises:
        InputError: for invalid key points, spaces, methods and formats.
    """
    formats = chosen_formats(config.format)
    scale = config.scale
    columns, rows = config.grid
    for kind in VIDEOS:
        if kind in formats:
            check_video(f"interpolation.{kind}", config.fps, scale or 1)
    gan = open_gan(config)
    check_images(gan, formats)
    keys = key_latents(config, gan)
    interpolations = [
        interpolation(
            gan,
            part,
            space=config.space,
            method=config.method,
            loop=config.loop,
            truncation=config.truncation,
            truncation_center=config.truncation_center,
            noise=config.noise,
        )
        for part in divided(keys, columns * rows)
    ]
    positions = interpolations[0].path.positions(config.frames)
    film = Film(interpolations, columns, positions, config.batch_size)
    folder = output_folder(config, gan, parts(config))
    count = len(positions)
    say(f"{len(keys)} key points, {count} frames, {count / config.fps:.1f} seconds")
    if "strip" in formats:
        strip = film.strip(config.columns)
        pixels = gan.spec.preview(strip)
        save_sheet(pixels, folder / "strip.png", columns=config.columns, scale=scale)
    write(film, folder, formats, fps=config.fps, scale=scale)
    if "files" in formats:
        is_text = gan.spec.kind.media_type.startswith("text/")
        save = save_text if is_text else save_files
        save(film, folder / "files", gan.spec)


def write(film: Film, folder: Path, formats: list[str], *, fps: float, scale: int | None) -> None:
    """Write the requested videos and frames; frames are drawn again for each, none is kept in memory."""
    wanted = [name for name in formats if name in OF_IMAGES]
    if not wanted:
        return
    factor = scale or readable_scale(*next(film.frames()).shape[-2:])
    for name in wanted:
        if name == "frames":
            save_frames(film, folder / "frames", factor)
            continue
        path = folder / f"interpolation.{name}"
        write_video(path, film.frames(factor), fps, total=len(film.positions))
        say(f"wrote {path}")


def save_frames(film: Film, folder: Path, scale: int) -> None:
    """Write a PNG for each frame."""
    total = len(film.positions)
    with progress_bar("frames", total) as advance:
        for i, frame in enumerate(film.frames(scale)):
            save_png(frame, folder / f"frame{i:06d}.png")
            advance(i + 1)
    say(f"wrote {folder}/*.png ({total})")


def save_files(film: Film, folder: Path, spec: SampleSpec) -> None:
    """Write each sample of each path to a file as its kind writes it."""
    total = len(film.positions) * len(film.interpolations)
    done = 0
    with progress_bar("files", total) as advance:
        for number, each in enumerate(film.interpolations):
            path = f"path{number}_" if len(film.interpolations) > 1 else ""
            made = (each.images(part) for part in film.positions.split(film.batch_size))
            samples = (one for part in made for one in spec.decode(part).cpu())
            for i, sample in enumerate(samples):
                spec.kind.write(sample, folder / f"{path}{i:06d}{spec.kind.suffix}")
                done += 1
                advance(done)
    say(f"wrote {folder}/*{spec.kind.suffix} ({total})")


def save_text(film: Film, folder: Path, spec: SampleSpec) -> None:
    """Write the samples of each path, which are text, to one file: a list."""
    for number, each in enumerate(film.interpolations):
        path = folder / f"path{number}{spec.kind.suffix}"
        made = (each.images(part) for part in film.positions.split(film.batch_size))
        write_whole(
            path, b"".join(spec.kind.media(one) for part in made for one in spec.decode(part).cpu())
        )
        say(f"wrote {path} ({len(film.positions)} lines)")


def check_images(gan: Gan, formats: list[str]) -> None:
    """Check that samples are images if a video is requested.

    Raises:
        InputError: with the allowed formats.
    """
    wrong = [name for name in formats if name in OF_IMAGES]
    if wrong and not gan.spec.is_image:
        raise InputError(
            f"format={wrong[0]} is for images, and {gan.kind} makes {gan.spec.kind.name}; choose from strip, files "
            f"({gan.spec.kind.suffix})"
        )


def key_latents(config: DictConfig, gan: Gan) -> Latents:
    """Return the latents of the key points of all paths, before truncation.

    Raises:
        InputError: for invalid seeds, classes or latents.
    """
    labels = labels_of(config, gan)
    if config.latents is not None:
        latents = gan.read_latents(config.latents)
        return gan.as_latents(latents, labels=labels, space="w" if latents.z is None else "z")
    seeds = parse_seeds(config.seeds)
    several = len(labels) if isinstance(labels, list) else 1
    if several > 1 and len(seeds) not in (1, several):
        what = "labels" if gan.attributes else "classes"
        raise InputError(
            f"{len(seeds)} seeds and {several} {what}: give one for all, one for each seed, or one seed that goes from "
            "one to the next"
        )
    return gan.as_latents(seeds, labels=labels, truncation=config.truncation, space="z")


def divided(keys: Latents, cells: int) -> list[Latents]:
    """Split key points evenly among the paths.

    Raises:
        InputError: when they cannot be split, or a path gets fewer than two.
    """
    each, left = divmod(len(keys), cells)
    if left or each < 2:
        raise InputError(
            f"{len(keys)} key points cannot be divided among {cells} paths, two or more for each; give "
            f"{cells * max(each, 2)} seeds, classes or latents, or set grid="
        )
    return keys.split(each)


def parts(config: DictConfig) -> list[str]:
    """Return the parts of the folder's name: options that change the images."""
    found = ["interpolation"]
    if config.latents is not None:
        found.append(Path(config.latents).stem)
    else:
        found.append(f"seeds{seeds_text(parse_seeds(config.seeds))}")
    found += labels_text(config)
    found += [str(config[key]) for key in ("space", "method") if config[key] is not None]
    if config.loop:
        found.append("loop")
    if config.truncation is not None:
        found.append(f"truncation{config.truncation}")
    return found
