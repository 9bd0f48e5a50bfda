"""Slices of DICOM series and NIfTI volumes, in the scanner's own levels, with patients as groups under pseudonyms.

Names of patients, files and folders stay where they are: images, messages and tables know "patient 3" and "file 7".
"""

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_lab.console import say
from gan_lab.data.base import ImageDataset, digest
from gan_lab.data.cache import Arrays, kept
from gan_lab.data.deep_images import DeepImage, parse_window, window_of
from gan_lab.data.metadata import UNLABELLED, MetadataTable
from gan_lab.data.source import FileSource, existing_folder
from gan_lab.data.splits import members_by_table
from gan_lab.data.transform import Crop, ImageSize, ImageTransform, parse_crop, parse_size
from gan_lab.errors import InputError, counted

AXES = {
    "sagittal": 0,
    "coronal": 1,
    "axial": 2,
}  # of a volume whose axes go to the right, front and top
_SPACINGS = (1e-4, 1e4)  # mm of a pixel, from microscopes to what is damaged
_MOST_FRAMES = 10**6  # of a file
_MOST_VOXELS = 2**31
_EMPTY = 0.01  # standard deviation of a slice, as a share of its volume's range, below which nothing is on it


@dataclass(frozen=True, kw_only=True)
class Volume(ABC):
    """Slices that belong together: of one series, or one file.

    Attributes:
        patient: identifies the patient; never shown.
        label: the first folder below the root.
        where: for messages, such as "file 3".
        shape: (height, width) of a slice.
        spacing: (height, width) of a pixel in mm, or None where the file does not say.
    """

    patient: str
    label: str
    where: str
    shape: tuple[int, int]
    spacing: tuple[float, float] | None

    @abstractmethod
    def __len__(self) -> int:
        """Number of slices."""

    @abstractmethod
    def slice(self, number: int) -> NDArray[np.float32]:
        """Return one slice [H, W], in the scanner's levels (such as Hounsfield units).

        Raises:
            InputError: naming the file by its number when it cannot be decoded.
        """


