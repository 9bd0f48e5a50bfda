"""What a path means as images: a folder, a zip or an .npz."""

from functools import partial
from pathlib import Path

import numpy as np

from gan_lab.data.decoding import MAX_MEGAPIXELS
from gan_lab.data.image_folder import ImageFolder
from gan_lab.data.metadata import AmbiguousClasses
from gan_lab.data.scan import scan
from gan_lab.data.source import Source
from gan_lab.data.transform import ImageSize
from gan_lab.data.zip import Zip
from gan_lab.errors import InputError
from gan_lab.metrics.images import DatasetImages, ImageSource
from gan_lab.metrics.npz import NpzImages


def open_files(
    path: Path,
    *,
    num: int | None = None,
    image_size: ImageSize = None,
    channels: int | None = None,
    skip_unreadable: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> ImageSource:
    """Open images of one size.

    Args:
        path: a folder, whose sub-folders are classes; a zip; an .npz.
        num: images at most, a random choice, always the same one; None takes all.
        image_size: one number or [H, W], to which all are cropped and resized; None for the one size that they have.
        channels: 1, 3, or None for those that all files have.
        skip_unreadable: whether to leave out damaged images.
        max_megapixels: larger images count as damaged.

    Raises:
        InputError: for a path that is none of these, damaged images, mixed sizes or channels.
    """
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a run, a folder or zip of images, or an .npz"
        )
    if path.suffix == ".npz":
        return NpzImages(path, num=num)
    if not path.is_dir() and path.suffix != ".zip":
        raise InputError(
            f"{path} is no folder, .zip, .npz or .ckpt; give a run, a folder or zip of images, or an .npz"
        )
    try:
        opened = partial(
            ImageFolder if path.is_dir() else Zip,
            split="train",
            root=path,
            image_size=image_size,
            channels=channels,
            skip_unreadable=skip_unreadable,
            max_megapixels=max_megapixels,
        )
        try:
            data = opened()
        except AmbiguousClasses:
            data = opened(classes=False)  # folders are classes only where nothing lies beside them
        if channels is None:
            _check_alike(data.source, path, max_megapixels)
        return DatasetImages(data, num=num, name=str(path))
    except InputError as error:
        # the data sets speak of their own keys
        message = str(error).replace("data.root=", "").replace("data.", "files.")
        raise InputError(message) from error


def _check_alike(source: Source, path: Path, max_megapixels: float) -> None:
    kinds, counts = np.unique(
        scan(source, max_megapixels=max_megapixels).shapes[:, 2], return_counts=True
    )
    found = {int(kind): int(count) for kind, count in zip(kinds, counts, strict=True) if kind}
    if len(found) > 1:
        modes = ", ".join(f"{count:,} with {kind}" for kind, count in found.items())
        raise InputError(
            f"the images of {path} have different channels ({modes}); set data.channels=3 to make them all RGB, "
            "or data.channels=1"
        )
