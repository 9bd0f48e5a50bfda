"""gan-lab mix: a sheet of mixed styles."""

from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from gan_lab.commands.options import (
    check_sampling_options,
    chosen_formats,
    labels_of,
    layers_text,
    load_gan,
    output_folder,
    parse_layers,
    parse_seeds,
    seeds_text,
)
from gan_lab.console import say
from gan_lab.data.images import save_png
from gan_lab.data.media import enlarged, grid
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.interpolation import mix_w, mixture, pick_layers
from gan_lab.sampling.latents import SUFFIX, Latents
from gan_lab.sampling.video import readable_scale
from gan_lab.sampling.writers import slug

_READABLE = 64  # pixels of an image's shorter side


def run(config: DictConfig) -> None:
    """Mix styles and write the results.

    Raises:
        InputError: for a generator without styles, and for unknown layers, classes or latents.
    """
    formats = chosen_formats(config.format)
    scale = config.scale
    gan = load_gan(config)
    check_sampling_options(config, gan)
    layers = parse_layers(config.layers)
    chosen = pick_layers(gan, layers)
    rows, columns = (side(config, gan, name) for name in ("row", "column"))
    name = f"mix_{slug(layers_text(layers))}"
    folder = output_folder(config, gan, [*parts(config), name])
    say(f"{len(rows)} x {len(columns)} images with the layers {chosen} of the columns")
    if "sheet" in formats:
        made = mixture(gan, rows, columns, layers=chosen, noise=config.noise)
        pixels = gan.spec.preview(made.sheet())
        save_sheet(pixels, folder / f"{name}.png", columns=len(columns) + 1, scale=scale)
    if "latents" in formats:
        mixed = mix_w(rows.values.to(gan.device), columns.values.to(gan.device), chosen)
        labels = None if rows.labels is None else rows.labels.repeat_interleave(len(columns), dim=0)
        metadata = {"kind": "mix", "model": gan.kind, "layers": layers_text(layers)}
        path = folder / f"{name}{SUFFIX}"
        say(f"wrote {Latents(w=mixed, labels=labels, metadata=metadata).save(path)}")


def side(config: DictConfig, gan: Gan, name: str) -> Latents:
    """Return the latents w of the rows or of the columns.

    Args:
        config: of the command.
        gan: the generator.
        name: "row" or "column".

    Raises:
        InputError: for invalid seeds, classes or latents.
    """
    labels = labels_of(config, gan, f"{name}_")
    latents = config[f"{name}_latents"]
    truncation, center = config.truncation, config.truncation_center
    if latents is not None:
        read = gan.read_latents(latents)
        return gan.as_latents(read, labels=labels, truncation=truncation, truncation_center=center)
    seeds = parse_seeds(config[f"{name}s"], f"{name}s")
    try:
        return gan.as_latents(seeds, labels=labels, truncation=truncation, truncation_center=center)
    except InputError as error:
        raise InputError(f"{name}s and their labels: {error}") from error


def parts(config: DictConfig) -> list[str]:
    """Return the parts of the folder's name for rows and columns."""
    found = []
    for name in ("row", "column"):
        latents = config[f"{name}_latents"]
        seeds = parse_seeds(config[f"{name}s"]) if latents is None else []
        found.append(Path(latents).stem if latents is not None else seeds_text(seeds))
    if config.truncation is not None:
        found.append(f"truncation{config.truncation}")
    return found


def save_sheet(pixels: Tensor, path: Path, *, columns: int, scale: int | None) -> None:
    """Write uint8 images [N, C, H, W] as one sheet."""
    pixels = pixels.cpu()
    factor = scale or readable_scale(*pixels.shape[-2:], at_least=_READABLE)
    save_png(grid(enlarged(pixels, factor), columns), path)
    say(f"wrote {path}")