class Slices(ImageDataset):
    """Slices of all volumes below a folder.

    Levels that are whole and not negative are kept in 16 bits, all others, such as Hounsfield units, as float32.

    Args:
        split: "train" or "val".
        root: the folder.
        classes: whether the folders in `root` are classes, whose names are then in the run.
        val_fraction: part of the patients to validate on.
        folds: in place of that: so many parts of about as many patients each, of which one validates.
        fold: index of the validation fold.
        image_size: one number, [H, W], or None for the one size that all slices have.
        crop: "center" | "none" | pixels | [H, W]; see `ImageTransform`.
        resample: "lanczos" | "box" | "bicubic" | "bilinear".
        spacing: mm a pixel that all slices are resampled to, or None for the one spacing that all have.
        slices: [first, last] of each volume, counted from 0, negative from its end.
        every: only every so many-th of these.
        keep_empty: whether slices stay on which there is nothing.
        neighbours: slices before and after each that are its further channels, which some call 2.5-D.
        window: "range" | "full" | "percentiles" | [centre, width], in levels.
        flip: append the mirror images, which exchanges left and right.
        axis: that slices lie across, of NIfTI: "axial" (None), "coronal" or "sagittal".
        group_by: a regular expression whose match in a path names the patient; None for DICOM's patient, and in names
            of NIfTI files BIDS's sub-..., else each file is a patient of its own.

    Raises:
        InputError: for a missing or empty folder, files that cannot be read or do not go together, and options out of
            range.
    """

    def __init__(
        self,
        *,
        split: str,
        root: str | Path | None,
        classes: bool = False,
        val_fraction: float = 0.0,
        folds: int | None = None,
        fold: int = 0,
        image_size: ImageSize = None,
        crop: Crop = "center",
        resample: str = "bilinear",
        spacing: float | None = None,
        slices: Sequence[int] | None = None,
        every: int = 1,
        keep_empty: bool = False,
        neighbours: int = 0,
        window: str | Sequence[float] = "range",
        flip: bool = False,
        axis: str | None = None,
        group_by: str | None = None,
    ) -> None:
        levels = parse_window(window)
        _check_options(spacing=spacing, slices=slices, every=every, neighbours=neighbours)
        if axis is not None and axis not in AXES:
            raise InputError(f"data.axis={axis!r}; allowed: {', '.join(AXES)}")
        self._axis, self._group_by = axis, group_by
        folder = existing_folder(root, f"a folder of {self.kind_of_files}")
        files = sorted(_files(folder))
        volumes, listing = self._open(folder, files)
        self._volumes = volumes
        self._spacing = spacing
        self._neighbours = neighbours
        found = kept(
            "volumes",
            digest(type(self).__name__, listing, [volume.where for volume in volumes]),
            lambda: _looked_at(volumes),
        )
        items = _chosen(volumes, found, slices, every, keep_empty)
        channels = 2 * neighbours + 1
        self._transform = ImageTransform(
            size=parse_size(image_size) or self._common_size(),
            channels=channels,
            crop=parse_crop(crop),
            resample=resample,
        )
        names = sorted({volume.label for volume in volumes}) if classes else UNLABELLED
        patients = _pseudonyms([volume.patient for volume in volumes])
        table = MetadataTable(
            files=[f"{patients[v]}/volume{v + 1:04}/slice{k:04}" for v, k in items],
            labels=np.array([names.index(volumes[v].label) if classes else 0 for v, _ in items]),
            class_names=list(names),
            groups=[patients[v] for v, _ in items],
        )
        members = members_by_table(
            table, split=split, val_fraction=val_fraction, root=folder, folds=folds, fold=fold
        )
        self._items = [item for item, chosen in zip(items, members, strict=True) if chosen]
        self._table = table.rows(np.flatnonzero(members))
        self._bits: Literal[16, 32] = 16 if found["whole"].all() else 32
        self.pixel_type = torch.uint16 if self._bits == 16 else torch.float32
        ends = _ends(levels, found, self._bits)
        super().__init__(
            split=split,
            image_size=self._transform.size,
            channels=channels,
            class_names=names,
            labels=self._table.labels,
            flip=flip,
            kind=DeepImage(bits=self._bits, channels=channels, window=ends),
            representation=window_of(ends, bits=self._bits),
        )
        self._fingerprint = digest(
            listing, self._items, self._transform, spacing, neighbours, ends, split, flip
        )

    kind_of_files: str

    @abstractmethod
    def _open(self, root: Path, files: list[str]) -> tuple[list[Volume], str]:
        """Return the volumes of the files, and a digest of these."""

    @property
    def fingerprint(self) -> str:
        """Digest of the files, and of what is made of them."""
        return self._fingerprint

    @property
    def metadata(self) -> MetadataTable:
        return self._table

    def name(self, index: int) -> str:
        """Patient, volume and slice, by their numbers."""
        return self._table.files[index]

    def load(self, index: int) -> Tensor:
        """Stored slice `index` [C, H, W], with its neighbours as further channels; at the ends the last one repeats."""
        number, at = self._items[index]
        volume = self._volumes[number]
        around = range(at - self._neighbours, at + self._neighbours + 1)
        planes = [volume.slice(min(max(k, 0), len(volume) - 1)) for k in around]
        if self._spacing is not None and volume.spacing is not None:
            planes = [_resampled(plane, volume.spacing, self._spacing) for plane in planes]
        pixels = self._transform.levels(np.stack(planes, axis=-1), bits=self._bits)
        return torch.from_numpy(pixels.copy())

    def pack(self, index: int) -> bytes:
        kind = self.spec.kind
        assert isinstance(kind, DeepImage)
        return kind.encoded(self.load(index))

    def _common_size(self) -> tuple[int, int]:
        """Check that volumes have one spacing and size; return the size."""
        if self._spacing is None:
            spacings = Counter(
                tuple(round(mm, 3) for mm in volume.spacing) if volume.spacing else None
                for volume in self._volumes
            ).most_common()
            if len(spacings) > 1:
                odd = next(
                    volume.where
                    for volume in self._volumes
                    if volume.spacing is None
                    or tuple(round(mm, 3) for mm in volume.spacing) != spacings[0][0]
                )
                listed = ", ".join(f"{spacing} ({count:,})" for spacing, count in spacings[:4])
                raise InputError(
                    f"pixels have different spacings in mm: {listed}, the last of them in {odd}; set data.spacing=1.0 "
                    "(and data.image_size) to resample all to one"
                )
        elif any(volume.spacing is None for volume in self._volumes):
            odd = next(volume.where for volume in self._volumes if volume.spacing is None)
            raise InputError(f"data.spacing={self._spacing:g}, but {odd} does not say its own")
        sizes = Counter(
            _resampled_size(volume.shape, volume.spacing, self._spacing) for volume in self._volumes
        ).most_common()
        if len(sizes) > 1:
            listed = ", ".join(f"{height}x{width} ({n:,})" for (height, width), n in sizes[:4])
            raise InputError(
                f"slices have different sizes: {listed}; set data.image_size=256 to crop and resize them all"
            )
        return sizes[0][0]


