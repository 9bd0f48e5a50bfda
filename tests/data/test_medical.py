"""DICOM and NIfTI: levels, order, orientation, patients, and that no patient names are output."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from gan_lab.commands.launch import launch
from gan_lab.data.dicom import Dicom
from gan_lab.data.high_bit_depth import read_levels
from gan_lab.data.image_folder import Zip
from gan_lab.data.medical import Slices
from gan_lab.data.nifti import Nifti
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from tests.helpers.medical import phantom, write_dicom, write_nifti, write_study


def dicom(root: Path, **options: Any) -> Dicom:
    return Dicom(**{"split": "train", "root": root, **options})


def nifti(root: Path, **options: Any) -> Nifti:
    return Nifti(**{"split": "train", "root": root, **options})


def claimed(root: Path, at: int, form: str, *values: float) -> None:
    """Write a volume with a changed header field."""
    write_nifti(root / "a.nii", np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32))
    data = bytearray((root / "a.nii").read_bytes())
    struct.pack_into(form, data, at, *values)
    (root / "a.nii").write_bytes(data)


def slice_with(root: Path, **header: Any) -> None:
    """Write a slice with changed header fields."""
    write_dicom(root / "a.dcm", phantom(16, 0.5, 1000), patient="a", series="1", **header)


def one(root: Path, name: str) -> Path:
    """A folder with one of the files that pydicom's package ships."""
    path = get_testdata_file(name)
    assert path is not None
    (root / name).write_bytes(Path(path).read_bytes())
    return root


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"]
)
def test_levels_are_the_scanners(tmp_path: Path, name: str) -> None:
    data = dicom(one(tmp_path, name))
    found = pydicom.dcmread(tmp_path / name)
    slope, intercept = found.get("RescaleSlope", 1), found.get("RescaleIntercept", 0)
    expected = found.pixel_array.astype(np.float64) * float(slope) + float(intercept)
    pixels = data[0].real[0, 0].numpy()
    assert sorted(pixels.ravel().tolist()) == sorted(expected.ravel().tolist())
    assert data.spec.kind.name == ("16-bit image" if expected.min() >= 0 else "32-bit image")


