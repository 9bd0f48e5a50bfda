"""Splits: groups, such as patients, stay on one side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gan_lab.data.base import MissingSplit
from gan_lab.data.image_folder import ImageFolder
from gan_lab.data.splits import members_by_fold, members_by_name
from gan_lab.errors import InputError
from gan_lab.metrics.sources import DatasetImages


def write_patients(root: Path, *, patients: int = 8, each: int = 3) -> None:
    for patient in range(patients):
        for number in range(each):
            path = root / f"patient{patient:02}_{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("L", (4, 4), 10 * patient).save(path)


def patients_of(data: ImageFolder) -> set[str]:
    return {data.name(i).partition("_")[0] for i in range(data.num_stored)}


def both(root: Path, **options: Any) -> list[ImageFolder]:
    return [ImageFolder(split=split, root=root, **options) for split in ("train", "val")]


def write_table(root: Path, column: str, split: dict[str, str] | None = None) -> None:
    files = sorted(path.name for path in root.glob("*.png"))
    lines = [f"file,{column}" + (",split" if split else "")]
    for name in files:
        patient = name.partition("_")[0]
        lines.append(f"{name},{patient}" + (f",{split.get(name, 'train')}" if split else ""))
    (root / "labels.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("group_by", ["(patient[0-9]+)_", "patient[0-9]+"])
def test_a_pattern_of_the_path_keeps_patients_together(tmp_path: Path, group_by: str) -> None:
    write_patients(tmp_path)
    train, val = both(tmp_path, group_by=group_by, val_fraction=0.3)
    assert not patients_of(train) & patients_of(val)
    assert train.num_stored + val.num_stored == 24
    assert train.metadata.groups == [train.name(i).partition("_")[0] for i in range(len(train))]


@pytest.mark.parametrize(
    ("column", "group_by"), [("patient", None), ("group", None), ("case", "case")]
)
def test_a_column_keeps_patients_together(
    tmp_path: Path, column: str, group_by: str | None
) -> None:
    write_patients(tmp_path)
    write_table(tmp_path, column)
    train, val = both(tmp_path, group_by=group_by, val_fraction=0.3)
    assert patients_of(train) and patients_of(val) and not patients_of(train) & patients_of(val)


def test_the_folder_is_a_group(tmp_path: Path) -> None:
    for patient in "abcdef":
        write_patients(tmp_path / patient, patients=1)
    train, val = both(tmp_path, group_by="folder", classes=False, val_fraction=0.4)
    folders = [{d.name(i).partition("/")[0] for i in range(d.num_stored)} for d in (train, val)]
    assert not folders[0] & folders[1] and len(folders[0] | folders[1]) == 6


def test_each_patient_validates_in_one_fold(tmp_path: Path) -> None:
    write_patients(tmp_path, patients=11)
    seen = []
    for fold in range(5):
        train, val = both(tmp_path, group_by="(patient[0-9]+)_", folds=5, fold=fold)
        assert not patients_of(train) & patients_of(val)
        assert len(patients_of(val)) in (2, 3)
        seen += sorted(patients_of(val))
    assert len(seen) == len(set(seen)) == 11


def test_a_split_that_cuts_through_patients_is_rejected(tmp_path: Path) -> None:
    write_patients(tmp_path)
    write_table(tmp_path, "patient", {"patient00_0.png": "val", "patient03_1.png": "val"})
    with pytest.raises(InputError, match="2 of 8 groups"):
        both(tmp_path)
    whole = {f"patient05_{number}.png": "val" for number in range(3)}
    write_table(tmp_path, "patient", whole)
    assert patients_of(both(tmp_path)[1]) == {"patient05"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": "doctor"}, "group_by=doctor.*24 paths"),
        ({"group_by": "(", "val_fraction": 0.3}, "regular expression"),
        ({"folds": 1}, "folds=1"),
        ({"folds": 5, "fold": 5}, "fold=5"),
        ({"folds": 5, "val_fraction": 0.1}, "val_fraction=0.1"),
        ({"folds": 9, "group_by": "(patient[0-9]+)_"}, "folds=9.*8 groups"),
    ],
)
def test_what_cannot_be_split(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write_patients(tmp_path)
    with pytest.raises(InputError, match=message):
        both(tmp_path, **options)


def test_without_fraction_and_folds_nothing_validates(tmp_path: Path) -> None:
    write_patients(tmp_path)
    with pytest.raises(MissingSplit):
        ImageFolder(split="val", root=tmp_path, group_by="(patient[0-9]+)_")


def test_groups_are_packed(tmp_path: Path) -> None:
    write_patients(tmp_path)
    table = ImageFolder(split="train", root=tmp_path, group_by="(patient[0-9]+)_").metadata
    assert len(json.loads(json.dumps(table.to_json()))["groups"]) == 24


def test_evaluation_draws_whole_groups(tmp_path: Path) -> None:
    write_patients(tmp_path)
    data = ImageFolder(split="train", root=tmp_path, group_by="(patient[0-9]+)_")
    images = DatasetImages(data, num=9).read(0, 9)
    levels, counts = np.unique(images[:, 0, 0, 0].numpy(), return_counts=True)
    assert len(levels) == 3 and set(counts.tolist()) == {3}


@given(
    names=st.lists(st.sampled_from([f"p{i}" for i in range(20)]), min_size=1),
    folds=st.integers(2, 5),
)
def test_folds_are_about_as_large_and_cover_everything(names: list[str], folds: int) -> None:
    if len(set(names)) < folds:
        return
    masks = [members_by_fold(names, split="val", folds=folds, fold=k) for k in range(folds)]
    assert (np.sum(masks, axis=0) == 1).all()
    sizes = [len({n for n, chosen in zip(names, mask, strict=True) if chosen}) for mask in masks]
    assert max(sizes) - min(sizes) <= 1


def test_adding_names_moves_none_of_the_others() -> None:
    names = [f"image{i}.png" for i in range(200)]
    before = members_by_name(names, split="val", val_fraction=0.2)
    after = members_by_name([*names, "new.png"], split="val", val_fraction=0.2)
    assert (after[:200] == before).all() and 20 < before.sum() < 60
