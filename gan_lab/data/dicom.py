"""DICOM files: headers, series in the order of their positions, and pixels in the scanner's levels."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_lab.console import warn
from gan_lab.data.medical import (
    Slices,
    Volume,
    check_range,
    matched,
    pixel_spacing,
    report_skipped,
)
from gan_lab.data.source import FileSource
from gan_lab.errors import InputError, counted, import_extra

_MOST_FRAMES = 10**6  # of a file


class Dicom(Slices):
    """DICOM files, series by series in the order of their positions, as `Slices`.

    Rescale slope and intercept are applied, MONOCHROME1 is inverted, and slices are reoriented the same way: to the
    patient's left and back, or with the head up. Files in other formats are skipped and counted.
    """

    kind_of_files = "DICOM files"

    def _open(self, root: Path, files: list[str]) -> tuple[list[Volume], str]:
        import_extra("pydicom", extra="medical", what="DICOM")
        if self._axis is not None:
            raise InputError(
                f"data.axis={self._axis} is for NIfTI volumes; DICOM slices keep their orientation"
            )
        numbered = [name for name in files if _is_dicom(root / name)]
        report_skipped(len(files) - len(numbered), "DICOM")
        if not numbered:
            raise InputError(f"data.root={root} holds no DICOM files")
        series: dict[str, list[DicomFile]] = defaultdict(list)
        for number, name in enumerate(numbered, start=1):
            file = DicomFile.opened(
                root / name, f"file {number} of {len(numbered)}", name, self._group_by
            )
            if file is not None:
                series[file.series].append(file)
        unknown = sum(not file.has_patient for found in series.values() for file in found)
        if unknown:
            warn(
                f"no PatientID in {counted(unknown, 'DICOM file')}: each study counts as a patient, so one patient's "
                "studies may be on both sides of a split; if paths name the patients, set data.group_by="
            )
        volumes: list[Volume] = []
        for found in series.values():
            # a series with scouts or several sizes becomes several volumes
            by_shape: dict[object, list[DicomFile]] = defaultdict(list)
            for file in found:
                by_shape[file.shape, file.spacing].append(file)
            volumes += [DicomSeries.of(same) for same in by_shape.values()]
        if not volumes:
            raise InputError(f"data.root={root} holds DICOM files without images (reports, plans)")
        return volumes, FileSource(root=root, names=numbered).listing


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """The header of a DICOM file.

    Attributes:
        path: of the file.
        where: for messages.
        label: the first folder below the root.
        series: identifies the series.
        patient: identifies the patient; without PatientID the study, series or file.
        has_patient: whether the patient is known.
        shape: (height, width).
        frames: number of images in it.
        spacing: (height, width) of a pixel in mm, or None.
        position: along the series, by which slices are sorted.
        flips: whether to reverse rows, and columns.
    """

    path: Path
    where: str
    label: str
    series: str
    patient: str
    has_patient: bool
    shape: tuple[int, int]
    frames: int
    spacing: tuple[float, float] | None
    position: float
    flips: tuple[bool, bool]

    @classmethod
    def opened(cls, path: Path, where: str, name: str, group_by: str | None) -> "DicomFile | None":
        """Read a header; None for files without an image, such as reports and plans.

        Raises:
            InputError: for an image without pixels, in color, or that cannot be read.
        """
        import pydicom

        try:
            found = pydicom.dcmread(path, force=True, defer_size=4096)
            if "Rows" not in found or "Columns" not in found:
                stored_as = getattr(found.file_meta, "MediaStorageSOPClassUID", None)
                if stored_as is not None and "Image Storage" in stored_as.name:
                    raise InputError(
                        f"{where} is cut short: it is an image by its kind, and its header ends before the size; "
                        "repair or remove it"
                    )
                return None
            has_pixels = any(key in found for key in ("PixelData", "FloatPixelData"))
            samples = int(found.get("SamplesPerPixel", 1))
            spacing = found.get("PixelSpacing") or found.get("ImagerPixelSpacing")
            orientation, origin = _geometry(found)
            patient = matched(group_by, name) or str(found.get("PatientID") or "").strip()
            study = str(found.get("StudyInstanceUID") or found.get("SeriesInstanceUID") or "")
            file = cls(
                path=path,
                where=where,
                label=name.partition("/")[0] if "/" in name else "",
                series=str(found.get("SeriesInstanceUID", where)),
                patient=patient or study or where,
                has_patient=bool(patient),
                shape=(int(found.Rows), int(found.Columns)),
                frames=check_range(int(found.get("NumberOfFrames") or 1), 1, _MOST_FRAMES),
                spacing=None if spacing is None else pixel_spacing(spacing[0], spacing[1]),
                position=_position(orientation, origin, found.get("InstanceNumber")),
                flips=_flips(orientation),
            )
        except InputError:
            raise
        except Exception as error:  # pydicom raises nearly anything for a damaged header
            raise InputError(
                f"{where} cannot be read: its DICOM header is damaged ({type(error).__name__}); repair or remove it"
            ) from error
        if not has_pixels:
            raise InputError(f"{where} is an image of DICOM without pixels; remove it")
        if samples != 1:
            raise InputError(
                f"{where} is in color ({samples} samples a pixel) among gray ones; take color images out, and save "
                "them as PNG to train on them"
            )
        return file

    def frame(self, number: int) -> NDArray[np.float32]:
        """Return one image [H, W] in the scanner's levels, in the common orientation."""
        from pydicom.pixels.processing import apply_modality_lut

        try:
            found = _read_dicom(self.path)
            stored = found.pixel_array
            stored = stored[number] if self.frames > 1 else stored
            if found.get("PhotometricInterpretation") == "MONOCHROME1":
                # white where levels are low: PS3.3, C.7.6.3.1.2
                largest = -1 if found.PixelRepresentation else 2 ** int(found.BitsStored) - 1
                stored = largest - stored.astype(np.int64)
            levels = np.asarray(apply_modality_lut(stored, found), dtype=np.float32)
        except Exception as error:  # so do pydicom and its decoders for damaged pixels
            raise InputError(
                f"{self.where} cannot be decoded ({type(error).__name__}): it is cut short, damaged, or packed in a "
                "way that needs another decoder; repair or remove it"
            ) from error
        rows, columns = self.flips
        return levels[:: -1 if rows else 1, :: -1 if columns else 1]