def test_rescale_and_monochrome1(tmp_path: Path) -> None:
    pixels = phantom(8, 0.8, 1000)
    write_dicom(tmp_path / "a.dcm", pixels, patient="p", series="s", at=0,
                RescaleSlope=2, RescaleIntercept=-1024)  # fmt: skip
    write_dicom(tmp_path / "b.dcm", pixels, patient="p", series="s", at=1,
                PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    data = dicom(tmp_path)
    assert (data[0].real[0, 0].numpy() == pixels * 2.0 - 1024).all()
    assert (data[1].real[0, 0].numpy() == 4095.0 - pixels).all()


def test_slices_come_in_the_order_of_their_positions(tmp_path: Path) -> None:
    for name, at in ("a", 3), ("b", -1), ("c", 10), ("d", 2):
        pixels = phantom(8, 0.8, 1000 + 10 * at)
        write_dicom(tmp_path / f"{name}.dcm", pixels, patient="p", series="s", at=at)
    data = dicom(tmp_path, neighbors=1)
    levels = [data[i].real.float().mean().item() for i in range(4)]
    assert levels == sorted(levels)
    assert data.spec.shape == (3, 8, 8)
    first, second = data[0].real[0], data[1].real[0]
    assert (first[0] == first[1]).all(), "at the end the last slice repeats"
    assert (first[2] == second[1]).all() and (first[1] == second[0]).all()


def test_slices_look_one_way(tmp_path: Path) -> None:
    pixels = phantom(8, 0.9, 1000)
    turned = {"a": ([1, 0, 0, 0, 1, 0], pixels), "b": ([-1, 0, 0, 0, 1, 0], pixels[:, ::-1]),
              "c": ([1, 0, 0, 0, -1, 0], pixels[::-1]), "d": ([-1, 0, 0, 0, -1, 0], pixels[::-1, ::-1])}  # fmt: skip
    for name, (directions, stored) in turned.items():
        path = tmp_path / f"{name}.dcm"
        write_dicom(
            path, stored.copy(), patient="p", series=name, ImageOrientationPatient=directions
        )
    data = dicom(tmp_path)
    assert data.num_stored == 4
    assert all((data[i].real[0, 0].numpy() == pixels).all() for i in range(4))


def test_patients_stay_together_under_pseudonyms(tmp_path: Path) -> None:
    write_study(tmp_path, patients=6)
    train, val = (dicom(tmp_path, split=split, folds=3) for split in ("train", "val"))
    assert train.num_stored + val.num_stored == 24, "empty slices are left out"
    groups = [set(data.metadata.groups or ()) for data in (train, val)]
    assert len(groups[0]) == 4 and len(groups[1]) == 2 and not groups[0] & groups[1]
    assert groups[0] | groups[1] == {f"patient{i:04}" for i in range(1, 7)}
    assert dicom(tmp_path, keep_empty=True).num_stored == 30
    assert dicom(tmp_path, slices=[1, -2], every=2).num_stored == 12


def evaluate(run: Path, protocol: str) -> int:
    """Measure a run by 12 images and no network."""
    overrides = ["features=none", "protocol.num_fake=12", "device=cpu", f"run={run}"]
    more = {
        "memorization": ["protocol.metrics.copies.output=null"],
        "utility": ["protocol.metrics.utility.steps=2"],
    }
    return launch("evaluate", [f"protocol={protocol}", *overrides, *more[protocol]])


def test_without_patient_ids_studies_stay_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for study, series in ((1, "a"), (1, "b"), (2, "c")):
        for k in range(2):
            write_dicom(
                tmp_path / f"{series}{k}.dcm", phantom(16, 0.5, 1000 + k), at=k, patient="", series=series,
                StudyInstanceUID=generate_uid(entropy_srcs=[str(study)]),
            )  # fmt: skip
    groups = list(dicom(tmp_path).metadata.groups or ())
    assert sorted(groups.count(group) for group in set(groups)) == [2, 4]
    warning = " ".join("".join(capsys.readouterr()).split())
    assert "no PatientID in 6 DICOM files" in warning and "data.group_by=" in warning


def test_no_output_identifies_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "study" / "smooth", patients=3)
    write_study(tmp_path / "study" / "striped", patients=3, first=3)
    (tmp_path / "study" / "CANARY.txt").write_text("CANARY")
    out = tmp_path / "out"
    overrides = [
        "data=dicom",
        f"data.root={tmp_path / 'study'}",
        "data.folds=3",
        "data.classes=true",
    ]
    assert launch("prepare-data", [*overrides, f"out={out / 'study.zip'}"]) == 0
    train = ["model=dcgan", "model.generator.width=4", "model.discriminator.width=4", "metrics=none",
             "batch_size=4", "total_kimg=0.016", "trainer=cpu", f"runs_dir={out}",
             "num_workers=0", "logger=[csv,tensorboard]"]  # fmt: skip
    assert launch("train", [*overrides, *train, "name=direct", "data.image_size=16"]) == 0
    packed = ["data=zip", f"data.root={out / 'study.zip'}"]
    assert launch("train", [*packed, *train, "name=packed"]) == 0
    for run in "direct", "packed":
        assert (
            launch("generate", [f"run={out / run}", "num_images=2", f"out={out / run}_made"]) == 0
        )
        for protocol in "memorization", "utility":
            assert evaluate(out / run, protocol) == 0
        assert launch("export", [f"run={out / run}", f"out={out / run}_exported"]) == 0
        card = (out / f"{run}_exported" / "README.md").read_text()
        assert "16 bits" in card and "0.8 x 0.8 mm" in card
        assert "4 groups" in card and "Memorization: " in card and "Not for diagnosis" in card
        assert launch("project", [f"run={out / run}", "dataset_indices=0"]) == 2
        sheet = out / run / "copies_shifted_12_nearest.png"
        assert sheet.is_file()
        strip = f"out={out / run}_path.png"
        assert launch("interpolate", [f"run={out / run}", "seeds=[0,1]", "frames=2", strip]) == 0
    assert launch("prepare-data", [*packed, f"out={out / 'shards'}"]) == 0
    runs = [str(out / "direct"), str(out / "packed")]
    assert launch("compare", [*runs, f"out={out / 'compare.html'}"]) == 0
    assert launch("train", [*overrides, *train, "name=dry", "dry_run=true"]) == 0
    broken = tmp_path / "study" / "smooth" / "CANARY_0" / "CANARY0.dcm"
    broken.write_bytes(broken.read_bytes()[:600])
    assert launch("train", [*overrides, *train, "name=broken"]) == 2
    said = capsys.readouterr()
    for text in said.out, said.err:
        assert "CANARY" not in text
    assert "file 1 of 30" in said.err and "works with 8-bit images" in said.err
    for path in out.rglob("*"):
        assert "CANARY" not in path.name
        assert path.is_dir() or b"CANARY" not in path.read_bytes(), path
    assert Zip(split="train", root=out / "study.zip").metadata.groups is not None
    assert (out / "direct" / "evaluation.json").is_file()


