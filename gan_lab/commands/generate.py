"""gan-lab generate: images of a trained run as files."""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from gan_lab.checkpoint import checkpoint_path
from gan_lab.commands.opening import measure_statistics as measure_statistics
from gan_lab.commands.opening import open_gan
from gan_lab.commands.opening import pick_device as pick_device
from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.images import grid, save_png, to_uint8
from gan_lab.rendering import Rendering
from gan_lab.sampling import Gan

FORMATS = ("png", "grid", "npz")


def run(config: DictConfig) -> None:
    """Draw images and write them.

    Raises:
        InputError: for a run, class, format or device that there is not.
    """
    formats = check_formats(config.format)
    gan = open_gan(config)
    labels = chosen_labels(config.classes, config.num_images, gan)
    count = config.num_images if labels is None else len(labels)
    source = checkpoint_path(Path(config.run), config.checkpoint)
    folder = Path(config.out or source.parent.parent / "generated" / folder_name(source, config))
    columns = config.columns or (config.num_images if labels is not None else ceil(sqrt(count)))
    say(f"{count} images of {source} ({gan.kimg:g} kimg, {config.weights} weights)")
    kept = []
    made = 0
    for images, drawn in gan.batches(
        count,
        labels=labels,
        seed=config.seed,
        batch_size=config.batch_size,
        rendering=Rendering(truncation=config.truncation),
    ):
        pixels = to_uint8(images).cpu()
        if "png" in formats:
            save_single(pixels, drawn, folder, seed=config.seed, start=made)
        made += len(pixels)
        kept.append((pixels, drawn))
    everything = torch.cat([pixels for pixels, _ in kept])
    if "grid" in formats:
        save_png(grid(everything, columns), folder / "grid.png")
    if "npz" in formats:
        drawn_labels = [drawn.cpu() for _, drawn in kept if drawn is not None]
        save_npz(
            everything, torch.cat(drawn_labels) if drawn_labels else None, folder, seed=config.seed
        )
    for name in written(formats, count):
        say(f"wrote {folder / name}")


def folder_name(source: Path, config: DictConfig) -> str:
    """Name a folder by all that changes the images in it."""
    parts = [source.stem, config.weights, f"seed{config.seed}"]
    if config.truncation is not None:
        parts.append(f"truncation{config.truncation}")
    if config.standing_statistics is not None:
        parts.append(f"standing{config.standing_statistics}")
    return "_".join(parts)


def check_formats(formats: str | Sequence[str]) -> list[str]:
    """Return the formats as a list.

    Raises:
        InputError: for one that there is not.
    """
    given = [formats] if isinstance(formats, str) else list(formats)
    wrong = [name for name in given if name not in FORMATS]
    if wrong or not given:
        raise InputError(f"format={given}: choose from {', '.join(FORMATS)}")
    return given


def chosen_labels(
    classes: str | int | Sequence[int] | None, num_images: int, gan: Gan
) -> Tensor | None:
    """Return `num_images` labels of each chosen class, class by class, or None to have them drawn.

    Raises:
        InputError: for a model without classes.
    """
    if classes is None:
        return None
    if not gan.num_classes:
        raise InputError(f"classes={classes}: the model has no classes; leave classes= out")
    if isinstance(classes, str) and classes != "all":
        raise InputError(f"classes={classes}: give all, or a list such as [0,3]")
    if isinstance(classes, int):
        classes = [classes]
    each = list(range(gan.num_classes)) if classes == "all" else list(classes)
    if not all(isinstance(c, int) for c in each):
        raise InputError(f"classes={each}: give numbers, 0 to {gan.num_classes - 1}, or all")
    return torch.tensor(each).repeat_interleave(num_images)


def save_single(
    pixels: Tensor, labels: Tensor | None, folder: Path, *, seed: int, start: int
) -> None:
    """Write a PNG for each image, named by seed, index and class."""
    for i, image in enumerate(pixels):
        suffix = "" if labels is None else f"_class{int(labels[i])}"
        save_png(image, folder / f"seed{seed}_{start + i:06d}{suffix}.png")


def save_npz(pixels: Tensor, labels: Tensor | None, folder: Path, *, seed: int) -> None:
    """Write all images [N, H, W, C] and labels [N] to images.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"images": pixels.permute(0, 2, 3, 1).numpy(), "seed": np.array(seed)}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    np.savez_compressed(folder / "images.npz", **arrays)


def written(formats: Sequence[str], count: int) -> list[str]:
    """Return what to tell of the files that were written."""
    names = {"png": f"*.png ({count})", "grid": "grid.png", "npz": "images.npz"}
    return [names[name] for name in formats]
