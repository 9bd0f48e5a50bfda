"""Phantoms: 12 bits, patients on one side of the split, classes that differ in texture and size."""

import numpy as np
import pytest
import torch

from gan_lab.data.builtin import HIGHEST_LEVEL, PATIENTS, PHANTOM_CLASSES, SLICES, Patient, Phantoms
from gan_lab.errors import InputError


@pytest.fixture(scope="module")
def train() -> Phantoms:
    return Phantoms(split="train")


@pytest.fixture(scope="module")
def val() -> Phantoms:
    return Phantoms(split="val")


def test_twelve_bits_in_sixteen(train: Phantoms) -> None:
    images = train.__getitems__(range(len(train))).real
    assert images.dtype == torch.uint16 and images.shape == (2048, 1, 64, 64)
    levels = images.int()
    assert levels.max() <= HIGHEST_LEVEL and levels.unique().numel() > 2048
    seen = train.spec.encode(images)
    assert seen.min() >= -1 and seen.max() <= 1
    assert torch.equal(train.spec.decode(seen), images)


def test_patients_are_on_one_side(train: Phantoms, val: Phantoms) -> None:
    sides = [data.metadata.groups for data in (train, val)]
    assert all(groups is not None for groups in sides)
    ours, theirs = (set(groups or ()) for groups in sides)
    assert not ours & theirs and len(ours | theirs) == PATIENTS
    assert len(train) == SLICES * len(ours) and len(val) == SLICES * len(theirs)
    # one class a patient
    assert (train.labels.reshape(-1, SLICES) == train.labels[::SLICES, None]).all()


def test_always_the_same(val: Phantoms) -> None:
    again = Phantoms(split="val")
    assert again.fingerprint == val.fingerprint
    assert torch.equal(again[17].real, val[17].real)
    assert val.fingerprint != Phantoms(split="val", image_size=32).fingerprint


def test_classes_differ_in_size_and_texture() -> None:
    patients = [Patient.numbered(number) for number in range(120)]
    sizes, roughness = [], []
    for label in range(len(PHANTOM_CLASSES)):
        some = [patient for patient in patients if patient.label == label]
        sizes.append(np.mean([patient.organ[0] for patient in some]))
        middle = [patient.slices(64, 3)[1].astype(float) for patient in some]
        inside = [
            slice_[30:35, 30:35].std()
            for patient, slice_ in zip(some, middle, strict=True)
            if np.hypot(*patient.center) < 0.1
        ]
        roughness.append(np.median(inside))
    assert sizes == sorted(sizes)
    assert roughness[0] < 20 < min(roughness[1:]), "smooth organs show noise alone"


@pytest.mark.parametrize("size", [8, [32, 64], None])
def test_sizes_unknown(size: object) -> None:
    with pytest.raises(InputError, match=r"data\.image_size"):
        Phantoms(split="val", image_size=size)  # type: ignore[arg-type]