def test_packed_slices_are_the_same(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    overrides = ["data=dicom", f"data.root={tmp_path / 'study'}", f"out={tmp_path / 'a.zip'}"]
    assert launch("prepare-data", overrides) == 0
    before, after = dicom(tmp_path / "study"), Zip(split="train", root=tmp_path / "a.zip")
    assert len(before) == len(after) == 16
    assert all((before[i].real == after[i].real).all() for i in range(16))
    assert before.metadata.groups == after.metadata.groups
    assert before.metadata.series == after.metadata.series
    assert len(set(before.metadata.series or ())) == 4
    assert before.spec.kind.arguments == after.spec.kind.arguments
    assert after.spec.kind.arguments["spacing"] == [0.8, 0.8]


def test_size_of_a_pixel_is_kept_however_often_it_is_packed(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    overrides = ["data=dicom", f"data.root={tmp_path / 'study'}", f"out={first}"]
    assert launch("prepare-data", overrides) == 0
    overrides = ["data=zip", f"data.root={first}", "size=8", f"out={second}"]
    assert launch("prepare-data", overrides) == 0
    sizes = [
        Zip(split="train", root=root, **options).spec.kind.arguments["spacing"]
        for root, options in (
            (first, {"image_size": 8}),
            (second, {}),
            (second, {"crop": 4, "image_size": 8}),
        )
    ]
    assert sizes == [[1.6, 1.6], [1.6, 1.6], [0.8, 0.8]]


def test_nifti_is_brought_to_one_orientation(tmp_path: Path) -> None:
    values = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    write_nifti(tmp_path / "a" / "x.nii.gz", values)
    write_nifti(tmp_path / "b" / "x.nii", values, flip=True)
    for axis, number in ("sagittal", 0), ("coronal", 1), ("axial", 2):
        one, other = (nifti(tmp_path / f, axis=axis, keep_empty=True) for f in "ab")
        assert one.num_stored == values.shape[number]
        assert all((one[i].real == other[i].real).all() for i in range(len(one)))
    axial = (
        nifti(tmp_path / "a")[2].real[0, 0].numpy()
    )  # rows from the front, columns from the right
    assert axial[0, 0] == values[-1, -1, 2] and axial[-1, -1] == values[0, 0, 2]


def test_spacing_is_resampled(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32)
    write_nifti(tmp_path / "sub-1.nii", values, (1, 2, 1))
    assert nifti(tmp_path, spacing=1).spec.shape == (1, 16, 8)
    write_nifti(tmp_path / "sub-2.nii", values, (1, 1, 1))
    with pytest.raises(InputError, match=r"spacings.*data\.spacing"):
        nifti(tmp_path)
    with pytest.raises(InputError, match=r"16x8.*data\.image_size"):
        nifti(tmp_path, spacing=1)
    assert nifti(tmp_path, spacing=1, image_size=8).spec.shape == (1, 8, 8)


def test_hounsfield_units_through_a_window(tmp_path: Path) -> None:
    values = np.linspace(-1000, 3000, 64, dtype=np.float32).reshape(8, 8, 1)
    write_nifti(tmp_path / "a.nii", values)
    data = nifti(tmp_path, window=[40, 400], keep_empty=True)
    seen = data.spec.encode(data[0].real)
    assert seen.min() == -1 and seen.max() == 1
    expected = ((data[0].real - 40) / 200).clamp(-1, 1)
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize(
    ("write", "make", "message"),
    [
        (lambda root: one(root, "MR_truncated.dcm"), dicom, "file 1 of 1 cannot be decoded"),
        (lambda root: one(root, "SC_rgb_small_odd.dcm"), dicom, "file 1 of 1 is in color"),
        (lambda root: (root / "a.dcm").write_bytes(b"no"), dicom, "file 1 of 1|without images"),
        (lambda root: one(root, "rtplan.dcm"), dicom, "without images"),
        (lambda root: (root / "a.txt").write_text("x"), dicom, "no DICOM files"),
        (lambda root: (root / "a.nii").write_bytes(b"no"), nifti, "file 1 of 1 cannot be read"),
        (lambda root: write_nifti(root / "a.nii", np.zeros((2, 2, 2, 3), np.float32)), nifti, "4 dimensions"),
        (lambda root: write_nifti(root / "a.nii", np.full((2, 2, 2), np.nan, np.float32)), nifti, "NaN"),
        (lambda root: write_nifti(root / "a.nii", np.zeros((2, 2, 2), np.float32)), nifti, "none is left"),
        (lambda root: write_nifti(root / "a.nii", np.zeros((2, 2, 2), np.complex64)), nifti, "complex"),
        (lambda root: claimed(root, 42, "<h", 0), nifti, "file 1 of 1 cannot be read"),
        (lambda root: claimed(root, 42, "<3h", 32767, 32767, 32767), nifti, "file 1 of 1 cannot be read"),
        (lambda root: claimed(root, 80, "<3f", np.nan, np.nan, np.nan), nifti, "file 1 of 1 cannot be read"),
        (lambda root: claimed(root, 108, "<f", 1e30), nifti, "file 1 of 1 cannot be read"),
        (lambda root: slice_with(root, NumberOfFrames=2147483647), dicom, "file 1 of 1 cannot be read"),
        (lambda root: slice_with(root, PixelSpacing=[0, 0]), dicom, "file 1 of 1 cannot be read"),
        (lambda root: slice_with(root, PixelSpacing=[1e9, 1e9]), dicom, "file 1 of 1 cannot be read"),
        (lambda root: slice_with(root, Rows=65535, Columns=65535), dicom, "file 1 of 1 cannot be decoded"),
        (lambda root: slice_with(root, RescaleSlope="1e308", RescaleIntercept="1e308"), dicom, "NaN or infinity"),
        (lambda root: slice_with(root, ImageOrientationPatient=[0] * 5), dicom, "file 1 of 1 cannot be read"),
    ],
)  # fmt: skip
def test_bad_files_are_named_by_number(tmp_path: Path, write: Any, make: Any, message: str) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match=message):
        make(tmp_path)


def test_an_image_without_pixels(tmp_path: Path) -> None:
    write_study(tmp_path, patients=1)
    path = next(tmp_path.rglob("*.dcm"))
    found = pydicom.dcmread(path)
    del found.PixelData
    found.save_as(path)
    with pytest.raises(InputError, match="without pixels"):
        dicom(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"spacing": 0}, {"slices": [1]}, {"every": 0}, {"neighbors": -1}, {"axis": "axial"},
     {"group_by": "("}, {"window": "wide"}],
)  # fmt: skip
def test_options_out_of_range(tmp_path: Path, options: dict[str, Any]) -> None:
    write_study(tmp_path, patients=2)
    with pytest.raises(InputError, match=f"data.{next(iter(options))}="):
        dicom(tmp_path, **options)


