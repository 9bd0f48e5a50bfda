"""Splits: as the metadata table says, else by name, so that adding files moves none of the others."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import MissingSplit, check_split
from gan_lab.data.metadata import MetadataTable
from gan_lab.errors import InputError


def members_by_table(
    table: MetadataTable, *, split: str, val_fraction: float, root: Path
) -> NDArray[np.bool_]:
    """Mask [N] of the images of a split: those that the table puts into it, else `members_by_name`.

    Raises:
        MissingSplit: for split="val" when nothing is set apart.
        InputError: for a `val_fraction` beside images that are set apart, or when there are none to train on.
    """
    check_split(split)
    if table.splits is None or "val" not in table.splits:
        return members_by_name(table.files, split=split, val_fraction=val_fraction)
    if val_fraction:
        raise InputError(
            f"data.val_fraction={val_fraction}, but {root} says itself which images validate; set data.val_fraction=0"
        )
    chosen = np.array(table.splits) == split
    if not chosen.any():
        raise InputError(f"data.root={root} holds validation images only; set data.root to them")
    return chosen


def members_by_name(names: Iterable[str], *, split: str, val_fraction: float) -> NDArray[np.bool_]:
    """Mask [N] of the images of a split: an image validates when the hash of its name falls below `val_fraction`.

    Raises:
        MissingSplit: for split="val" when `val_fraction` is 0.
        InputError: when `val_fraction` is not in [0, 1) or leaves a split empty.
    """
    check_split(split)
    if not 0 <= val_fraction < 1:
        raise InputError(f"data.val_fraction={val_fraction}; allowed: 0 (no validation) to below 1")
    if split == "val" and val_fraction == 0:
        raise MissingSplit(
            "there are no validation images; set data.val_fraction=0.1 to set some apart"
        )
    is_val = np.array([_unit(name) < val_fraction for name in names])
    if val_fraction > 0 and (is_val.all() or not is_val.any()):
        empty = "training" if is_val.all() else "validation"
        raise InputError(
            f"data.val_fraction={val_fraction} of {len(is_val):,} images leaves none for {empty}; set another fraction"
        )
    return is_val if split == "val" else ~is_val


def _unit(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    head = hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8]
    return int.from_bytes(head, "big") / 2**64
