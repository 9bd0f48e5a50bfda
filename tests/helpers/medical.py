"""DICOM and NIfTI files: phantoms of ellipses, whose size depends on the patient."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"  # CT Image Storage


def phantom(size: int, radius: float, level: int, seed: int = 0) -> NDArray[np.uint16]:
    """An ellipse with texture in 12 bits, brighter in its upper left part."""
    y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    inside = (x / radius) ** 2 + (y / (0.7 * radius)) ** 2 < 1
    texture = np.random.default_rng(seed).normal(0, 20, (size, size))
    pixels = np.where(inside, level + texture + 200 * ((x < 0) & (y < 0)), 0)
    return pixels.clip(0, 4095).round().astype(np.uint16)


def write_dicom(
    path: Path, pixels: NDArray[Any], *, patient: str, series: str, at: int = 0, **header: Any
) -> None:
    """Write one slice."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = CT
    found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    found.SOPClassUID, found.SOPInstanceUID = CT, found.file_meta.MediaStorageSOPInstanceUID
    found.PatientID, found.PatientName = patient, patient
    found.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    found.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        found.PlanarConfiguration = 0
    found.BitsAllocated = 8 * pixels.dtype.itemsize
    found.BitsStored = 12 if pixels.dtype == np.uint16 else found.BitsAllocated
    found.HighBit = found.BitsStored - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PixelSpacing = [0.8, 0.8]
    found.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    found.ImagePositionPatient = [0, 0, at]
    for key, value in header.items():
        setattr(found, key, value)
    found.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path, enforce_file_format=True)


def write_study(
    root: Path, *, patients: int = 4, slices: int = 5, size: int = 16, first: int = 0
) -> None:
    """Write a series a patient, numbered from `first` on, with an empty slice at its end."""
    for patient in range(first, first + patients):
        for at in range(slices):
            pixels = phantom(size, 0.5 + 0.1 * patient, 1000 + 100 * at, seed=at)
            if at == slices - 1:
                pixels[:] = 0
            path = root / f"CANARY_{patient}" / f"CANARY{at}.dcm"
            write_dicom(path, pixels, patient=f"CANARY^{patient}", series=str(patient), at=at)


def write_nifti(
    path: Path, values: NDArray[Any], spacing: tuple[float, ...] = (1, 1, 1), *, flip: bool = False
) -> None:
    """Write values [X, Y, Z]; with `flip` stored the other way round in x, which means the same volume."""
    affine = np.diag([*spacing[:3], 1.0])
    if flip:
        values = values[::-1]
        affine[0, 0] *= -1
        affine[0, 3] = spacing[0] * (values.shape[0] - 1)
    image = nibabel.Nifti1Image(values, affine)
    if values.ndim == 4:
        image.header.set_zooms((*spacing[:3], 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