@pytest.mark.parametrize(
    ("write", "make", "message"),
    [
        (lambda root: write_dicom(root / "b.dcm", phantom(8, 0.8, 1000), patient="p", series="t",
                                  PixelSpacing=[1, 1]), dicom, r"spacings.*file 2 of 2"),
        (lambda root: write_dicom(root / "b.dcm", np.zeros((8, 8, 3), np.uint8), patient="p", series="t"),
         dicom, "file 2 of 2 is in color"),
        (lambda root: write_dicom(root / "b.dcm", phantom(9, 0.8, 1000), patient="p", series="t"),
         dicom, "8x8.*9x9"),
        (lambda root: (root / "b.dcm").write_bytes((root / "a.dcm").read_bytes()[:-40]), dicom,
         "file 2 of 2 cannot be decoded"),
    ],
    ids=["spacing", "color", "size", "truncated"],
)  # fmt: skip
def test_the_odd_one_is_named(tmp_path: Path, write: Any, make: Any, message: str) -> None:
    write_dicom(tmp_path / "a.dcm", phantom(8, 0.8, 1000), patient="p", series="s")
    write(tmp_path)
    with pytest.raises(InputError, match=message):
        make(tmp_path)


def test_bits_of_headers_may_differ(tmp_path: Path) -> None:
    pixels = phantom(8, 0.8, 1000)
    write_dicom(tmp_path / "a.dcm", pixels, patient="p", series="s", at=0)
    write_dicom(
        tmp_path / "b.dcm", pixels, patient="p", series="s", at=1, BitsStored=16, HighBit=15
    )
    data = dicom(tmp_path)
    assert (data[0].real == data[1].real).all(), "levels are the scanner's, however many bits"
    assert data.spec.kind.name == "16-bit image"


def test_size_of_a_pixel_and_number_of_patients(tmp_path: Path) -> None:
    write_study(tmp_path)
    whole, resized = dicom(tmp_path), dicom(tmp_path, image_size=8)
    resampled = dicom(tmp_path, spacing=1.6)
    found = [data.spec.kind.arguments["spacing"] for data in (whole, resized, resampled)]
    assert found == [[0.8, 0.8], [1.6, 1.6], [1.6, 1.6]]
    assert whole.spec.num_groups == 4
    restored = SampleSpec.from_dict(whole.spec.as_dict(), origin=tmp_path)
    assert restored.num_groups == 4 and restored.kind.arguments == whole.spec.kind.arguments


def test_files_are_16_bits(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    data: Slices = dicom(tmp_path / "study")
    data.spec.kind.write(data[0].real[0], tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        assert (read_levels(file)[..., 0] == data[0].real[0, 0].numpy()).all()
    assert json.dumps(data.spec.as_dict())