@dataclass(frozen=True, kw_only=True)
class DicomSeries(Volume):
    """The images of a series, in the order of their positions.

    Attributes:
        frames: file and frame of each.
    """

    frames: tuple[tuple[DicomFile, int], ...]

    @classmethod
    def of(cls, files: Sequence[DicomFile]) -> "DicomSeries":
        """Sort files of one series and shape."""
        files = sorted(files, key=lambda file: (file.position, file.where))
        first = files[0]
        return cls(
            patient=first.patient,
            series=first.series,
            label=first.label,
            where=first.where,
            shape=first.shape,
            spacing=first.spacing,
            frames=tuple((file, number) for file in files for number in range(file.frames)),
        )

    def __len__(self) -> int:
        return len(self.frames)

    def slice(self, number: int) -> NDArray[np.float32]:
        file, frame = self.frames[number]
        return file.frame(frame)


@lru_cache(maxsize=2)  # and frames of a file
def _read_dicom(path: Path) -> Any:
    import pydicom

    return pydicom.dcmread(path, force=True)


def _is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's preamble (PS3.10, 7.1), or, like old files, only its suffix."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")


def _geometry(found: Any) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Directions of rows and columns [2, 3] and position of the first pixel [3], as a header says (PS3.3, C.7.6.2)."""
    directions, position = found.get("ImageOrientationPatient"), found.get("ImagePositionPatient")
    return (
        None if not directions else np.array(directions, dtype=np.float64).reshape(2, 3),
        None if not position else np.array(position, dtype=np.float64),
    )


def _position(
    directions: NDArray[np.float64] | None, position: NDArray[np.float64] | None, number: Any
) -> float:
    if directions is not None and position is not None:
        return float(np.cross(*directions) @ position)
    return float(number or 0)


def _flips(directions: NDArray[np.float64] | None) -> tuple[bool, bool]:
    """Whether to reverse rows and columns, so that x grows to the patient's left, y to the back, and z from the top."""
    if directions is None:
        return False, False
    along_row, along_column = np.take_along_axis(
        directions, np.abs(directions).argmax(1, keepdims=True), axis=1
    )
    vertical_is_z = int(np.abs(directions[1]).argmax()) == 2
    return bool((along_column > 0) == vertical_is_z), bool(along_row < 0)
