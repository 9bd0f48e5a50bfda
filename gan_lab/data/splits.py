"""Splits into training and validation: by table, by hashes of names, or in folds; groups stay together."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import MissingSplit, check_split
from gan_lab.data.listing import format_names
from gan_lab.data.metadata import MetadataTable
from gan_lab.errors import InputError, counted

BY_FOLDER = "folder"


def grouped(table: MetadataTable, group_by: str | None, *, root: Path) -> MetadataTable:
    """Return the table with the groups that `group_by` names.

    Args:
        table: read with the same `group_by`, which may be one of its columns.
        group_by: None for the column "group" or "patient" if there is one; another column; "folder", the file's folder;
            or a regular expression, whose first group (or whole match) in a path names the group.
        root: for messages.

    Raises:
        InputError: for an invalid expression, or one that does not match all paths.
    """
    if group_by is None or (table.groups is not None and table.group_column == group_by):
        return table
    if group_by == BY_FOLDER:
        return replace(table, groups=[name.rpartition("/")[0] for name in table.files])
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InputError(
            f"data.group_by={group_by} is neither a column of a table nor a regular expression ({error})"
        ) from error
    found = [pattern.search(name) for name in table.files]
    missing = [name for name, match in zip(table.files, found, strict=True) if match is None]
    if missing:
        raise InputError(
            f"data.group_by={group_by} is not a column of a table in {root}, as a regular expression does not match "
            f"{counted(len(missing), 'path')}: {format_names(missing, limit=3)}; give a column, {BY_FOLDER}, or an "
            "expression such as 'patient([0-9]+)'"
        )
    groups = [match[1] if pattern.groups else match[0] for match in found if match is not None]
    return replace(table, groups=["" if group is None else group for group in groups])


def members_by_table(
    table: MetadataTable,
    *,
    split: str,
    val_fraction: float,
    root: Path,
    folds: int | None = None,
    fold: int = 0,
) -> NDArray[np.bool_]:
    """Mask [N] of the images of a split: by the table, else by folds or `val_fraction` of the groups or names.

    Args:
        table: whose groups stay together.
        split: "train" or "val".
        val_fraction: of groups, or of images where there are none.
        root: for messages.
        folds: number of folds with about equally many groups, one for validation.
        fold: index of the validation fold.

    Raises:
        MissingSplit: for split="val" without validation data.
        InputError: for `val_fraction` or `folds` when the data have splits, a split that divides groups, or without
            training data.
    """
    check_split(split)
    if folds is not None and (folds < 2 or not 0 <= fold < folds or val_fraction):
        raise InputError(
            f"data.folds={folds}, data.fold={fold}, data.val_fraction={val_fraction}; allowed: at least 2 folds, a "
            "fold from 0 to one below them, and data.val_fraction=0"
        )
    if table.splits is None or "val" not in table.splits:
        names = table.files if table.groups is None else table.groups
        if folds is not None:
            return members_by_fold(names, split=split, folds=folds, fold=fold)
        return members_by_name(names, split=split, val_fraction=val_fraction)
    if val_fraction or folds is not None:
        given = f"data.folds={folds}" if folds else f"data.val_fraction={val_fraction}"
        raise InputError(
            f"{given}, but {root} has its own splits; set data.val_fraction=0 and data.folds=null"
        )
    if table.groups is not None:
        _check_groups(table.groups, table.splits, root)
    chosen = np.array(table.splits) == split
    if not chosen.any():
        raise InputError(f"data.root={root} holds validation images only; set data.root to them")
    return chosen


def members_by_name(names: Iterable[str], *, split: str, val_fraction: float) -> NDArray[np.bool_]:
    """Mask [N] of the images of a split: names with a hash below `val_fraction` are for validation.

    Adding names does not move others.

    Raises:
        MissingSplit: for split="val" when `val_fraction` is 0.
        InputError: when `val_fraction` is not in [0, 1) or leaves a split empty.
    """
    check_split(split)
    if not 0 <= val_fraction < 1:
        raise InputError(f"data.val_fraction={val_fraction}; allowed: 0 (no validation) to below 1")
    if split == "val" and val_fraction == 0:
        raise MissingSplit(
            "there are no validation images; set data.val_fraction=0.1 to hold some out"
        )
    is_val = np.array([_unit(name) < val_fraction for name in names])
    if val_fraction > 0 and (is_val.all() or not is_val.any()):
        empty = "training" if is_val.all() else "validation"
        raise InputError(
            f"data.val_fraction={val_fraction} of {len(is_val):,} images leaves none for {empty}; set another fraction"
        )
    return is_val if split == "val" else ~is_val


def members_by_fold(
    names: Sequence[str], *, split: str, folds: int, fold: int
) -> NDArray[np.bool_]:
    """Mask [N] of the images of a split: names, ordered by their hashes, go to the folds in turn.

    Raises:
        InputError: for fewer names than folds.
    """
    ordered = sorted(set(names), key=_unit)
    if len(ordered) < folds:
        raise InputError(
            f"data.folds={folds}, and there are {counted(len(ordered), 'group')}; set fewer folds"
        )
    validating = set(ordered[fold::folds])
    is_val = np.array([name in validating for name in names])
    return is_val if split == "val" else ~is_val


def _check_groups(groups: Sequence[str], splits: Sequence[str], root: Path) -> None:
    """Check that no group is in two splits: training data would leak into validation."""
    sides: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        sides.setdefault(group, set()).add(split)
    cut = sorted(group for group, found in sides.items() if len(found) > 1)
    if cut:
        raise InputError(
            f"the split of {root} divides {len(cut):,} of {counted(len(sides), 'group')}: images of these are in "
            "both training and validation; correct the split, or leave it out and set data.folds or "
            "data.val_fraction"
        )


def _unit(name: str) -> float:
    """Hash a name to a number in [0, 1)."""
    head = hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8]
    return int.from_bytes(head, "big") / 2**64