class Dicom(Slices):
    """DICOM files, series by series in the order of their positions, as `Slices`.

    Rescale slope and intercept are applied, MONOCHROME1 is inverted, and slices are turned so that all look the same
    way: to the patient's left and back, or with the head up. Files in other formats are passed over and counted.
    """

    kind_of_files = "DICOM files"

    def _open(self, root: Path, files: list[str]) -> tuple[list[Volume], str]:
        _need("pydicom", "DICOM")
        if self._axis is not None:
            raise InputError(
                f"data.axis={self._axis} is for NIfTI volumes; slices of DICOM lie as they were taken"
            )
        numbered = [name for name in files if _is_dicom(root / name)]
        _tell_others(root, len(files) - len(numbered), "DICOM")
        if not numbered:
            raise InputError(f"data.root={root} holds no DICOM files")
        series: dict[str, list[DicomFile]] = defaultdict(list)
        for number, name in enumerate(numbered, start=1):
            file = DicomFile.opened(
                root / name, f"file {number} of {len(numbered)}", name, self._group_by
            )
            if file is not None:
                series[file.series].append(file)
        volumes: list[Volume] = []
        for found in series.values():
            # a scout or a series of several sizes is as many volumes
            by_shape: dict[object, list[DicomFile]] = defaultdict(list)
            for file in found:
                by_shape[file.shape, file.spacing].append(file)
            volumes += [DicomSeries.of(same) for same in by_shape.values()]
        if not volumes:
            raise InputError(
                f"data.root={root} holds no DICOM images, but reports, plans and the like"
            )
        return volumes, FileSource(root=root, names=numbered).listing


