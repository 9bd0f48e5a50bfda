"""Splitting by name, so that adding files moves none of the others between splits."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import MissingSplit, check_split
from gan_lab.errors import InputError


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
