"""What a path means as images: a folder, a zip or an .npz."""

from pathlib import Path

import numpy as np

from gan_lab.data.image_folder import ImageFolder, find_files
from gan_lab.data.scan import scan
from gan_lab.data.source import FileSource, Source, is_image_name, listed
from gan_lab.data.transform import ImageSize
from gan_lab.data.zip import METADATA, Zip, ZipSource
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
) -> ImageSource:
    """Open images of one size.

    Args:
        path: a folder, whose sub-folders are classes; a zip; an .npz.
        num: images at most, a random choice, always the same one; None takes all.
        image_size: one number or [H, W], to which all are cropped and resized; None for the one size that they have.
        channels: 1, 3, or None for those that all files have.
        skip_unreadable: whether to leave out what is no image.

    Raises:
        InputError: for a path that is none of these, other files among the images, mixed sizes or channels.
    """
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a run, a folder or zip of images, or an .npz"
        )
    if path.suffix == ".npz":
        return NpzImages(path, num=num)
    try:
        if path.is_dir():
            return DatasetImages(
                _folder(
                    path, image_size=image_size, channels=channels, skip_unreadable=skip_unreadable
                ),
                num=num,
                name=str(path),
            )
        if path.suffix == ".zip":
            _check_alike(ZipSource(path=path), path, channels)
            return DatasetImages(
                Zip(
                    split="train",
                    root=path,
                    image_size=image_size,
                    channels=channels,
                    skip_unreadable=skip_unreadable,
                ),
                num=num,
                name=str(path),
            )
    except InputError as error:
        # the data sets speak of their own keys
        message = str(error).replace("data.root=", "").replace("data.", "files.")
        raise InputError(message) from error
    raise InputError(
        f"{path} is no folder, .zip, .npz or .ckpt; give a run, a folder or zip of images, or an .npz"
    )


def _folder(
    path: Path, *, image_size: ImageSize, channels: int | None, skip_unreadable: bool
) -> ImageFolder:
    _check_folder(path, skip_unreadable)
    names = [name for name in find_files(path) if is_image_name(name)]
    if names:
        _check_alike(FileSource(root=path, names=names), path, channels)
    return ImageFolder(
        split="train",
        root=path,
        # sub-folders are classes only where nothing lies beside them
        classes=None if all("/" in name for name in names) else False,
        image_size=image_size,
        channels=channels,
        skip_unreadable=skip_unreadable,
    )


def _check_folder(path: Path, skip_unreadable: bool) -> None:
    others = [
        name
        for name in find_files(path)
        if not is_image_name(name)
        and name.rpartition("/")[2] != METADATA
        and not name.rpartition("/")[2].startswith(".")
    ]
    if others and not skip_unreadable:
        number = "1 file" if len(others) == 1 else f"{len(others):,} files"
        raise InputError(
            f"{path} holds {number} besides images ({listed(others, limit=3)}); remove them, or set "
            "data.skip_unreadable=true to leave them out"
        )


def _check_alike(source: Source, path: Path, channels: int | None) -> None:
    kinds, counts = np.unique(scan(source).shapes[:, 2], return_counts=True)
    found = {int(kind): int(count) for kind, count in zip(kinds, counts, strict=True) if kind}
    if channels is None and len(found) > 1:
        modes = ", ".join(f"{count:,} with {kind}" for kind, count in found.items())
        raise InputError(
            f"the images of {path} have different channels ({modes}); set data.channels=3 to make them all RGB, "
            "or data.channels=1"
        )