class Nifti(Slices):
    """NIfTI files (.nii, .nii.gz), a volume each, as `Slices`, after they were brought to one orientation."""

    kind_of_files = "NIfTI files"

    def _open(self, root: Path, files: list[str]) -> tuple[list[Volume], str]:
        _need("nibabel", "NIfTI")
        numbered = [name for name in files if name.lower().endswith((".nii", ".nii.gz"))]
        _tell_others(root, len(files) - len(numbered), "NIfTI")
        if not numbered:
            raise InputError(f"data.root={root} holds no NIfTI files (.nii, .nii.gz)")
        volumes: list[Volume] = [
            NiftiVolume.opened(
                root / name,
                f"file {number} of {len(numbered)}",
                name,
                axis=AXES[self._axis or "axial"],
                group_by=self._group_by or r"sub-[^_/]+",
            )
            for number, name in enumerate(numbered, start=1)
        ]
        return volumes, digest(
            FileSource(root=root, names=numbered).listing, self._axis, self._group_by
        )


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """What a DICOM file's header says.

    Attributes:
        path: of the file.
        where: for messages.
        label: the first folder below the root.
        series: identifies the series.
        patient: identifies the patient.
        shape: (height, width).
        frames: number of images in it.
        spacing: (height, width) of a pixel in mm, or None.
        position: along the series, by which slices are sorted.
        flips: whether rows, and columns, are to be turned round.
    """

    path: Path
    where: str
    label: str
    series: str
    patient: str
    shape: tuple[int, int]
    frames: int
    spacing: tuple[float, float] | None
    position: float
    flips: tuple[bool, bool]

    @classmethod
    def opened(cls, path: Path, where: str, name: str, group_by: str | None) -> "DicomFile | None":
        """Read a header; None for what holds no image by its kind, such as a report or a plan.

        Raises:
            InputError: for an image without pixels, in colour, or that cannot be read.
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
            file = cls(
                path=path,
                where=where,
                label=name.partition("/")[0] if "/" in name else "",
                series=str(found.get("SeriesInstanceUID", where)),
                patient=_matched(group_by, name) or str(found.get("PatientID") or where),
                shape=(int(found.Rows), int(found.Columns)),
                frames=_in_range(int(found.get("NumberOfFrames") or 1), 1, _MOST_FRAMES),
                spacing=None if spacing is None else _spacing(spacing[0], spacing[1]),
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
                f"{where} is in colour ({samples} samples a pixel) among grey ones; take colour images out, and save "
                "them as PNG to train on them"
            )
        return file

    def frame(self, number: int) -> NDArray[np.float32]:
        """Return one image [H, W] in the scanner's levels, turned as all are."""
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


