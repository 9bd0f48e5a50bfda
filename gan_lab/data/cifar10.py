"""CIFAR-10 as published: Python pickles, read without executing them.

Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html: `data_batch_1..5`, `test_batch`, `batches.meta`;
each batch a dictionary with `data` (uint8 [10000, 3072], the red, green and blue plane row by row) and `labels`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import MemoryImages, check_split
from gan_lab.data.source import existing_path
from gan_lab.data.transform import Crop, ImageSize
from gan_lab.data.unpickling import (
    ARRAY_CALLS,
    ARRAY_NAMES,
    Array,
    DamagedError,
    RefusedError,
    Vocabulary,
    unpickle,
)
from gan_lab.errors import InputError

_LAYOUT = "the folder cifar-10-batches-py (of cifar-10-python.tar.gz), or the one that holds it"
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "val": ["test_batch"]}
_SHAPE = (3, 32, 32)
_BATCH = Vocabulary(
    purpose="a CIFAR-10 file",
    calls={name: call for name, call in ARRAY_CALLS.items() if name[1] != "scalar"},
    names=ARRAY_NAMES,
)


class CIFAR10(MemoryImages):
    """50,000 images of 32x32 in 10 classes to train on, the 10,000 test images to validate on.

    Args:
        split: "train" (data_batch_1 to 5) or "val" (test_batch).
        root: `cifar-10-batches-py` or the folder that holds it.
        image_size: one number, [H, W], or None for 32x32.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        channels: 1 | 3 | 4, or None for 3.
        flip: append the mirror images.

    Raises:
        InputError: for missing or damaged batches, and for pickles with more than arrays and lists.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "lanczos",
        channels: int | None = 3,
        flip: bool = False,
    ) -> None:
        check_split(split)
        folder = _folder(root)
        class_names = _class_names(folder / "batches.meta")
        batches = [_batch(folder / name, len(class_names)) for name in _BATCHES[split]]
        super().__init__(
            pixels=np.concatenate([pixels for pixels, _ in batches]),
            labels=np.concatenate([labels for _, labels in batches]),
            class_names=class_names,
            split=split,
            image_size=image_size,
            crop=crop,
            resample=resample,
            channels=channels,
            flip=flip,
        )


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dictionary of plain values and arrays, with text for its keys.

    Nothing that the pickle names is imported or called; names that arrays do not need are an error.

    Raises:
        InputError: for a missing or damaged file and for a pickle that names anything else.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there; set data.root=PATH to {_LAYOUT}")
    try:
        content = unpickle(path.read_bytes(), _BATCH)
    except RefusedError as error:
        raise InputError(f"{path} is rejected: {error}; get the published file again") from error
    except DamagedError as error:
        raise InputError(f"{path} is damaged: {error}; copy it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else key: v for key, v in content.items()
    }


def _folder(root: str | Path | None) -> Path:
    path = existing_path(root, _LAYOUT)
    if path.is_file():
        raise InputError(
            f"data.root={path} is a file; unpack it (tar xzf) and set data.root to {_LAYOUT}"
        )
    inner = path / "cifar-10-batches-py"
    return inner if inner.is_dir() else path


def _class_names(path: Path) -> list[str]:
    names = read_pickle(path).get("label_names")
    if not isinstance(names, list) or not names:
        raise InputError(f"{path} has no label_names; get the published file again")
    return [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names]


def _batch(path: Path, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(pixels [N, 32, 32, 3], labels [N]) of one file."""
    content = read_pickle(path)
    data, labels = content.get("data"), content.get("labels")
    if not isinstance(data, Array) or not isinstance(labels, Sequence):
        raise InputError(f"{path} has no data and labels; get the published file again")
    rows = data.values
    if rows.dtype != np.uint8:
        raise InputError(f"{path} holds data of type {rows.dtype}; expected bytes (uint8)")
    if rows.shape != (len(labels), int(np.prod(_SHAPE))):
        raise InputError(
            f"{path} holds data {rows.shape} for {len(labels)} labels; expected (images, 3072)"
        )
    if not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise InputError(f"{path} has labels outside 0..{num_classes - 1}")
    return rows.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1), np.array(labels, dtype=np.int64)
