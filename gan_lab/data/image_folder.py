"""A folder of pictures, with a class a sub-folder or none."""

import os
from pathlib import Path

import numpy as np

from gan_lab.data.base import members_by_name
from gan_lab.data.encoded import EncodedImages
from gan_lab.data.source import IMAGE_ENDINGS, FileSource, existing_folder, is_image_name, listed
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError


class ImageFolder(EncodedImages):
    """All pictures under a folder, sub-folders of any depth included; hidden files and folders are passed over.

    Args:
        split: "train" or "val".
        root: the folder.
        classes: True makes each sub-folder of `root` a class, False makes one class of everything; None takes the
            sub-folders for classes when there are pictures in them and none in `root` itself.
        val_fraction: part of the images to validate on, chosen by a hash of their names.
        image_size: one number, [H, W], or None for the one size that all files have.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for those of most files.
        flip: append the mirror images.
        skip_unreadable: leave out what cannot be read.

    Raises:
        InputError: for a missing or empty folder, unreadable files, mixed sizes, options out of range.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        classes: bool | None = None,
        val_fraction: float = 0.0,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = None,
        flip: bool = False,
        skip_unreadable: bool = False,
    ) -> None:
        folder = existing_folder(root, "a folder of pictures")
        names = _images(folder)
        if _by_folder(folder, names, classes):
            names = [name for name in names if "/" in name]
            first = [name.partition("/")[0] for name in names]
            class_names = sorted(set(first))
            number = {name: i for i, name in enumerate(class_names)}
            labels = np.array([number[name] for name in first], dtype=np.int64)
        else:
            class_names, labels = ["all"], np.zeros(len(names), dtype=np.int64)
        super().__init__(
            source=FileSource(root=folder, names=names),
            labels=labels,
            class_names=class_names,
            members=members_by_name(names, split=split, val_fraction=val_fraction),
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
            skip_unreadable=skip_unreadable,
        )


def find_files(folder: Path) -> list[str]:
    """Paths of the files under `folder`, relative to it, sorted; links are followed, hidden folders are not."""
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        prefix = Path(where).relative_to(folder).as_posix()
        found.extend(name if prefix == "." else f"{prefix}/{name}" for name in files)
    return sorted(found)


def _images(folder: Path) -> list[str]:
    files = find_files(folder)
    names = [name for name in files if is_image_name(name)]
    if not names:
        held = f"holds no images (but {listed(files, limit=3)})" if files else "is empty"
        raise InputError(
            f"data.root={folder} {held}; expected files ending in {' '.join(IMAGE_ENDINGS)}"
        )
    return names


def _by_folder(folder: Path, names: list[str], classes: bool | None) -> bool:
    """Whether sub-folders are classes; InputError when that cannot be told or done."""
    nested = sum("/" in name for name in names)
    direct = len(names) - nested
    if classes and not nested:
        raise InputError(
            f"data.classes=true, but data.root={folder} has no sub-folders with images; "
            f"put each class into its own, or set data.classes=null"
        )
    if classes is None and nested and direct:
        raise InputError(
            f"data.root={folder} holds {direct:,} images itself and {nested:,} in sub-folders; set data.classes=true "
            f"to take only the sub-folders, one class each, or data.classes=false to take all as one class"
        )
    return nested > 0 if classes is None else classes