@dataclass(frozen=True, kw_only=True)
class NiftiVolume(Volume):
    """A file of NIfTI, seen along an axis.

    Attributes:
        path: of the file.
        axis: 0, 1 or 2, of the volume whose axes go to the right, front and top.
        count: slices.
    """

    path: Path
    axis: int
    count: int

    @classmethod
    def opened(
        cls, path: Path, where: str, name: str, *, axis: int, group_by: str
    ) -> "NiftiVolume":
        """Read a header.

        Raises:
            InputError: when it is not a three-dimensional volume.
        """
        import nibabel

        try:
            image = nibabel.as_closest_canonical(nibabel.load(path))
            shape = image.shape
            zooms = [float(mm) for mm in image.header.get_zooms()]
            _in_range(math.prod(shape), 1, _MOST_VOXELS)
        except Exception as error:  # nibabel's own, the gzip's and NumPy's
            raise _damaged(where, error) from error
        if len(shape) > 3 and all(size == 1 for size in shape[3:]):
            shape = shape[:3]
        if len(shape) != 3:
            raise InputError(
                f"{where} has {len(shape)} dimensions {list(shape)}; a volume has three: split series in time, and "
                "remove it"
            )
        if image.get_data_dtype().kind not in "iuf":
            raise InputError(f"{where} is in colour, or holds complex values; take it out")
        across = [i for i in (0, 1, 2) if i != axis]
        try:
            spacing = _spacing(zooms[across[1]], zooms[across[0]])
        except ValueError as error:
            raise _damaged(where, error) from error
        return cls(
            patient=_matched(group_by, name) or where,
            label=name.partition("/")[0] if "/" in name else "",
            where=where,
            shape=(shape[across[1]], shape[across[0]]),
            spacing=spacing,
            path=path,
            axis=axis,
            count=shape[axis],
        )

    def __len__(self) -> int:
        return self.count

    def slice(self, number: int) -> NDArray[np.float32]:
        return self._turned(self._values(), number)

    def _values(self) -> NDArray[np.float32]:
        try:
            return _read_nifti(self.path)
        except Exception as error:  # nibabel's own, the gzip's and NumPy's
            raise _damaged(self.where, error) from error

    def _turned(self, values: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        """Rows go from the front or the top, columns from the patient's right (in sagittal slices from the front)."""
        plane: NDArray[np.float32] = np.take(values, number, axis=self.axis)
        return plane.T[::-1, ::-1]


@lru_cache(maxsize=2)  # slices of a volume are wanted one after the other
def _read_nifti(path: Path) -> NDArray[np.float32]:
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.asanyarray(image.dataobj).astype(np.float32)
    return values.reshape(values.shape[:3])


@lru_cache(maxsize=2)  # and frames of a file
def _read_dicom(path: Path) -> Any:
    import pydicom

    return pydicom.dcmread(path, force=True)


def _files(folder: Path) -> list[str]:
    """Regular files below a folder, as paths from it; hidden ones are passed over."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in found]
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def _is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's preamble (PS3.10, 7.1), or is called so and has none, as old ones."""
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima")


def _tell_others(root: Path, count: int, what: str) -> None:
    if count:
        say(
            f"data.root: passed over {counted(count, 'file')} that {'is' if count == 1 else 'are'} no {what}"
        )


def _need(module: str, what: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise InputError(
            f"{what} needs the extra medical: pip install 'gan_lab[medical]' ({error})"
        ) from error


def _in_range(number: int, least: int, most: int) -> int:
    """Return a number of a header; ValueError for one that cannot be."""
    if not least <= number <= most:
        raise ValueError(f"{number:,} is out of range")
    return number


def _spacing(height: Any, width: Any) -> tuple[float, float]:
    """Return the size of a pixel in mm; ValueError for one that cannot be."""
    sides = float(height), float(width)
    if not all(_SPACINGS[0] <= side <= _SPACINGS[1] for side in sides):
        raise ValueError(f"pixels of {sides} mm")
    return sides


def _matched(group_by: str | None, name: str) -> str | None:
    if group_by is None:
        return None
    try:
        match = re.search(group_by, name)
    except re.error as error:
        raise InputError(
            f"data.group_by={group_by} is not a regular expression ({error})"
        ) from error
    if match is None:
        return None
    return str(match[1] if match.re.groups else match[0])


def _damaged(where: str, error: Exception) -> InputError:
    return InputError(
        f"{where} cannot be read ({type(error).__name__}): it is damaged or no NIfTI; repair or remove it"
    )


def _geometry(found: Any) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Directions of rows and columns [2, 3] and place of the first pixel [3], as a header says (PS3.3, C.7.6.2)."""
    directions, place = found.get("ImageOrientationPatient"), found.get("ImagePositionPatient")
    return (
        None if not directions else np.array(directions, dtype=np.float64).reshape(2, 3),
        None if not place else np.array(place, dtype=np.float64),
    )


def _position(
    directions: NDArray[np.float64] | None, place: NDArray[np.float64] | None, number: Any
) -> float:
    if directions is not None and place is not None:
        return float(np.cross(*directions) @ place)
    return float(number or 0)


def _flips(directions: NDArray[np.float64] | None) -> tuple[bool, bool]:
    """Whether to turn rows and columns, so that x grows to the patient's left, y to the back, and z from the top."""
    if directions is None:
        return False, False
    along_row, along_column = np.take_along_axis(
        directions, np.abs(directions).argmax(1, keepdims=True), axis=1
    )
    vertical_is_z = int(np.abs(directions[1]).argmax()) == 2
    return bool((along_column > 0) == vertical_is_z), bool(along_row < 0)


def _pseudonyms(patients: Sequence[str]) -> list[str]:
    """Names such as "patient0001", numbered in an order that has nothing to do with that of the real ones."""
    ordered = sorted(set(patients), key=lambda one: hashlib.sha256(one.encode()).digest())
    number = {patient: i for i, patient in enumerate(ordered, start=1)}
    return [f"patient{number[patient]:04}" for patient in patients]


def _looked_at(volumes: Sequence[Volume]) -> Arrays:
    """Lowest, highest level, percentiles, and whether levels are whole, of each volume; the spread of each slice."""
    say(f"looking at {counted(len(volumes), 'volume')} (once; the result is cached) ...")
    ends, whole, spreads = [], [], []
    for volume in volumes:
        low, high, is_whole, some = np.inf, -np.inf, True, []
        for pixels in map(volume.slice, range(len(volume))):
            if not np.isfinite(pixels).all():
                raise InputError(f"{volume.where} holds NaN or infinity; replace them")
            low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
            is_whole = is_whole and low >= 0 and bool((pixels == np.rint(pixels)).all())
            spreads.append(float(pixels.std()))
            flat = pixels.reshape(-1)
            some.append(flat[:: max(1, flat.size // 1024)])
        ends.append([low, high, *np.percentile(np.concatenate(some), (0.5, 99.5))])
        whole.append(is_whole and high <= 65535)
    return {
        "ends": np.array(ends, dtype=np.float64),
        "whole": np.array(whole),
        "spreads": np.array(spreads, dtype=np.float64),
    }


def _chosen(
    volumes: Sequence[Volume],
    found: Arrays,
    slices: Sequence[int] | None,
    every: int,
    keep_empty: bool,
) -> list[tuple[int, int]]:
    """Volume and slice of all that are wanted."""
    items, start = [], 0
    for number, volume in enumerate(volumes):
        count = len(volume)
        first, last = (0, count - 1) if slices is None else slices
        first, last = (end + count if end < 0 else end for end in (first, last))
        span = found["ends"][number, 1] - found["ends"][number, 0]
        for k in range(max(first, 0), min(last, count - 1) + 1, every):
            if keep_empty or found["spreads"][start + k] > _EMPTY * span:
                items.append((number, k))
        start += count
    if not items:
        raise InputError(
            f"of {counted(start, 'slice')} none is left; widen data.slices, or set data.keep_empty=true"
        )
    return items


def _ends(levels: str | tuple[float, float], found: Arrays, bits: int) -> tuple[float, float]:
    if not isinstance(levels, str):
        return levels
    if levels == "full" and bits == 16:
        return 0.0, 65535.0
    low, high = (2, 3) if levels == "percentiles" else (0, 1)
    ends = float(found["ends"][:, low].min()), float(found["ends"][:, high].max())
    if not ends[0] < ends[1]:
        raise InputError(
            f"all volumes have the one level {ends[0]:g}, of which nothing can be learned"
        )
    return ends


def _resampled_size(
    shape: tuple[int, int], spacing: tuple[float, float] | None, wanted: float | None
) -> tuple[int, int]:
    if wanted is None or spacing is None:
        return shape
    height, width = (
        max(1, round(side * mm / wanted)) for side, mm in zip(shape, spacing, strict=True)
    )
    return height, width


def _resampled(
    plane: NDArray[np.float32], spacing: tuple[float, float], wanted: float
) -> NDArray[np.float32]:
    height, width = _resampled_size((plane.shape[0], plane.shape[1]), spacing, wanted)
    resized = Image.fromarray(np.ascontiguousarray(plane)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def _check_options(
    *, spacing: float | None, slices: Sequence[int] | None, every: int, neighbours: int
) -> None:
    if spacing is not None and not 0 < spacing < float("inf"):
        raise InputError(f"data.spacing={spacing}; allowed: mm a pixel above 0, or null")
    if slices is not None and (len(slices) != 2 or not all(type(end) is int for end in slices)):
        raise InputError(f"data.slices={slices}; allowed: [first,last], such as [10,-10], or null")
    if every < 1 or neighbours < 0:
        raise InputError(
            f"data.every={every}, data.neighbours={neighbours}; allowed: at least 1, and at least 0"
        )
