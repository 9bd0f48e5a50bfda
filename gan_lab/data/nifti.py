"""NIfTI files: volumes in one orientation, sliced along an axis."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan_lab.data.base import digest
from gan_lab.data.medical import (
    AXES,
    Slices,
    Volume,
    check_range,
    matched,
    pixel_spacing,
    report_skipped,
)
from gan_lab.data.source import FileSource
from gan_lab.errors import InputError, import_extra

_MOST_VOXELS = 2**31


class Nifti(Slices):
    """NIfTI files (.nii, .nii.gz), a volume each, as `Slices`, reoriented to one orientation."""

    kind_of_files = "NIfTI files"

    def _open(self, root: Path, files: list[str]) -> tuple[list[Volume], str]:
        import_extra("nibabel", extra="medical", what="NIfTI")
        numbered = [name for name in files if name.lower().endswith((".nii", ".nii.gz"))]
        report_skipped(len(files) - len(numbered), "NIfTI")
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
class NiftiVolume(Volume):
    """A NIfTI file, sliced along an axis.

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
            InputError: unless it is a 3-D volume.
        """
        import nibabel

        try:
            image = nibabel.as_closest_canonical(nibabel.load(path))
            shape = image.shape
            zooms = [float(mm) for mm in image.header.get_zooms()]
            check_range(math.prod(shape), 1, _MOST_VOXELS)
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
            raise InputError(f"{where} is in color, or holds complex values; take it out")
        across = [i for i in (0, 1, 2) if i != axis]
        try:
            spacing = pixel_spacing(zooms[across[1]], zooms[across[0]])
        except ValueError as error:
            raise _damaged(where, error) from error
        return cls(
            patient=matched(group_by, name) or where,
            series=where,
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


def _damaged(where: str, error: Exception) -> InputError:
    return InputError(
        f"{where} cannot be read ({type(error).__name__}): it is damaged or no NIfTI; repair or remove it"
    )
