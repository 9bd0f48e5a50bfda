"""CelebA as published: aligned faces, 40 attributes, a train/validation/test partition.

Liu et al. 2015, "Deep Learning Face Attributes in the Wild", https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.
"""

import difflib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan_lab.config import read_text
from gan_lab.data.base import MissingSplit, check_split
from gan_lab.data.decoding import MAX_MEGAPIXELS
from gan_lab.data.image_files import EncodedImages
from gan_lab.data.listing import format_names
from gan_lab.data.source import FileSource, existing_folder
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.errors import InputError, counted

_LAYOUT = "the folder with img_align_celeba/, list_attr_celeba.txt and list_eval_partition.txt"
_PARTS = {"train": "0", "val": "1"}
_LARGEST = 2**28  # bytes of a list; the published ones have up to 26 MB


class CelebA(EncodedImages):
    """The aligned and cropped faces (178x218), one attribute as the label or none.

    The three parts are in `root`, or in its sub-folders Img, Anno and Eval as published.

    Args:
        split: "train" (partition 0) or "val" (partition 1); the test images (2) are not used.
        root: the folder.
        attribute: one of the 40, whose classes are then "not X" and "X"; None for one class.
        image_size: one number, [H, W], or None for 218x178.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for those of most files.
        flip: append the mirror images.
        skip_unreadable: skip files that cannot be read.
        max_megapixels: larger images count as unreadable.

    Raises:
        InputError: for missing or damaged lists, listed images that are missing, an unknown attribute.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        attribute: str | None = None,
        image_size: ImageSize = 64,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = 3,
        flip: bool = False,
        skip_unreadable: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> None:
        check_split(split)
        folder = existing_folder(root, _LAYOUT)
        images = _part(folder, "Img", "img_align_celeba")
        partition = read_partition(_part(folder, "Eval", "list_eval_partition.txt"))
        names = [name for name, part in partition.items() if part in _PARTS.values()]
        members = np.array([partition[name] == _PARTS[split] for name in names], dtype=bool)
        if not members.any():
            empty = f"list_eval_partition.txt puts no image into split={split}"
            raise MissingSplit(empty) if split == "val" else InputError(empty)
        _check_present(images, names)
        if attribute is None:
            class_names, labels = ["all"], np.zeros(len(names), dtype=np.int64)
        else:
            values = read_attribute(_part(folder, "Anno", "list_attr_celeba.txt"), attribute)
            class_names, labels = [f"not {attribute}", attribute], _labels(names, values)
        super().__init__(
            source=FileSource(root=images, names=names),
            labels=labels,
            class_names=class_names,
            members=members,
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
            skip_unreadable=skip_unreadable,
            max_megapixels=max_megapixels,
        )


def read_partition(path: Path) -> dict[str, str]:
    """Image name -> "0" (train), "1" (validation) or "2" (test), from lines like `000001.jpg 0`."""
    partition = {}
    for number, line in enumerate(read_text(path, most=_LARGEST).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise InputError(
                f"{path}, line {number}: {line!r}; expected an image name and 0, 1 or 2"
            )
        partition[words[0]] = words[1]
    return partition


def read_attribute(path: Path, attribute: str) -> dict[str, bool]:
    """Image name -> whether it has the attribute.

    The file's first line counts the images, its second names the attributes, each further one holds an image name and
    1 or -1 for each attribute.

    Raises:
        InputError: for an unknown attribute, with the nearest one, and for a damaged file.
    """
    lines = read_text(path, most=_LARGEST).splitlines()
    if len(lines) < 2 or not lines[0].strip().isdigit():
        raise InputError(
            f"{path} is not CelebA's attribute list: its first line must count the images, its second name the "
            f"attributes"
        )
    attributes = lines[1].split()
    if attribute not in attributes:
        near = difflib.get_close_matches(attribute, attributes, n=1, cutoff=0.0)
        raise InputError(
            f"data.attribute={attribute!r} is not in {path.name}; did you mean {near[0]}? "
            f"allowed: {', '.join(attributes)}"
        )
    column = attributes.index(attribute) + 1
    values = {}
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()
        if not words:
            continue
        if len(words) != len(attributes) + 1 or words[column] not in ("1", "-1"):
            raise InputError(
                f"{path}, line {number}: expected a name and {len(attributes)} times 1 or -1"
            )
        values[words[0]] = words[column] == "1"
    if len(values) != int(lines[0]):
        raise InputError(
            f"{path} announces {counted(int(lines[0]), 'image')} and lists {len(values):,}: it is cut short; "
            "copy it again"
        )
    return values


def _part(folder: Path, published_in: str, name: str) -> Path:
    for path in (folder / name, folder / published_in / name):
        if path.exists():
            return path
    raise InputError(f"data.root={folder} has no {name}; set data.root=PATH to {_LAYOUT}")


def _check_present(images: Path, names: list[str]) -> None:
    there = {path.name for path in images.iterdir()}
    absent = [name for name in names if name not in there]
    if absent:
        raise InputError(
            f"{len(absent):,} of {counted(len(names), 'image')} in list_eval_partition.txt are not in {images}: "
            f"{format_names(absent)}; unpack img_align_celeba.zip again"
        )


def _labels(names: list[str], values: dict[str, bool]) -> NDArray[np.int64]:
    absent = [name for name in names if name not in values]
    if absent:
        raise InputError(
            f"list_attr_celeba.txt has no line for {counted(len(absent), 'image')}: {format_names(absent)}"
        )
    return np.array([values[name] for name in names], dtype=np.int64)
